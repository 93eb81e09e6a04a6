"""Which files a run wrote, so that those an earlier run left in the same folder are not recorded as its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["WrittenFiles"]

Stamp = tuple[int, int]


class WrittenFiles:
    """Remembers files when a run starts and names those that are new or changed when it ends.

    Args:
        places: files, and folders with all that is below them; they need not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     place = Path(name, "figures")
        ...     place.mkdir()
        ...     _ = (place / "old.png").write_text("a")
        ...     written = WrittenFiles([place])
        ...     _ = (place / "new.png").write_text("b")
        ...     [(file.name, folder) for file, folder in written.changed()]
        [('new.png', 'figures')]
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        self.places = [Path(place) for place in places]
        self._before = {file: _stamp(file) for place in self.places for file in _files(place)}

    def changed(self) -> Iterator[tuple[Path, str | None]]:
        """Each new or changed file with its folder among the artifacts; None where it was named itself."""
        for place in self.places:
            for file in _files(place):
                if self._before.get(file) != _stamp(file):
                    folder = Path(place.name) / file.relative_to(place).parent if place.is_dir() else None
                    yield file, None if folder is None else folder.as_posix()


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(file for file in place.rglob("*") if file.is_file() and not file.name.startswith("."))


def _stamp(file: Path) -> Stamp:
    facts = file.stat()
    return facts.st_mtime_ns, facts.st_ino  # files are replaced, so that even a second within a tick tells
