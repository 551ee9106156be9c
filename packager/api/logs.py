"""Following logs: one reader a log, however many follow it.

The log is on disk. A follower holds a place in it and at most one block, and the newest block is the same object for
all who have read up to it. Who falls behind reads from the disk again; who stops reading is dropped by the response.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.api.log_files import Block, log_size, read_log
from packager.errors import PackagerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

BLOCK_BYTES = 64 << 10  # what a follower holds at most
_WHOLE_BYTES = 256 << 10  # the same for who reads a log once
_MOST_FAILURES = 20  # one after the other: a database that is away for a moment ends no stream
_EMPTY = Block(start=0, data=b"")


class TooManyStreamsError(PackagerError):
    """As many logs are being read as may be at a time."""


@dataclass(frozen=True, kw_only=True)
class LogState:
    """What a log's reader sees of its packaging.

    Attributes:
        generation: Of the run; another one is another log.
        is_over: Whether nothing more comes.
        folder: Where the log is; None as long as there is none.
    """

    generation: int
    is_over: bool
    folder: Path | None


class LogBroadcaster:
    """All logs that are being read; belongs to one event loop."""

    def __init__(self, look: Callable[[str], LogState | None], *, most_streams: int = 500, pause: float = 0.5) -> None:
        """Read the logs of packagings that `look` tells of; None from it: there is no such packaging.

        Args:
            look: Called in a thread.
            most_streams: How many may be read at a time.
            pause: Seconds between two looks at a log that is followed.
        """
        self._look = look
        self._most_streams = most_streams
        self._pause = pause
        self._tails: dict[tuple[str, int], LogTailer] = {}
        self.streams = 0
        self.is_stopping = False

    def stop(self) -> None:
        """Let every follower have what there is by now, and its end."""
        self.is_stopping = True
        for tail in self._tails.values():
            tail.close()

    async def open(self, packaging_id: str, *, follow: bool) -> LogStream | None:
        """Open a log as it is, and with `follow` as it grows, till its packaging ends; None: no such packaging.

        Raises:
            TooManyStreamsError: No more may be read now.
        """
        if self.streams >= self._most_streams:
            raise TooManyStreamsError(
                f"{self.streams} logs are being read, and no more may be at a time", hint="try it again later"
            )
        stream = LogStream(self)
        try:
            seen = await asyncio.to_thread(self._look, packaging_id)
            if seen is None:
                await stream.aclose()
                return None
            follows = follow and not seen.is_over
            stream.blocks = self._follow(packaging_id, seen) if follows else _whole(seen.folder)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def _follow(self, packaging_id: str, seen: LogState) -> AsyncGenerator[bytes, None]:
        if self.is_stopping:
            async for block in _whole(seen.folder):
                yield block
            return
        key = packaging_id, seen.generation
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = LogTailer(packaging_id, seen, self._look, self._pause)
        tail.followers += 1
        try:
            async for block in tail.blocks():
                yield block
        finally:
            tail.followers -= 1
            if not tail.followers:
                tail.close()
                if self._tails.get(key) is tail:
                    del self._tails[key]


class LogStream:
    """One reader's way through a log; counts as one of those that may be, till it is closed."""

    def __init__(self, hub: LogBroadcaster) -> None:
        """Take a place in the hub."""
        self.blocks: AsyncGenerator[bytes, None] = _whole(None)
        self._hub: LogBroadcaster | None = hub
        hub.streams += 1

    @property
    def is_stopping(self) -> bool:
        """Whether the service ends, and cuts off who has not read it all in time."""
        return self._hub is not None and self._hub.is_stopping

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the log's blocks."""
        return self.blocks

    async def aclose(self) -> None:
        """Give the place back."""
        if self._hub is not None:
            self._hub.streams -= 1
            self._hub = None
            await self.blocks.aclose()


class LogTailer:
    """Reads one growing log for all of its followers."""

    def __init__(self, packaging_id: str, seen: LogState, look: Callable[[str], LogState | None], pause: float) -> None:
        """Start at the state that was seen; `look` tells the current one, and is asked every `pause` seconds."""
        self.followers = 0
        self._packaging_id = packaging_id
        self._generation = seen.generation
        self._folder = seen.folder
        self._look = look
        self._pause = pause
        self._size = 0
        self._is_over = False
        self._newest = _EMPTY
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Stop watching: nothing more comes."""
        self._task.cancel()
        self._is_over = True
        self._tell()

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Give the log from its beginning till its packaging ends."""
        place = 0
        while True:
            changed = self._changed
            if self._folder is not None and place < self._size:
                block = self._newest
                if block.start != place or not block.data:
                    block = await asyncio.to_thread(read_log, self._folder, place, most=BLOCK_BYTES)
                if block.start > place:
                    yield _gap(block.start - place)
                place = block.end if block.data else self._size  # what is gone entirely is not waited for
                if block.data:
                    yield block.data
            elif self._is_over:
                return
            else:
                await changed.wait()

    async def _watch(self) -> None:
        failures = 0
        try:
            while not self._is_over:
                try:
                    await self._refresh()
                    failures = 0
                except Exception as error:
                    failures += 1
                    if failures == 1:
                        log.warning(
                            "the log of %s can't be read just now: %s", self._packaging_id, type(error).__name__
                        )
                    if failures >= _MOST_FAILURES:
                        raise
                if not self._is_over:
                    await asyncio.sleep(self._pause)
        except Exception:
            log.exception("the log of %s can't be followed any more", self._packaging_id)
        finally:
            self._is_over = True
            self._tell()

    async def _refresh(self) -> None:
        seen = await asyncio.to_thread(self._look, self._packaging_id)
        is_over = seen is None or seen.is_over or seen.generation != self._generation
        if seen is not None and seen.generation == self._generation and seen.folder is not None:
            self._folder = seen.folder
        size = await asyncio.to_thread(log_size, self._folder) if self._folder else 0
        if size == self._size and not is_over:
            return
        if self._folder and 0 < size - self._size <= BLOCK_BYTES:
            newest = await asyncio.to_thread(read_log, self._folder, self._size, most=BLOCK_BYTES)
            self._newest = newest if newest.start == self._size else _EMPTY
        self._size, self._is_over = max(size, self._size), is_over
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _whole(folder: Path | None) -> AsyncGenerator[bytes, None]:
    """Give a log as it is now."""
    place, size = 0, await asyncio.to_thread(log_size, folder) if folder else 0
    while folder is not None and place < size:
        block = await asyncio.to_thread(read_log, folder, place, most=min(_WHOLE_BYTES, size - place))
        if block.start > place:
            yield _gap(block.start - place)
        if not block.data:
            return
        place = block.end
        yield block.data


def _gap(count: int) -> bytes:
    return f"... {count} bytes of this log are gone, as it became too long ...\n".encode()
