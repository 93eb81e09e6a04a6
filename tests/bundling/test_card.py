"""The model card's sentences that a release changes: in every card, once, and never guessed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmamba_monai.bundling.card import NO_FIGURES, NO_WEIGHTS, WHERE_TO_RUN, rewrite_card
from medmamba_monai.errors import ConfigError

from .conftest import REPOSITORY


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "bundles").iterdir()))
def test_every_card_has_each_sentence_once(name: str) -> None:
    text = (REPOSITORY / "bundles" / name / "docs" / "README.md").read_text()
    assert [text.count(sentence) for sentence in (NO_WEIGHTS, NO_FIGURES, WHERE_TO_RUN)] == [1, 1, 1]


def test_a_sentence_is_replaced_and_nothing_else(bundle: Path) -> None:
    card = bundle / "docs" / "README.md"
    before = card.read_text()
    rewrite_card(bundle, {NO_FIGURES: "Some figures."})
    assert card.read_text() == before.replace(NO_FIGURES, "Some figures.")


def test_a_card_that_was_rewritten_is_not_guessed_at(bundle: Path) -> None:
    (bundle / "docs" / "README.md").write_text("# My own card\n")
    with pytest.raises(ConfigError, match="README.md"):
        rewrite_card(bundle, {NO_WEIGHTS: "x"})
