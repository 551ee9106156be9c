"""A packaging's log on disk: segments named by the place of their first byte; the oldest go when it's too long.

A place is counted from the log's first byte, whatever has gone meanwhile. So a reader keeps a number and nothing else.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

_DIGITS = 15
_SEGMENTS = 8  # how many make a whole log: so much of it goes at a time


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a log.

    Attributes:
        start: The place of its first byte; later than asked where what was asked has gone.
        data: Its bytes; empty at the log's end.
    """

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The place after its last byte."""
        return self.start + len(self.data)


class LogWriter:
    """Writes a log, from its end on; a context manager."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        """Write into `folder`, which is made where it's missing, and keep about the last `most_bytes` bytes.

        Raises:
            OSError: It can't be written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = max(1, most_bytes // _SEGMENTS)
        self._start = log_size(folder)
        self._written = 0
        self._descriptor = -1

    def write_line(self, text: str) -> None:
        """Write a line; readers see it at once and whole.

        Raises:
            OSError: The disk is full, or broken.
        """
        if self._descriptor < 0 or self._written >= self._segment_bytes:
            self._begin_segment()
        data = f"{text}\n".encode(errors="replace")
        self._written += os.write(self._descriptor, data)

    def _begin_segment(self) -> None:
        self.close()
        self._start, self._written = self._start + self._written, 0
        path = self._folder / f"{self._start:0{_DIGITS}d}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for start in _starts(self._folder)[:-_SEGMENTS]:
            _path(self._folder, start).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the file."""
        self.close()


def log_size(folder: Path) -> int:
    """Return how many bytes a log has had so far; 0 where there is none."""
    starts = _starts(folder)
    if not starts:
        return 0
    try:
        return starts[-1] + _path(folder, starts[-1]).stat().st_size
    except FileNotFoundError:  # the whole log has gone
        return 0


def read_log(folder: Path, place: int, *, most: int) -> Block:
    """Read at most `most` bytes from a place on, not beyond the segment that it lies in.

    Raises:
        OSError: It can't be read.
    """
    while starts := _starts(folder):
        start = next((each for each in reversed(starts) if each <= place), starts[0])
        place = max(place, start)
        # Where it has just gone, the next one.
        with suppress(FileNotFoundError), _path(folder, start).open("rb", buffering=0) as file:
            file.seek(place - start)
            return Block(start=place, data=file.read(most) or b"")
    return Block(start=place, data=b"")


def _starts(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())  # noqa: PTH208  (names, nothing else)
    except FileNotFoundError:
        return []


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:0{_DIGITS}d}"
