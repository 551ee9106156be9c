"""Work that overlaps in threads with bounded memory, and whose results don't depend on how.

Reading files, inflating, hashing and compressing release the interpreter's lock, so threads are enough.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Self

_MOST_THREADS = 8
_DEPTH = 4  # chunks that wait between two stages

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def thread_count() -> int:
    """Return how many threads are worth it for what only computes: the processors we may use, at most eight."""
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


def read_ahead(chunks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Give the chunks as they come, while a thread makes the next few."""
    with closing(chunks), ThreadPoolExecutor(1) as pool:
        pending: deque[Future[bytes | None]] = deque(pool.submit(next, chunks, None) for _ in range(_DEPTH))
        try:
            while (chunk := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, chunks, None))
                yield chunk
        finally:
            pool.shutdown(cancel_futures=True)


def ordered_map(function: Callable[[_In], _Out], items: Iterable[_In], *, threads: int) -> Iterator[_Out]:
    """Give the function's results in the order of the items, with as many threads; a few items are held at a time."""
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
    """A SHA-256 that is computed in a thread of its own, for a `with` block."""

    def __init__(self) -> None:
        """Begin with no bytes."""
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread; what still waits is not hashed."""
        self._pool.shutdown(cancel_futures=True)

    def update(self, data: bytes) -> None:
        """Add bytes; waits when many are waiting."""
        self._pending.append(self._pool.submit(self._hash.update, data))
        if len(self._pending) > _DEPTH:
            self._pending.popleft().result()

    def digest(self) -> str:
        """Return `sha256:…` of all bytes so far."""
        while self._pending:
            self._pending.popleft().result()
        return f"sha256:{self._hash.hexdigest()}"
