"""Work that one of several training processes does for all of them. Imports errors only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from medmamba_monai.errors import DataError, MedMambaError

__all__ = ["on_first_process"]

_T = TypeVar("_T")
_PATIENCE = timedelta(hours=12)  # reading a large archive takes longer than a process group waits by default


def on_first_process(work: Callable[[], _T]) -> _T:
    """Return what ``work`` gives on the first process, on all of them; without a process group, just call it.

    All processes have to call this at the same point.

    Raises:
        MedMambaError: what ``work`` raises, on the first process; the others raise a DataError of the same message.

    Example:
        >>> on_first_process(lambda: 3)
        3
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return work()
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    outcome: list[Any] = [None, None]
    failure: MedMambaError | None = None
    try:
        if dist.get_rank() == 0:
            try:
                outcome[0] = work()
            except MedMambaError as error:
                failure, outcome[1] = error, str(error)
        dist.broadcast_object_list(outcome, src=0, group=group)
    finally:
        dist.destroy_process_group(group)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise DataError(f"the first process stopped: {outcome[1]}")
    result: _T = outcome[0]
    return result
