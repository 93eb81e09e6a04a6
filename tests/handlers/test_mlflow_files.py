"""What a run wrote is told from what an earlier one left."""

from __future__ import annotations

import os
from pathlib import Path

from medmamba_monai.handlers.files import write_json
from medmamba_monai.handlers.mlflow_files import WrittenFiles


def test_only_what_changed(tmp_path: Path) -> None:
    figures, report, missing = tmp_path / "figures", tmp_path / "report.html", tmp_path / "no"
    (figures / "deep").mkdir(parents=True)
    for file in (figures / "kept.png", figures / "replaced.png", figures / "deep" / "grown.png", report):
        file.write_text("a")
    written = WrittenFiles([figures, str(report), missing])
    assert list(written.changed()) == []
    write_json(figures / "replaced.png", {})
    (figures / "deep" / "new.png").write_text("b")
    (figures / ".new.png.tmp").write_text("b")
    stamp = (figures / "deep" / "grown.png").stat().st_mtime_ns + 10**9
    os.utime(figures / "deep" / "grown.png", ns=(stamp, stamp))
    missing.write_text("c")
    assert list(written.changed()) == [
        (figures / "deep" / "grown.png", "figures/deep"),
        (figures / "deep" / "new.png", "figures/deep"),
        (figures / "replaced.png", "figures"),
        (missing, None),
    ]


def test_a_file_replaced_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_json(file, {})
    before = file.stat()
    written = WrittenFiles([file])
    write_json(file, {"auc": 1})
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(written.changed()) == [(file, None)]
