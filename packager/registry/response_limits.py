"""Bounds on answers that are to be short: how many bytes of one are read, and how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ERROR_BYTES = 1 << 16
MOST_TOKEN_BYTES = 1 << 20
_SECONDS = 60.0  # for the whole body; httpx's own limit is for each read, so that a drop now and then keeps us


class _Bounded(httpx.SyncByteStream):
    """The first bytes of a stream."""

    def __init__(self, stream: httpx.SyncByteStream, most: int) -> None:
        self._stream = stream
        self._left = most

    def __iter__(self) -> Iterator[bytes]:
        end = time.monotonic() + _SECONDS
        for chunk in self._stream:
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the answer had no end after {_SECONDS:.0f} s")
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                return

    def close(self) -> None:
        self._stream.close()


def bound(response: httpx.Response, most: int) -> None:
    """Let no more than `most` bytes of an answer be read; what follows them is left out.

    The one who reads gets an httpx.ReadTimeout when there is no end after 60 seconds.
    """
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream, most)


def bound_failure(response: httpx.Response) -> None:
    """Do it for an answer that is no success: errors, challenges, redirects. An httpx event hook."""
    if not response.is_success:
        bound(response, MOST_ERROR_BYTES)
