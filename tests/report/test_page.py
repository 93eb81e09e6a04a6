"""The page's structure, and its numbers against metrics.json; a browser looks at it where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.report import make_report, read_run
from medmamba_monai.report.page import build_page, render

from .conftest import HOSTILE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Reader(HTMLParser):
    """Tables by their captions, images, headings, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside in ("th", "td"):
            self.rows[-1][-1] += data
        elif inside == "caption":
            self.caption += data
        elif inside in ("h1", "h2"):
            self.headings.append(data)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_numbers_are_those_of_metrics_json(make: Any, task: str) -> None:
    folder = make(names=["a", "b", "c"], task=task)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["intervals"] = {"auc": [0.123, 0.987]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = Reader(render(build_page(read_run(folder))))
    rows = {row[0]: row[1:] for row in page.tables["All images"]}
    assert rows["AUC (mean over classes)"] == [f"{metrics['auc']:.3f}", "0.123 to 0.987"]
    key, name = ("accuracy", "accuracy") if task == "multiclass" else ("exact_match", "every class right")
    assert rows[name][0] == f"{metrics[key]:.3f}"
    head, *classes = page.tables["Each class against the rest"]
    for row, (label, entry) in zip(classes, metrics["per_class"].items(), strict=True):
        assert row[:2] == [label, str(entry["support"])]
        assert row[head.index("AUC")] == f"{entry['auc']:.3f}"
        assert row[head.index("sensitivity")] == f"{entry['sensitivity']:.3f}"
    counts = page.tables["Images of each class and part"]
    assert [row[3] for row in counts[1:-1]] == [str(entry["support"]) for entry in metrics["per_class"].values()]
    assert counts[-1] == ["all images", "6", "3", "40"]


def test_structure(make: Any) -> None:
    folder = make(names=HOSTILE, empty=(2,))
    path = make_report(folder)
    html = path.read_text(encoding="utf-8")
    page = Reader(html)
    assert path.stat().st_size < 5_000_000
    wanted = ["Data", "Training", "Metrics", "Calibration and referral", "Worst errors", "Explanation examples"]
    assert page.headings[1:] == [*wanted, "Limits", "Versions and commands"]
    assert "Breast ultrasound classification: ultrasound, test part" in page.headings[0]
    assert len(page.images) == 8 + 1  # every figure but the training batch, and the overlay that exists
    for image in page.images:
        assert (image["src"] or "").startswith("data:image/")
        assert len(image["alt"] or "") > 10
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(0)&gt;.png" in html
    assert "No image has {{ 7 * 7 }}" in html
    assert "/home/somebody" not in html
    assert str(folder) not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "not for diagnosis" in html
    assert "epoch 2: val_auc 0.750" in html
    assert "--epochs 2" in html


def test_of_other_files_than_those_trained_on_only_the_evaluated_part_is_counted(make: Any) -> None:
    folder = make()
    assert "Training, which compares all images" in render(build_page(read_run(folder)))
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"same_files": False}))
    html = render(build_page(read_run(folder)))
    assert "Training used other files" in html
    assert "Training, which compares all images" not in html
    assert "in two parts" not in html
    assert Reader(html).tables["Images of each class and part"][0] == ["class", "test"]


def test_maps_of_one_network_beside_means_say_so(make: Any) -> None:
    folder = make()
    index = folder / "explanations" / "index.json"
    assert "one view alone" not in render(build_page(read_run(folder)))
    told = json.loads(index.read_text())
    told["items"][0]["own_probability"] = 0.625
    index.write_text(json.dumps(told))
    html = render(build_page(read_run(folder)))
    assert "each map is of one network and one view alone" in html
    assert "which say 0.625" in html


def test_reliability_of_single_classes_is_not_called_sureness(make: Any) -> None:
    several, single = "the class is rarer than stated", "surer than right"
    folder = make(names=["a", "b"], task="multilabel")
    metrics = json.loads((folder / "metrics.json").read_text())
    make_report(folder)
    given = bool((metrics.get("reliability") or {}).get("bins"))
    html = render(build_page(read_run(folder)))
    assert given
    assert several in html
    assert single not in html


def test_little_is_enough(make: Any) -> None:
    html = render(build_page(read_run(make(whole=False, grouped=False))))
    for told in ("no datalist.json", "no history.csv", "No explanations", "not saved", "Patients are not known"):
        assert told in html
    Reader(html)


CHECK = """<!DOCTYPE html><title>check</title><body>
<iframe id="page" src="{page}" style="width:{width}px;height:900px;border:0"></iframe><pre id="found"></pre><script>
window.addEventListener("load", () => {{
  const inner = document.getElementById("page").contentDocument;
  const images = [...inner.images];
  document.getElementById("found").textContent = JSON.stringify({{
    images: images.length,
    broken: images.filter((image) => !image.complete || image.naturalWidth === 0).length,
    wide: inner.documentElement.scrollWidth, shown: inner.documentElement.clientWidth,
    text: Math.min(...[...inner.querySelectorAll("p, li, td, th, figcaption")].map(
      (part) => parseFloat(inner.defaultView.getComputedStyle(part).fontSize))),
    hidden: images.filter((image) => image.clientWidth < 100).length,
  }});
}});
</script>"""


def look(page: Path, width: int, folder: Path) -> tuple[dict[str, float], str]:
    """What a browser finds in the page at a width, and what it writes on its console."""
    check = page.parent / f"check_{width}.html"
    check.write_text(CHECK.format(page=page.name, width=width), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               "--allow-file-access-from-files", "--window-size=1400,1000", f"--user-data-dir={folder / str(width)}",
               "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom", check.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    check.unlink()
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert found is not None, done.stderr[-2000:]
    return json.loads(found.group(1)), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@browser
@pytest.mark.slow
def test_every_figure_in_a_browser(make: Any, tmp_path: Path) -> None:
    names = [f"a rather long class name {letter}" for letter in "abcdefghijk"]
    page = make_report(make(names=names, count=80))
    for width in (1280, 400):
        found, console = look(page, width, tmp_path / "profile")
        assert console == ""
        assert found["images"] == 9
        assert found["broken"] == found["hidden"] == 0
        assert found["shown"] > width - 20  # a scroll bar is beside it
        assert found["wide"] <= found["shown"]
        assert found["text"] >= 12


@browser
def test_the_browser_sees_planted_faults(make: Any, tmp_path: Path) -> None:
    page = make() / "report.html"
    html = render(build_page(read_run(page.parent)))
    page.write_text(html, encoding="utf-8")
    found, console = look(page, 400, tmp_path / "profile")
    assert (found["broken"], console) == (0, "")
    assert found["wide"] <= found["shown"]
    planted = '<main><img src="data:image/png;base64,broken" alt=""><img src="http://localhost:9/x.png" alt="">'
    planted += '<p style="width: 900px; max-width: none; font-size: 8px">wide</p>'
    page.write_text(html.replace("<main>", planted), encoding="utf-8")
    found, console = look(page, 400, tmp_path / "profile")
    assert found["broken"] == 2
    assert found["wide"] > found["shown"]
    assert found["text"] == 8
    assert "Content Security Policy" in console
