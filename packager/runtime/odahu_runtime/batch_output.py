"""Files of predictions, written chunk by chunk; a file appears complete or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO, Any, Iterator, List, Set

_parts: Set[str] = set()


class OutputError(Exception):
    """The result can't be written."""


class Writer:
    """Writes the rows of predictions."""

    def write(self, rows: List[Any], columns: List[Any]) -> None:
        """Write the rows of a chunk; the columns are the same in all chunks."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write the end after the last row."""

    def abort(self) -> None:
        """Discard the unfinished output."""


@contextmanager
def written(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing, which gets its name `path` when the block succeeds.

    Raises:
        OutputError: It can't be written.
    """
    part = f"{path}.{os.getpid()}.part"
    try:
        _parts.add(part)
        try:
            with open(part, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        finally:
            remove_parts()
    except OSError as error:
        if error.filename not in (None, part, path):
            raise
        raise OutputError(f"{path} can't be written: {error.strerror}") from error


def remove_parts() -> None:
    """Remove unfinished files; also called before the process exits at once."""
    for part in list(_parts):
        with suppress(OSError):
            os.unlink(part)
        _parts.discard(part)


class JsonWriter(Writer):
    """Writes one document, `{"prediction": [...], "columns": [...]}`, one row per line."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a stream."""
        self._stream = stream
        self._columns: List[Any] = []
        self._begun = False

    def write(self, rows: List[Any], columns: List[Any]) -> None:
        """Write the rows of a chunk."""
        self._columns = columns
        for row in rows:
            self._stream.write((",\n" if self._begun else '{"prediction": [\n').encode() + _json(row))
            self._begun = True

    def finish(self) -> None:
        """Close the lists."""
        self._stream.write(b'\n], "columns": ' + _json(self._columns) + b"}\n")


class LinesWriter(Writer):
    """Writes one row per line: an object if the columns have names, else a list."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a stream."""
        self._stream = stream

    def write(self, rows: List[Any], columns: List[Any]) -> None:
        """Write the rows of a chunk."""
        names = [str(name) for name in columns]
        for row in rows:
            named = isinstance(row, list) and len(row) == len(names) == len(set(names)) > 0
            self._stream.write(_json(dict(zip(names, row)) if named else row) + b"\n")  # noqa: B905  (checked)


class CsvWriter(Writer):
    """Writes CSV with a header; a missing value is an empty cell, lists and objects are JSON text."""

    def __init__(self, stream: IO[bytes], delimiter: str) -> None:
        """Write to a stream."""
        self._stream = stream
        self._text = io.StringIO(newline="")
        self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._begun = False

    def write(self, rows: List[Any], columns: List[Any]) -> None:
        """Write the rows of a chunk, and the header before the first."""
        lists = as_lists(rows)
        if not self._begun:
            self._csv.writerow(names_for(columns, lists))
            self._begun = True
        self._csv.writerows([_cell(value) for value in row] for row in lists)
        self._stream.write(self._text.getvalue().encode("utf-8", "backslashreplace"))
        self._text.seek(0)
        self._text.truncate()


def as_lists(rows: List[Any]) -> List[List[Any]]:
    """Return rows as lists; a model may also return one value per row."""
    return [row if isinstance(row, list) else [row] for row in rows]


def names_for(columns: List[Any], rows: List[List[Any]]) -> List[str]:
    """Return the names of the columns; default names if the model returns none, or not one per value."""
    width = max(map(len, rows), default=0)
    if len(columns) == width:
        return [str(name) for name in columns]
    return ["prediction"] if width == 1 else [f"prediction_{number}" for number in range(1, width + 1)]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
