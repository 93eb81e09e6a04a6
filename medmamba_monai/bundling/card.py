"""Changes in the model card of a release: single sentences of the template, each of which must be there.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medmamba_monai.errors import ConfigError

__all__ = ["NO_FIGURES", "NO_WEIGHTS", "WHERE_TO_RUN", "rewrite_card"]

NO_WEIGHTS = "This bundle comes without trained weights: train it on your data first."
NO_FIGURES = "No weights are published with this version, so no figures are given."
WHERE_TO_RUN = "From any working directory, with the bundle's folder in place of `BUNDLE`:"


def rewrite_card(folder: Path, changes: Mapping[str, str]) -> None:
    """Replace sentences of a bundle's docs/README.md.

    Args:
        folder: the bundle.
        changes: new text by old sentence.

    Raises:
        ConfigError: a sentence does not stand there exactly once, as in a card that was rewritten by hand.
    """
    card = folder / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ConfigError(f"does not say {old!r} once", where=str(card), remedy="restore it from the template")
        text = text.replace(old, new)
    card.write_text(text, encoding="utf-8")
