"""Layer compression: gzip, Zstandard or none, in threads and with the same bytes every time.

The stream comes in blocks of 1 MiB (`packager.image.layers.tar.CHUNK`), and each block is compressed independently, so
the result depends neither on the number of threads nor on their timing. gzip is RFC 1952, one member; Zstandard is
RFC 8878, one frame per block. Deflate is zlib-ng's: its output was the same on every processor it was tried on, unlike
ISA-L's.

Reading files, inflating, hashing and compressing release the interpreter's lock, so threads are enough.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import zstandard
from zlib_ng import zlib_ng

from packager.sources.file_list import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Self

    from packager.image.layers.entries import LayerEntry

_MAX_THREADS = 8
_DEPTH = 4  # chunks that wait between two stages

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def thread_count() -> int:
    """Return the number of threads for computations: the available processors, at most eight."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def read_ahead(chunks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Yield the chunks, while a thread produces the next few."""
    with closing(chunks), ThreadPoolExecutor(1) as pool:
        pending: deque[Future[bytes | None]] = deque(pool.submit(next, chunks, None) for _ in range(_DEPTH))
        try:
            while (chunk := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, chunks, None))
                yield chunk
        finally:
            pool.shutdown(cancel_futures=True)


def ordered_map(function: Callable[[_In], _Out], items: Iterable[_In], *, threads: int) -> Iterator[_Out]:
    """Yield the function's results in the order of the items, computed in threads, with few items in memory."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[_Out]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class Sha256:
    """A SHA-256 computed in its own thread, for a `with` block."""

    def __init__(self) -> None:
        """Start without bytes."""
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Return the hash."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread; pending bytes are not hashed."""
        self._pool.shutdown(cancel_futures=True)

    def update(self, data: bytes) -> None:
        """Add bytes; blocks while many are pending."""
        self._pending.append(self._pool.submit(self._hash.update, data))
        if len(self._pending) > _DEPTH:
            self._pending.popleft().result()

    def digest(self) -> str:
        """Return `sha256:…` of all bytes so far."""
        while self._pending:
            self._pending.popleft().result()
        return f"sha256:{self._hash.hexdigest()}"


GZIP_LEVEL = 2
ZSTD_LEVEL = 3
WORTH_IT = 0.9  # the highest worthwhile ratio of compressed to original size

_TINY = 64 << 10  # bytes; smaller layers are always compressed, at least for the padding of the tar
_MAX_SAMPLES = 32
_SAMPLE = 128 << 10
_SAMPLE_FROM = 4 << 20  # bytes; beyond the headers of weights files, which compress well

_PIECE = 8 << 10

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no operating system
_LAST_BLOCK = b"\x03\0"  # an empty deflate block that is marked as the last
_GZIP_TRAILER = struct.Struct("<LL")


class Compression(Enum):
    """The compression of a layer."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


def compress(chunks: Iterable[bytes], compression: Compression, *, threads: int) -> Iterator[bytes]:
    """Compress the chunks of `tar_chunks`."""
    if compression is Compression.NONE:
        return iter(chunks)
    if compression is Compression.GZIP:
        return _gzip(chunks, threads)
    return ordered_map(_zstd_frame, chunks, threads=threads)


def choose_compression(entries: Sequence[LayerEntry]) -> Compression:
    """Choose gzip, or none for incompressible content, by samples of the 32 largest files.

    A sample has 128 KiB, from the middle of the file or after 4 MiB, and is weighted by the file's size. Layers of less
    than 64 KiB are always compressed. The choice depends only on the files.

    Raises:
        BuildError, ArtifactError: An entry can't be read.
    """
    files = [entry for entry in entries if entry.kind is Kind.FILE and entry.size]
    if sum(entry.size for entry in files) < _TINY:
        return Compression.GZIP
    total, shrunk = 0, 0.0
    for entry in sorted(files, key=lambda entry: (-entry.size, entry.path))[:_MAX_SAMPLES]:
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
    """Compress a block independently, aligned to a byte, so that the next block can follow."""
    return _deflated_at(0 if _is_noise(block) else GZIP_LEVEL, block)


def _is_noise(block: bytes) -> bool:
    """Return whether three small pieces don't compress, which is faster than trying the whole block."""
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
