"""Generated JSON reads back as what was written, and looks the same every time."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from medmamba_monai.bundling.layout import WIDTH, json_text

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(values)
def test_json_text_reads_back(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert text.endswith("\n")


def test_short_values_share_a_line_and_long_ones_do_not() -> None:
    text = json_text({"short": {"a": [1, 2]}, "long": ["word" * 10, "word" * 10, "word" * 10], "none": []})
    assert '  "short": {"a": [1, 2]},\n' in text
    assert '  "long": [\n    "word' in text
    assert '"none": []' in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_letters_stay_readable() -> None:
    assert "é" in json_text({"name": "é"})
