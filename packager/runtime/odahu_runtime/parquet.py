"""Parquet files, by the pyarrow of the model's environment."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING

from . import arrow, outputs
from .batch_input import Chunk, Progress
from .batch_output import OutputError, Writer, as_lists, names_for
from .inputs import Batch, InputError

if TYPE_CHECKING:
    from typing import IO, Any, Callable, Iterator, List, Optional, Tuple

    from .batch_input import Source

_MISSING = (
    "Parquet files need pyarrow, and the model's environment has none: add `pyarrow` to the model's conda file (or its "
    "pip requirements) and package the model again, or take CSV or JSON lines ({})"
)


class MissingError(Exception):
    """The model's environment has no pyarrow."""


def library() -> Tuple[Any, Any]:
    """Import pyarrow and its Parquet module, which is possible only after the model was loaded.

    Raises:
        MissingError: They can't be imported.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except Exception as error:  # a broken installation raises anything
        raise MissingError(_MISSING.format(f"{type(error).__name__}: {error}")) from error


def read(stream: IO[bytes], source: Source) -> Tuple[Iterator[Chunk], Callable[[], Progress]]:
    """Read a Parquet file in batches; return the chunks, and a function for the progress.

    Raises:
        MissingError: pyarrow is missing.
        InputError: The file is not Parquet, or damaged.
    """
    pa, parquet = library()
    try:
        file = parquet.ParquetFile(stream)
        stored = [str(name) for name in file.schema_arrow.names]
        total = int(file.metadata.num_rows)
    except Exception as error:  # pyarrow has several classes of errors
        raise InputError(f"{source.name} can't be read as Parquet: {error}") from error
    names = [name for name in stored if not arrow.INDEX.fullmatch(name)]
    read = None if names == stored else names
    done = [0]

    def chunks() -> Iterator[Chunk]:
        batches = file.iter_batches(batch_size=source.rows, columns=read)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                columns = [_plain(pa, column) for column in batch.columns]
            except Exception as error:
                raise InputError(f"{source.name}: after row {done[0]}: {error}") from error
            rows = [list(row) for row in zip(*columns)]  # noqa: B905  (columns of a batch have one length)
            if rows:
                yield Chunk(done[0] + 1, Batch(rows, names))
                done[0] += len(rows)

    return chunks(), lambda: Progress(done[0], total)


def _plain(pa: Any, column: Any) -> List[Any]:
    """Return a column's values as JSON has them, so that a model gets the same from every format."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if arrow.is_plain(pa, kind):
        return arrow.plain_values(pa, column)
    values: List[Any] = outputs.plain(column.to_pylist())
    return values


class ParquetWriter(Writer):
    """Writes a Parquet file, one row group per chunk; the first chunk determines the types."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a stream.

        Raises:
            MissingError: pyarrow is missing.
        """
        self._arrow, self._parquet = library()
        self._stream = stream
        self._writer: Optional[Any] = None
        self._rows = 0

    def write(self, rows: List[Any], columns: List[Any]) -> None:
        """Write the rows of a chunk.

        Raises:
            OutputError: Their types differ from those of the first chunk, or can't be written.
        """
        lists = as_lists(rows)
        names = names_for(columns, lists)
        try:
            table = self._table(lists, names)
            if self._writer is None:
                self._writer = self._parquet.ParquetWriter(self._stream, table.schema)
            self._writer.write_table(table)
        except (self._arrow.ArrowException, TypeError, ValueError) as error:
            where = f"rows {self._rows + 1}-{self._rows + len(rows)} of the prediction"
            raise OutputError(
                f"{where} can't be written as Parquet: {error}. A column has one type, that of its values in the "
                "first chunk; try a larger --chunk-rows, CSV or JSON lines"
            ) from error
        self._rows += len(rows)

    def _table(self, rows: List[List[Any]], names: List[str]) -> Any:
        wrong = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
        if wrong is not None:
            raise ValueError(f"row {self._rows + wrong + 1} has {len(rows[wrong])} values, not {len(names)}")
        schema = None if self._writer is None else self._writer.schema
        values = [[row[number] for row in rows] for number in range(len(names))]
        types = [self._type(column) for column in values] if schema is None else schema.types
        arrays = [self._arrow.array(column, type=kind) for column, kind in zip(values, types)]  # noqa: B905
        return self._arrow.Table.from_arrays(arrays, names=names)

    def _type(self, column: List[Any]) -> Any:
        """Return the type of a column: number if the first chunk has only nulls; None lets pyarrow infer it."""
        if all(value is None for value in column):
            return self._arrow.float64()
        numbers = all(value is None or (type(value) in (int, float)) for value in column)
        return self._arrow.float64() if numbers and any(type(value) is float for value in column) else None

    def finish(self) -> None:
        """Write the file's footer."""
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        """Close the file now; at the end of the process pyarrow would fail to, and print a traceback."""
        with suppress(Exception):
            self.finish()
