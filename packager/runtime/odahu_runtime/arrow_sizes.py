"""How much the buffers of Arrow's messages hold when they are unpacked, told before anything is unpacked.

Sources: format/Message.fbs of github.com/apache/arrow, and flatbuffers.dev/internals for how it lies in memory. The
offsets can be followed: Arrow has verified the metadata when it hands out a message.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .http import TOO_LARGE
from .inputs import InputError

if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional

_HEADER_TYPE, _HEADER = 1, 2  # fields of a Message
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # what a header may be
_DATA = 1  # field of a DictionaryBatch: a RecordBatch
_BUFFERS, _COMPRESSION = 2, 3  # fields of a RecordBatch
_BUFFER = struct.Struct("<qq")  # offset and length


def check(messages: Iterable[Any], limit: int) -> None:
    """Refuse messages whose buffers hold more than `limit` bytes in all; several may name the same bytes.

    Raises:
        InputError: They do.
        ValueError, struct.error: A buffer has no length, or lies outside of its message.
    """
    total = 0
    for message in messages:
        for size in _sizes(message.metadata.to_pybytes(), message.body):
            total += size
            if total > limit:
                raise InputError(TOO_LARGE.format(limit), 413)


def _sizes(data: bytes, body: Any) -> Iterator[int]:
    root = _int(data, 0)
    kind, header = _field(data, root, _HEADER_TYPE), _field(data, root, _HEADER)
    if kind is None or header is None or data[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return
    batch: Optional[int] = header + _int(data, header)
    if data[kind] == _DICTIONARY_BATCH:
        batch = _table(data, batch, _DATA)
    buffers = _table(data, batch, _BUFFERS)
    if batch is None or buffers is None:
        return
    packed = _field(data, batch, _COMPRESSION) is not None
    for number in range(_int(data, buffers)):
        offset, length = _BUFFER.unpack_from(data, buffers + 4 + number * _BUFFER.size)
        if length < 0:
            raise ValueError("a buffer of negative length")
        unpacked = -1
        if packed and length:
            (unpacked,) = struct.unpack("<q", bytes(body[offset : offset + 8]))
        yield length if unpacked < 0 else unpacked  # -1: this one isn't packed


def _int(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<i", data, place)[0])


def _table(data: bytes, table: Optional[int], number: int) -> Optional[int]:
    """Where what a field of a table refers to lies."""
    field = None if table is None else _field(data, table, number)
    return None if field is None else field + _int(data, field)


def _field(data: bytes, table: int, number: int) -> Optional[int]:
    """Where a field of a table lies; None where it has none."""
    slots = table - _int(data, table)
    size, slot = struct.unpack_from("<H", data, slots)[0], 4 + 2 * number
    offset = struct.unpack_from("<H", data, slots + slot)[0] if slot < size else 0
    return table + offset if offset else None
