"""What a page is made of: sections of sentences, tables and pictures. Plain data; the template gives it its looks."""

from __future__ import annotations

from dataclasses import dataclass, field

from medmamba_monai.report.embed import Picture

__all__ = ["Card", "Figure", "Page", "Section", "Table"]

PIXELS_AN_INCH = 100  # on the page; the files are finer, for screens of high density


@dataclass(frozen=True)
class Card:
    """A number that stands out: its name, value, and interval or reason."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first cell of each is its name.

    Attributes:
        caption: what the table shows.
        head: names of the columns.
        rows: rows of texts.
        foot: a row of sums; empty: none.
        texts: cells are words, not numbers.
        files: the first cells are long names of files.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]
    foot: list[str] = field(default_factory=list)
    texts: bool = False
    files: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture with its words.

    Attributes:
        picture: the file.
        title: what a screen reader calls its frame.
        alt: what one sees, in words.
        caption: how to read it.
        dpi: pixels of the file an inch.
    """

    picture: Picture
    title: str
    alt: str
    caption: str
    dpi: int = 140

    @property
    def address(self) -> str:
        """The picture as a data address."""
        return self.picture.address

    @property
    def width(self) -> int:
        """Pixels of the file."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Pixels of the file."""
        return self.picture.height

    @property
    def shown(self) -> int:
        """Width on the page in its pixels, at most."""
        return round(self.picture.width * PIXELS_AN_INCH / self.dpi)


@dataclass
class Section:
    """One heading and what stands below it, in this order."""

    id: str
    title: str
    texts: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    examples: list[Figure] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    cards: list[Card]
    sections: list[Section]
    footer: str
