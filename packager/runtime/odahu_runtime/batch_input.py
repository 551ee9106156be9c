"""Batch input as chunks of rows: CSV, JSON lines and JSON; Parquet is in `parquet`."""

from __future__ import annotations

import csv
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import csv_values, inputs
from .column_names import ColumnNames
from .inputs import Batch, InputError

if TYPE_CHECKING:
    from typing import IO, Any, Callable, Iterator, List, Optional, Sequence, Tuple

    from .schema import Column

STDIN = "-"
FORMATS = ("json", "jsonl", "csv", "parquet")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_LONGEST_CELL = 1 << 24  # characters; Python's own limit is less than what an encoded image takes


class Source(NamedTuple):
    """An input and its format.

    Attributes:
        path: A file, or `-` for standard input.
        form: One of `FORMATS`.
        rows: Maximum of rows in a chunk.
        delimiter: Delimiter of CSV.
        header: Whether the first line of CSV has the column names.
    """

    path: str
    form: str
    rows: int
    delimiter: str = ","
    header: bool = True

    @property
    def name(self) -> str:
        """Return its name in error messages."""
        return "standard input" if self.path == STDIN else self.path


class Chunk(NamedTuple):
    """Rows that are predicted together.

    Attributes:
        first: The number of the first row, counted from 1.
        batch: The rows.
    """

    first: int
    batch: Batch

    @property
    def last(self) -> int:
        """Return the number of the last row."""
        return self.first + len(self.batch.data) - 1


class Progress(NamedTuple):
    """The progress of a reader and its total, in bytes or in rows; 0 if unknown."""

    done: int
    total: int


def format_of(path: str) -> str:
    """Return the format of a file by its suffix; JSON for unknown suffixes."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), "json")


def known_suffix(path: str) -> bool:
    """Whether the suffix of a path is that of a format."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in _SUFFIXES or suffix == ".json"


@contextmanager
def opened(source: Source) -> Iterator[Tuple[IO[bytes], Callable[[], Progress]]]:
    """Open the input; yield its stream, and a function for the progress.

    Raises:
        InputError: It can't be opened.
    """
    if source.path == STDIN:
        if sys.stdin is None:
            raise InputError("Standard input is closed: there is nothing to read")
        yield sys.stdin.buffer, lambda: Progress(0, 0)
        return
    try:
        stream = open(source.path, "rb")  # noqa: SIM115  (an error in the block is not one of opening)
    except OSError as error:
        raise InputError(f"The input file {source.name} can't be read: {error.strerror}") from error
    with stream:
        size = os.fstat(stream.fileno()).st_size
        yield stream, lambda: Progress(stream.raw.tell(), size) if size else Progress(0, 0)


def checked(chunks: Iterator[Chunk], source: Source) -> Iterator[Chunk]:
    """Yield chunks, and name the input in errors of reading it.

    Raises:
        InputError: It can't be read, or is not UTF-8.
    """
    last = 0
    try:
        for chunk in chunks:
            last = chunk.last
            yield chunk
    except OSError as error:
        raise InputError(f"The input file {source.name} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        where = f", after row {last}" if last else ""
        raise InputError(f"The input file {source.name} is not UTF-8{where}: {error.reason}") from error


def read_csv(stream: IO[bytes], source: Source, described: Sequence[Column]) -> Iterator[Chunk]:
    """Read CSV (RFC 4180); cells get the types that the model's `info()` gives their columns.

    Raises:
        InputError: A row is too short or too long, or a cell does not have its column's type; says where.
    """
    model = ColumnNames(described)
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    lines = csv.reader(text, delimiter=source.delimiter, strict=True)
    try:
        names = next(lines, []) if source.header else None
        read: Optional[List[csv_values.Reader]] = None
        first, rows = 1, []  # type: int, List[Any]
        for line in lines:
            if not line:
                continue
            if read is None:
                read = _cell_readers(names, len(line), model)
            rows.append(_values(line, read, names, f"{source.name}: row {first + len(rows)} (line {lines.line_num})"))
            if len(rows) == source.rows:
                yield Chunk(first, Batch(rows, names))
                first, rows = first + len(rows), []
    except csv.Error as error:
        raise InputError(f"{source.name}: line {lines.line_num}: {error}") from error
    finally:
        text.detach()
    if rows:
        yield Chunk(first, Batch(rows, names))


def _cell_readers(names: Optional[List[str]], width: int, model: ColumnNames) -> List[csv_values.Reader]:
    if names:
        return csv_values.readers(names, model)
    if width == len(model.columns):
        return list(map(csv_values.reader_of, model.columns))
    return [csv_values.guess] * width


def _values(line: List[str], read: List[csv_values.Reader], names: Optional[List[str]], place: str) -> List[Any]:
    if len(line) != len(read):
        whose = "there are" if names else "the first row has"
        raise InputError(f"{place} has {len(line)} cells, but {whose} {len(read)}{' columns' if names else ''}")
    try:
        return [reader(cell) for reader, cell in zip(read, line)]  # noqa: B905  (checked)
    except csv_values.CellError:
        pass
    number, expected = next(filter(None, (_refusal(*part) for part in enumerate(zip(read, line)))))  # noqa: B905
    column = names[number] if names else number + 1
    raise InputError(f"{place}, column {column}: {line[number][:100]!r} is not {expected}")


def _refusal(number: int, cell: Tuple[csv_values.Reader, str]) -> Optional[Tuple[int, str]]:
    reader, text = cell
    try:
        reader(text)
    except csv_values.CellError as error:
        return number, str(error)
    return None


def read_lines(stream: IO[bytes], source: Source, described: Sequence[Column], mode: str) -> Iterator[Chunk]:
    """Read JSON lines (jsonlines.org): each an object, or a list without column names.

    For a model that predicts on a matrix, objects become rows: in the order of the model's columns if they have the
    same names, else in the order of the first line.

    Raises:
        InputError: A line is not JSON, or its shape differs from the first one's; says where.
    """
    shape = _Shape(source, described, mode)
    first, rows = 1, []  # type: int, List[Any]
    for number, line in enumerate(stream, start=1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        if not text:
            continue
        place = f"{source.name}: row {first + len(rows)} (line {number})"
        try:
            value = inputs.parse_strict(text)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        rows.append(shape.row(value, place))
        if len(rows) == source.rows:
            yield Chunk(first, Batch(rows, shape.names))
            first, rows = first + len(rows), []
    if rows:
        yield Chunk(first, Batch(rows, shape.names))


class _Shape:
    """The shape of all rows, which is that of the first row."""

    def __init__(self, source: Source, described: Sequence[Column], mode: str) -> None:
        self.names: Optional[List[Any]] = None
        self._described = [column.text for column in described]
        self._mode = mode
        self._length = -1
        self._keys: List[str] = []
        self._name = source.name

    def row(self, value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return self._object(value, place)
        if not isinstance(value, list):
            raise InputError(f"{place} is neither an object nor a list")
        if self._keys:
            raise InputError(f"{place} is a list, unlike the first row")
        if self._length < 0:
            self._length = len(value)
        if len(value) != self._length:
            raise InputError(f"{place} has {len(value)} values, but the first row has {self._length}")
        return value

    def _object(self, value: Any, place: str) -> Any:
        if self._length >= 0:
            raise InputError(f"{place} is an object, unlike the first row")
        if not self._keys:
            self._keys = list(value)
            if set(self._keys) == set(self._described) and len(self._keys) == len(self._described):
                self._keys = self._described
        if self._mode == "objects":
            return value
        if value.keys() != set(self._keys):
            missing = [key for key in self._keys if key not in value]
            further = [key for key in value if key not in self._keys]
            what = f"has no {missing[0]!r}" if missing else f"has {further[0]!r}"
            raise InputError(f"{place} {what}, unlike the first row")
        self.names = self._keys
        return [value[key] for key in self._keys]


def read_document(document: Any, source: Source) -> Iterator[Chunk]:
    """Yield the rows of a JSON document, which is in memory as a whole, in chunks.

    Raises:
        InputError: It has another shape.
    """
    try:
        batch = inputs.read_batch(document)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from error
    for start in range(0, len(batch.data), source.rows):
        yield Chunk(start + 1, Batch(batch.data[start : start + source.rows], batch.columns))
