"""``python -m monai.bundle`` for a process that starts many: ends with its parent, and leaves its exit status behind.

Run as ``python -m medmamba_monai.bundling.supervised STATUS_FILE PARENT run --config_file …``, with a "-" in place of
the file where none is wanted and the id of the process that starts it; the other arguments are those of
``python -m monai.bundle``. Imports the standard library only.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

__all__ = ["main", "watch_parent"]

SECONDS_BETWEEN_LOOKS = 0.5


def main(status: Path | None, parent: int, arguments: list[str]) -> int:
    """Run ``monai.bundle`` and write how it ended.

    Args:
        status: JSON file that gets ``{"code": exit status}`` when the run ends by itself; a killed one leaves none.
            None: nothing is written.
        parent: id of the process to depend on. It tells it by itself: asked for here, seconds after the start, the
            parent may be gone already.
        arguments: what stands behind ``python -m monai.bundle``.

    Returns:
        The exit status.
    """
    watch_parent(parent)
    sys.argv = ["monai.bundle", *arguments]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException as error:  # noqa: BLE001 (shown as an interpreter does, by the hook that bundles set)
        sys.excepthook(type(error), error, error.__traceback__)
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    if status is not None:
        temporary = status.with_name(f".{status.name}.new")
        temporary.write_text(json.dumps({"code": code}), encoding="utf-8")
        temporary.replace(status)
    return code


def watch_parent(parent: int) -> None:
    """Send this process a SIGTERM once ``parent`` is not its parent; a training then saves its state and ends.

    Args:
        parent: id of the process to depend on.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.name == "posix":  # elsewhere a process keeps its parent's number for ever
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(main(None if sys.argv[1] == "-" else Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
