"""How a layer is compressed: gzip, Zstandard or not at all; always to the same bytes.

The stream comes in blocks of 1 MiB (`packager.image.layers.tar.CHUNK`), and each is compressed by itself. So the result
depends neither on the number of threads nor on their timing. gzip is RFC 1952, one member; Zstandard is RFC 8878, one
frame a block.

The deflate is zlib-ng's, as its output was the same on every processor that it was tried on; that of ISA-L is not.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TYPE_CHECKING

import zstandard
from zlib_ng import zlib_ng

from packager.image.layers.overlap import ordered_map
from packager.sources.file_list import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from packager.image.layers.entries import LayerEntry

GZIP_LEVEL = 2
ZSTD_LEVEL = 3
WORTH_IT = 0.9  # of the bytes; what shrinks less is sent as it is

_TINY = 64 << 10  # bytes; below it the padding of a tar alone makes gzip worth it
_MOST_SAMPLES = 32
_SAMPLE = 128 << 10
_SAMPLE_FROM = 4 << 20  # bytes; the headers of weights files, which compress well, are shorter

_PIECE = 8 << 10

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no operating system
_LAST_BLOCK = b"\x03\0"  # an empty deflate block that is marked as the last
_GZIP_TRAILER = struct.Struct("<LL")


class Compression(Enum):
    """How a layer is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


def compress(chunks: Iterable[bytes], compression: Compression, *, threads: int) -> Iterator[bytes]:
    """Compress the chunks of a tar as `tar_chunks` gives them."""
    if compression is Compression.NONE:
        return iter(chunks)
    if compression is Compression.GZIP:
        return _gzip(chunks, threads)
    return ordered_map(_zstd_frame, chunks, threads=threads)


def choose_compression(entries: Sequence[LayerEntry]) -> Compression:
    """Choose gzip, or none for what doesn't compress, by samples of the 32 largest files.

    Of each a piece of 128 KiB is tried, from the middle or after 4 MiB, and counts as much as the file is large. Less
    than 64 KiB are always compressed. The choice depends on nothing but the files.

    Raises:
        BuildError, ArtifactError: As reading an entry's bytes does.
    """
    files = [entry for entry in entries if entry.kind is Kind.FILE and entry.size]
    if sum(entry.size for entry in files) < _TINY:
        return Compression.GZIP
    total, shrunk = 0, 0.0
    for entry in sorted(files, key=lambda entry: (-entry.size, entry.path))[:_MOST_SAMPLES]:
        sample = _sample(entry)
        total += entry.size
        shrunk += entry.size * min(1.0, len(_deflated(sample)) / len(sample))
    return Compression.NONE if shrunk > WORTH_IT * total else Compression.GZIP


def _sample(entry: LayerEntry) -> bytes:
    start = min(max(0, entry.size - _SAMPLE) // 2, _SAMPLE_FROM)
    position, parts, held = 0, [], 0
    for chunk in entry.read():
        part = chunk[max(0, start - position) :][: _SAMPLE - held]
        position += len(chunk)
        if part:
            parts.append(part)
            held += len(part)
        if held >= _SAMPLE:
            break
    return b"".join(parts)


def _gzip(chunks: Iterable[bytes], threads: int) -> Iterator[bytes]:
    crc, size = 0, 0

    def counted() -> Iterator[bytes]:
        nonlocal crc, size
        for chunk in chunks:
            crc = zlib_ng.crc32(chunk, crc)
            size += len(chunk)
            yield chunk

    yield _GZIP_HEADER
    yield from ordered_map(_deflated, counted(), threads=threads)
    yield _LAST_BLOCK + _GZIP_TRAILER.pack(crc, size & 0xFFFFFFFF)


def _deflated(block: bytes) -> bytes:
    """Compress a block by itself; it ends at a byte, so that the next can follow."""
    return _deflated_at(0 if _is_noise(block) else GZIP_LEVEL, block)


def _is_noise(block: bytes) -> bool:
    """Try three small pieces: finding out that a whole block doesn't compress takes longer than compressing text."""
    quarter = len(block) // 4
    if quarter < 2 * _PIECE:
        return False
    pieces = (block[at : at + _PIECE] for at in (quarter, 2 * quarter, 3 * quarter))
    return all(len(_deflated_at(GZIP_LEVEL, piece)) >= _PIECE for piece in pieces)


def _deflated_at(level: int, block: bytes) -> bytes:
    deflater = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS)
    return deflater.compress(block) + deflater.flush(zlib_ng.Z_SYNC_FLUSH)


def _zstd_frame(block: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(block)
