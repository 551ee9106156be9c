"""The log of a packaging on disk: segment files named by the offset of their first byte.

Old segments are removed to limit the size. Offsets count from the first byte of the log, so that they stay valid.
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
_SEGMENTS = 8  # of a log; an eighth of it is removed at a time


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a log.

    Attributes:
        start: Offset of its first byte; above the requested offset if that part was removed.
        data: Its bytes; empty at the end of the log.
    """

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.start + len(self.data)


class LogWriter:
    """Appends to a log; a context manager."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        """Create `folder` if necessary, and keep about the last `most_bytes` bytes in it.

        Raises:
            OSError: The folder is not writable.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = max(1, most_bytes // _SEGMENTS)
        self._start = log_size(folder)
        self._written = 0
        self._descriptor = -1

    def write_line(self, text: str) -> None:
        """Write a line, which readers see at once.

        Raises:
            OSError: The line cannot be written, for example because the disk is full.
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
        """Return the writer."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the file."""
        self.close()


def log_size(folder: Path) -> int:
    """Return the size of a log, including removed segments; 0 without a log."""
    starts = _starts(folder)
    if not starts:
        return 0
    try:
        return starts[-1] + _path(folder, starts[-1]).stat().st_size
    except FileNotFoundError:  # the log was removed
        return 0


def read_log(folder: Path, offset: int, *, limit: int) -> Block:
    """Read at most `limit` bytes from an offset, within one segment.

    Raises:
        OSError: The log is unreadable.
    """
    while starts := _starts(folder):
        start = next((each for each in reversed(starts) if each <= offset), starts[0])
        offset = max(offset, start)
        # If the segment was just removed, read the next one.
        with suppress(FileNotFoundError), _path(folder, start).open("rb", buffering=0) as file:
            file.seek(offset - start)
            return Block(start=offset, data=file.read(limit) or b"")
    return Block(start=offset, data=b"")


def _starts(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())  # noqa: PTH208  (only names are needed)
    except FileNotFoundError:
        return []


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:0{_DIGITS}d}"
