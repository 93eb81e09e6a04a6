"""Make MedMamba known to MONAI as ``monai.networks.nets.MedMamba``, whichever package is imported first.

MONAI keeps no registry of networks: a ``_target_`` is a dotted path that must exist. Importing MONAI takes seconds, so
when it is not loaded yet, a hook waits for ``monai.networks.nets``. Imports networks.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

from .networks import MedMamba

__all__ = ["register"]

_TARGET = "monai.networks.nets"


class _Loader(importlib.abc.Loader):
    """Runs the module's own loader, then adds the network."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        module.MedMamba = MedMamba  # type: ignore[attr-defined]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``monai.networks.nets`` once, with the help of the finders behind it, and steps aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def register() -> None:
    """Set ``monai.networks.nets.MedMamba`` now, or as soon as MONAI is imported; again is harmless."""
    nets = sys.modules.get(_TARGET)
    if nets is not None:
        nets.MedMamba = MedMamba  # type: ignore[attr-defined]
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
