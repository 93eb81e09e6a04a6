"""The template escapes everything, and asks for nothing from outside."""

from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError

from medmamba_monai.report.content import Card, Page, Section, Table
from medmamba_monai.report.page import render
from medmamba_monai.report.template import STYLE, TEMPLATE

EVIL = "<script>alert('x')</script>{{ 7 * 7 }}\"'&"


def test_every_text_is_escaped() -> None:
    section = Section(
        EVIL, EVIL, [EVIL], [EVIL], [Table(EVIL, [EVIL], [[EVIL, EVIL]], [EVIL, EVIL])],
        commands={EVIL: EVIL}, after=[EVIL], reasons={EVIL: EVIL},
    )  # fmt: skip
    html = render(Page(EVIL, EVIL, [Card(EVIL, EVIL, EVIL)], [section], EVIL))
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in html  # a text, not an expression
    assert html.count("&lt;script&gt;") > 15
    assert "alert('x')" not in html  # quotes as well, which end attributes


def test_nothing_from_outside_and_no_script() -> None:
    for text in (STYLE, TEMPLATE):
        assert not re.search(r"https?://|//[a-z]|@import|url\(|<script|<iframe|\bon[a-z]+=", text)
    assert "default-src 'none'" in TEMPLATE
    assert "| safe" not in TEMPLATE


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render(object())  # type: ignore[arg-type]
