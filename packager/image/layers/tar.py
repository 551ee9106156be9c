"""The tar stream of entries; its bytes depend only on the entries and one time.

Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block": a ustar header, preceded by a pax record
for values that it can't represent (names that are long or not ASCII, files of 8 GiB and more). Owners are numeric. The
headers are not written by `tarfile`, whose bytes may change with the version of Python, and which takes several times
as long (bench/layers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.sources.file_list import Kind

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from packager.image.layers.entries import LayerEntry

CHUNK = 1 << 20  # bytes; the size of every chunk but the last

_RECORD = 512
_END = bytes(2 * _RECORD)
_NAME, _PREFIX, _LINK = 100, 155, 100  # bytes; the sizes of ustar's fields
_TYPES = {Kind.FILE: b"0", Kind.LINK: b"2", Kind.FOLDER: b"5"}
_PAX = b"x"


def tar_chunks(entries: Iterable[LayerEntry], timestamp: int) -> Generator[bytes, None, None]:
    """Yield the tar of the entries in their order, in chunks of exactly `CHUNK` bytes (the last may be shorter).

    `timestamp` is the time of every entry in seconds since 1970.

    Raises:
        BuildError, ArtifactError: An entry can't be read.
    """
    parts: list[bytes] = []
    held = 0
    for piece in _pieces(entries, timestamp):
        parts.append(piece)
        held += len(piece)
        if held >= CHUNK:
            data = memoryview(b"".join(parts))
            for start in range(0, held - CHUNK + 1, CHUNK):
                yield bytes(data[start : start + CHUNK])
            rest = held % CHUNK
            parts, held = [bytes(data[len(data) - rest :])], rest
    if held:
        yield b"".join(parts)


def tar_size(entries: Iterable[LayerEntry]) -> int:
    """Return the size of the entries' tar in bytes, without reading any file."""
    return sum(len(header(entry, 0)) + entry.size + _padding(entry.size) for entry in entries) + len(_END)


def header(entry: LayerEntry, timestamp: int) -> bytes:
    """Return an entry's header: one record, or at least three with a pax header."""
    name = _encoded(entry.path + "/" if entry.kind is Kind.FOLDER else entry.path)
    link = _encoded(entry.target)
    beyond = {}
    prefix, short = _split(name)
    if short is None or not name.isascii():
        beyond[b"path"] = name
        prefix, short = b"", name[:_NAME]
    if len(link) > _LINK or not link.isascii():
        beyond[b"linkpath"] = link
        link = link[:_LINK]

    def number(key: bytes, value: int, digits: int) -> int:
        if value < 8**digits:
            return value
        beyond[key] = b"%d" % value
        return 0

    numbers = (
        number(b"uid", entry.uid, 7),
        number(b"gid", entry.gid, 7),
        number(b"size", entry.size, 11),
        number(b"mtime", timestamp, 11),
    )
    record = _record(short, entry.mode, numbers, _TYPES[entry.kind], link, prefix)
    return _pax(beyond) + record if beyond else record


def _pieces(entries: Iterable[LayerEntry], timestamp: int) -> Iterator[bytes]:
    for entry in entries:
        yield header(entry, timestamp)
        if entry.size:
            yield from entry.read()
            yield bytes(_padding(entry.size))
    yield _END


def _padding(size: int) -> int:
    return -size % _RECORD


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Split a long name at the last `/` where both parts fit; the name is None if impossible."""
    if len(name) <= _NAME:
        return b"", name
    at = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if at <= 0 or len(name) - at - 1 > _NAME:
        return b"", None
    return name[:at], name[at + 1 :]


def _record(  # noqa: PLR0913, PLR0917  (the fields of a header, in their order)
    name: bytes, mode: int, numbers: tuple[int, int, int, int], kind: bytes, link: bytes, prefix: bytes
) -> bytes:
    """Return one header record; `numbers` are uid, gid, size and time."""
    uid, gid, size, time = numbers
    before = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(_NAME, b"\0"), mode, uid, gid, size, time)
    after = b"%s%sustar\00000%s0000000\x000000000\0%s" % (
        kind, link.ljust(_LINK, b"\0"), bytes(64), prefix.ljust(_PREFIX + 12, b"\0"),
    )  # fmt: skip
    # The checksum is computed with its own field as eight spaces.
    return b"%s%06o\0 %s" % (before, sum(before) + sum(after) + 8 * 0x20, after)


def _pax(values: dict[bytes, bytes]) -> bytes:
    data = b"".join(_pax_line(key, value) for key, value in sorted(values.items()))
    # The name is for tools without pax support; GNU tar and Python write the same.
    record = _record(b"././@PaxHeader", 0, (0, 0, len(data), 0), _PAX, b"", b"")
    return record + data + bytes(_padding(len(data)))


def _pax_line(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE` and a newline; the length includes its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
