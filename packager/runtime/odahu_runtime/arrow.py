"""Rows in Arrow's IPC format, by the pyarrow of the model's environment: the runtime has none.

Columns are flat, or lists and structs of flat values. These unpack to no more than the buffers hold, whose sizes are
added up before; values that take no space in a buffer (nulls) are counted.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import struct
from typing import TYPE_CHECKING

from .http import TOO_LARGE
from .inputs import LARGEST_INTEGER, LEAST_INTEGER, Batch, InputError

if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, List, Optional, Sequence

    from .request_validation import RequestValidator

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
_MAGIC = b"ARROW1\0\0"
_OLDEST = (14, 0, 1)  # older ones unpickle data that a client sends: CVE-2023-47248
_FORMATS = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float": "f",
    "double": "d",
}
INDEX = re.compile(r"__index_level_\d+__")  # pandas' name for the index of a DataFrame
_HEADER_TYPE, _HEADER = 1, 2  # fields of a Message
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # what a header may be
_DICTIONARY_DATA = 1  # field of a DictionaryBatch: a RecordBatch
_BUFFERS, _COMPRESSION = 2, 3  # fields of a RecordBatch
_BUFFER = struct.Struct("<qq")  # offset and length
_LONGEST = 300  # characters of text from Arrow or a client in a message


def library(status: int) -> Any:
    """Import the model's pyarrow.

    Raises:
        InputError: It is missing or unsafe; with `status` for HTTP.
    """
    try:
        pa = importlib.import_module("pyarrow")
        version = tuple(map(int, str(pa.__version__).split(".")[:3]))
    except Exception as error:
        why = f"has no pyarrow that can be imported ({type(error).__name__}: {str(error)[:_LONGEST]})"
        raise InputError(_needed(why), status) from error
    if version < _OLDEST:
        raise InputError(_needed(f"has {pa.__version__}, which runs code that a client sends"), status)
    return pa


def read(body: bytes, validator: RequestValidator) -> Batch:
    """Read the rows of a stream or a file, and the names of its columns.

    Raises:
        InputError: It is neither, exceeds a limit, or has columns of an unsupported type.
    """
    pa = library(415)
    most = validator.limits.max_body
    if body.startswith(_MAGIC):  # noqa: FURB188  (3.8 has no `removeprefix`)
        body = body[len(_MAGIC) :]  # a file is a stream with a table of contents after it
    try:
        check_sizes(pa.ipc.MessageReader.open_stream(body), most)
        stream = pa.ipc.open_stream(body)
        places = [place for place, name in enumerate(stream.schema.names) if not INDEX.fullmatch(name)]
        _check_types(pa, stream.schema, places)
        names = [stream.schema.names[place] for place in places]
        columns: List[List[Any]] = [[] for _ in places]
        rows = cells = 0
        for batch in stream:
            batch.validate()  # the quick part, so that the columns can be accessed
            rows += batch.num_rows
            validator.check_row_count(rows)
            cells += sum(map(_cells, batch.columns))
            if cells > most:  # nulls take no space in a body, and a dictionary counts for every batch
                raise InputError(TOO_LARGE.format(most), 413)
            batch.validate(full=True)
            for values, place in zip(columns, places):  # noqa: B905  (of one length)
                values.extend(plain_values(pa, batch.column(place)))
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, struct.error) as error:
        raise InputError(f"The body is not an Arrow stream or file: {str(error)[:_LONGEST]}") from error
    if not rows or not columns:
        raise InputError("The Arrow data has no rows")
    return Batch(list(map(list, zip(*columns))), names)  # noqa: B905  (of one length)


def write(names: Sequence[str], columns: Sequence[List[Any]], kind: str) -> bytes:
    """Write columns of JSON values as a stream or a file.

    Raises:
        InputError: pyarrow is missing.
    """
    pa = library(406)
    table = pa.Table.from_arrays([_array(pa, column) for column in columns], names=list(names))
    sink = io.BytesIO()
    with (pa.ipc.new_file if kind == FILE else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _needed(why: str) -> str:
    return (
        f"Arrow needs pyarrow {'.'.join(map(str, _OLDEST))} or later in the model's environment, which {why}; "
        "add it to the model's conda file, or use JSON"
    )


def _array(pa: Any, values: List[Any]) -> Any:
    """Make an array; of JSON text where the values are of several types, lists or objects."""
    try:
        made = pa.array(values)
        if not pa.types.is_nested(made.type):
            return made
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, pa.string())


def _check_types(pa: Any, schema: Any, places: Sequence[int]) -> None:
    for number in places:
        field = schema.field(number)
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not is_plain(pa, kind):
            raise InputError(
                f"column {number} ({json.dumps(field.name[:_LONGEST])}) has the type {str(field.type)[:_LONGEST]}; "
                "numbers, truth values, text, dates, times, and dictionaries, lists and structs of them can be read",
                422,
            )


def is_plain(pa: Any, kind: Any) -> bool:
    """Whether `plain_values` supports a type other than a dictionary.

    A dictionary within a list could unpack to more than the limit of a body, and so could views.
    """
    types = pa.types
    known = (
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null),
        *(types.is_string, types.is_large_string, types.is_date, types.is_time, types.is_timestamp, types.is_duration),
    )
    if _is_list(pa, kind):
        return is_plain(pa, kind.value_type)
    if types.is_struct(kind):
        return all(is_plain(pa, kind.field(place).type) for place in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in known)


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _cells(column: Any) -> int:
    """Count the values of a column, including those within lists, structs and its dictionary."""
    count = len(column) + len(getattr(column, "dictionary", ()))
    if hasattr(column, "values"):  # a list's
        count += _cells(column.values)
    elif hasattr(column, "field"):  # a struct's
        count += sum(_cells(column.field(place)) for place in range(column.type.num_fields))
    return count


def plain_values(pa: Any, column: Any) -> List[Any]:  # noqa: PLR0911  (a kind of column, a return)
    """Return the values of a column as JSON has them.

    Raises:
        InputError: A whole number is beyond 64 bits.
    """
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):  # a repeated text is one object in memory
        known = plain_values(pa, column.dictionary)
        return [None if place is None else known[place] for place in plain_values(pa, column.indices)]
    if _is_list(pa, kind):
        return _lists(pa, column)
    if types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        fields = [plain_values(pa, column.field(place)) for place in range(kind.num_fields)]
        rows = zip(*fields) if fields else [()] * len(column)  # noqa: B905  (of one length)
        return [dict(zip(names, row)) if there else None for there, row in zip(_validity(column), rows)]  # noqa: B905
    form = _FORMATS.get(str(kind))
    if form is not None and len(column) and not column.null_count:
        # Many times faster than value by value, without numpy.
        size = kind.bit_width // 8
        start = column.offset * size
        cells: Any = memoryview(column.buffers()[1]).cast("B")[start : start + len(column) * size]
        return list(cells.cast(form))
    if types.is_decimal(kind) and kind.scale <= 0:
        return [value if value is None else _whole(int(value)) for value in column.to_pylist()]
    if types.is_decimal(kind) or types.is_float16(kind):
        return list(column.cast(pa.float64()).to_pylist())
    if types.is_duration(kind):
        column = column.cast(pa.duration("us"), safe=kind.unit != "ns")
        return [None if value is None else value.total_seconds() for value in column.to_pylist()]
    if types.is_temporal(kind):
        return _times(pa, column)
    return list(column.to_pylist())


def _lists(pa: Any, column: Any) -> List[Any]:
    values = plain_values(pa, column.values)
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        bounds = [(column.offset + row) * size for row in range(len(column) + 1)]
    else:
        bounds = column.offsets.to_pylist()
    return [
        values[start:end] if there else None
        for there, start, end in zip(_validity(column), bounds, bounds[1:])  # noqa: B905
    ]


def _validity(column: Any) -> List[bool]:
    return list(column.is_valid().to_pylist()) if column.null_count else [True] * len(column)


def _whole(value: int) -> int:
    if not LEAST_INTEGER <= value <= LARGEST_INTEGER:
        raise InputError(f"The whole number {value} is beyond 64 bits: {LEAST_INTEGER} to {LARGEST_INTEGER}", 422)
    return value


def _times(pa: Any, column: Any) -> List[Any]:
    """Return dates and times in ISO 8601 with microseconds; timestamps with a time zone in UTC."""
    kind, zone = column.type, ""
    if pa.types.is_timestamp(kind):
        zone = "+00:00" if kind.tz else ""
        # Without the zone's name no time zone database is needed.
        column = column.cast(pa.timestamp("us", kind.tz), safe=kind.unit != "ns").cast(pa.timestamp("us"))
    return [None if value is None else value.isoformat() + zone for value in column.to_pylist()]


def check_sizes(messages: Iterable[Any], limit: int) -> None:
    """Reject messages whose buffers unpack to more than `limit` bytes in total; buffers may share bytes.

    Reads the flatbuffers metadata, which Arrow has verified: format/Message.fbs of github.com/apache/arrow, and
    flatbuffers.dev/internals for the layout in memory.

    Raises:
        InputError: They do.
        ValueError, struct.error: A buffer has no length, or lies outside its message.
    """
    total = 0
    for message in messages:
        for size in _sizes(message.metadata.to_pybytes(), message.body):
            total += size
            if total > limit:
                raise InputError(TOO_LARGE.format(limit), 413)


def _sizes(data: bytes, body: Any) -> Iterator[int]:
    root = _read_int(data, 0)
    kind, header = _field(data, root, _HEADER_TYPE), _field(data, root, _HEADER)
    if kind is None or header is None or data[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return
    batch: Optional[int] = header + _read_int(data, header)
    if data[kind] == _DICTIONARY_BATCH:
        batch = _table_at(data, batch, _DICTIONARY_DATA)
    buffers = _table_at(data, batch, _BUFFERS)
    if batch is None or buffers is None:
        return
    packed = _field(data, batch, _COMPRESSION) is not None
    for number in range(_read_int(data, buffers)):
        offset, length = _BUFFER.unpack_from(data, buffers + 4 + number * _BUFFER.size)
        if length < 0:
            raise ValueError("a buffer of negative length")
        unpacked = -1
        if packed and length:
            (unpacked,) = struct.unpack("<q", bytes(body[offset : offset + 8]))
        yield length if unpacked < 0 else unpacked  # -1: this buffer is not compressed


def _read_int(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<i", data, place)[0])


def _table_at(data: bytes, table: Optional[int], number: int) -> Optional[int]:
    """Return the offset of the object that a field of a table refers to."""
    field = None if table is None else _field(data, table, number)
    return None if field is None else field + _read_int(data, field)


def _field(data: bytes, table: int, number: int) -> Optional[int]:
    """Return the offset of a field of a table, or None where it is absent."""
    slots = table - _read_int(data, table)
    size, slot = struct.unpack_from("<H", data, slots)[0], 4 + 2 * number
    offset = struct.unpack_from("<H", data, slots + slot)[0] if slot < size else 0
    return table + offset if offset else None
