"""Work that one process does for all: once, with its result or its failure known to every one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medmamba_monai.bundling.processes import on_first_process
from medmamba_monai.errors import DataError

SCRIPT = """
import sys
from pathlib import Path
import torch.distributed as dist
from medmamba_monai.bundling.processes import on_first_process
from medmamba_monai.errors import DataError
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
def work():
    (folder / f"worked_{rank}").touch()
    return {"rank": rank}
def fail():
    raise DataError("no images", where="here", remedy="give some")
told = [str(on_first_process(work))]
try:
    on_first_process(fail)
except DataError as error:
    told.append(str(error))
told.append(str(on_first_process(lambda: 7)))
(folder / f"told_{rank}").write_text("\\n".join(told))
dist.destroy_process_group()
"""


def test_without_a_group_it_is_just_done() -> None:
    assert on_first_process(lambda: "done") == "done"
    with pytest.raises(DataError, match="as it is"):
        on_first_process(lambda: (_ for _ in ()).throw(DataError("as it is")))


def test_two_processes_share_one_result_and_one_failure(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    children = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    assert [path.name for path in tmp_path.glob("worked_*")] == ["worked_0"]
    first, second = ((tmp_path / f"told_{rank}").read_text().splitlines() for rank in range(2))
    assert first == ["{'rank': 0}", "here: no images. Remedy: give some", "7"]
    assert second == ["{'rank': 0}", "the first process stopped: here: no images. Remedy: give some", "7"]
