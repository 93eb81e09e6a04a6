"""Refuses a misspelt or ill-typed override of a bundle before anything is built.

MONAI adds an override it does not know to the config, where it changes nothing: ``--epoch 5`` trains for the
default number of epochs. A bundle's ``initialize`` list starts with `check_overrides`, which looks at the
config that is being evaluated: a top-level key that nothing refers to and that no bundle knows cannot have
an effect, so it is an error.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigItem
from monai.bundle.reference_resolver import ReferenceResolver

from medmamba_monai.bundling.keys import KEYS, KINDS, PARTS, Key, normal
from medmamba_monai.bundling.merge import SEPARATOR, nearest
from medmamba_monai.errors import ConfigError

__all__ = ["check_overrides", "idle_keys", "running", "running_with", "unused_keys"]

T = TypeVar("T")

TRACKING = {
    *("is_not_rank0", "mlflow", "tracking_uri", "experiment_name", "run_name", "save_execute_config"),
    *("parent_run_id", "system_metrics"),
}
"""Keys of tracking, which MONAI's own ``--tracking`` adds, or which all modes have though inference records nothing."""

logger = logging.getLogger(__name__)


def running(kind: type[T]) -> T | None:
    """Return the innermost object of ``kind`` whose method is being executed, or None.

    A config expression has no name for the config it stands in; what evaluates it is on the call stack.

    Args:
        kind: the class to look for among the ``self`` of the calling frames.
    """
    return next((candidate for candidate in _callers() if isinstance(candidate, kind)), None)


def running_with(attribute: str) -> Any:
    """Return the innermost object with an attribute of that name whose method is being executed, or None.

    Args:
        attribute: its name.
    """
    return next((candidate for candidate in _callers() if attribute in getattr(candidate, "__dict__", ())), None)


def _callers() -> Iterator[Any]:
    frame = inspect.currentframe()
    while frame is not None:
        if "self" in frame.f_locals:
            yield frame.f_locals["self"]
        frame = frame.f_back


def check_overrides() -> None:
    """Check the top-level keys of the config whose expression calls this.

    Values as a command line delivers them ("false", a number as a folder's name) become what the key takes.

    Raises:
        ConfigError: a key has no effect, or its value is of the wrong kind.
    """
    parser, resolver = running(ConfigParser), running(ReferenceResolver)
    if parser is None or resolver is None:
        warnings.warn("overrides are not checked: this MONAI evaluates configs in an unknown way", stacklevel=2)
        return
    workflow = running(ConfigWorkflow)
    entries = set() if workflow is None else {workflow.init_id, workflow.run_id, workflow.final_id}
    unused = unused_keys(resolver.items, entries)
    if unused:
        known = {key.name for key in KEYS} | PARTS | {_top(id_) for id_ in resolver.items} - set(unused)
        close = nearest(unused[0], sorted(known))
        raise ConfigError(
            f"the key {unused[0]!r} is not known, so it would have no effect",
            where="override",
            remedy=f"did you mean {close!r}?" if close else "docs/README.md of the bundle lists the keys",
        )
    for name in idle_keys(resolver.items):
        logger.warning("%s has no effect in this mode", name)
    for key in KEYS:
        if key.name in resolver.items:
            item = resolver.items[key.name]
            value = _checked(key, item.get_config())
            item.update_config(value)
            parser.get()[key.name] = value


def unused_keys(items: Mapping[str, ConfigItem], entries: set[str]) -> list[str]:
    """List top-level keys that no bundle knows and to which nothing in the config refers.

    Args:
        items: every config item by id, as MONAI's resolver holds them.
        entries: ids that are run by name (``--run_id``).
    """
    allowed = PARTS | TRACKING | entries | {key.name for key in KEYS} | _referred(items)
    top = [id_ for id_ in items if id_ and SEPARATOR not in id_ and not id_.startswith("_")]
    return [id_ for id_ in top if id_ not in allowed]


def idle_keys(items: Mapping[str, ConfigItem]) -> list[str]:
    """List keys that belong to another mode than the config's, such as epochs in inference or split in training.

    One set of overrides may serve all modes of a bundle, so this is no error.

    Args:
        items: every config item by id, as MONAI's resolver holds them.
    """
    busy = _referred(items) | TRACKING | {"bundle_root"}  # it may be given even where all that depends on it is, too
    if "train" in items and "split" in busy:
        return []  # evaluation is merged over the training's config, some of whose own keys then rest
    return [key.name for key in KEYS if key.name in items and key.name not in busy]


def _referred(items: Mapping[str, ConfigItem]) -> set[str]:
    """Return the top-level keys that another top-level key refers to."""
    referred = set()
    for id_, item in items.items():
        value = item.get_config()
        if isinstance(value, str):
            referred |= {_top(ref) for ref in ReferenceResolver.match_refs_pattern(value)} - {_top(id_)}
    return referred


def _top(id_: str) -> str:
    return id_.split(SEPARATOR)[0]


def _checked(key: Key, value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("$", "@"):
        return value  # an expression: what uses its value checks it
    value = normal(key.kind, value)
    wanted, fits = KINDS[key.kind]
    if not fits(value):
        raise ConfigError(f"{key.name} must be {wanted}, not {value!r}", where="override", remedy=f"give --{key.name}")
    return value
