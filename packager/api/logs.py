"""Log streaming: one reader per log, for any number of clients.

The log is on disk. A client's stream holds an offset and at most one block; the newest block is shared by all streams
that have read up to it. Slow clients read from disk; the response disconnects clients that stop reading.
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

BLOCK_BYTES = 64 << 10  # maximum memory of a stream that follows a log
_WHOLE_BYTES = 256 << 10  # maximum memory of a stream that does not
_MAX_FAILURES = 20  # in a row, so that streams survive a short outage of the database
_EMPTY = Block(start=0, data=b"")


class TooManyStreamsError(PackagerError):
    """The maximum number of log streams is open."""


@dataclass(frozen=True, kw_only=True)
class LogState:
    """The state of a log.

    Attributes:
        generation: Of the run; another generation has another log.
        is_complete: Whether the run has ended.
        folder: The folder of the log; None if there is none yet.
    """

    generation: int
    is_complete: bool
    folder: Path | None


class LogBroadcaster:
    """All open log streams; belongs to one event loop."""

    def __init__(self, find: Callable[[str], LogState | None], *, max_streams: int = 500, pause: float = 0.5) -> None:
        """Stream the logs of packagings.

        Args:
            find: Returns the state of a packaging's log, or None for an unknown packaging; called in a thread.
            max_streams: Maximum number of open streams.
            pause: Seconds between two reads of a log that is followed.
        """
        self._find = find
        self._max_streams = max_streams
        self._pause = pause
        self._tailers: dict[tuple[str, int], LogTailer] = {}
        self.streams = 0
        self.is_stopping = False

    def stop(self) -> None:
        """Send the rest of each log to its followers and end their streams."""
        self.is_stopping = True
        for tailer in self._tailers.values():
            tailer.close()

    async def open(self, packaging_id: str, *, follow: bool) -> LogStream | None:
        """Open a log, with `follow` until its packaging ends; None: the packaging does not exist.

        Raises:
            TooManyStreamsError: The maximum number of streams is open.
        """
        if self.streams >= self._max_streams:
            raise TooManyStreamsError(f"{self.streams} log streams are open, the maximum", hint="try again later")
        stream = LogStream(self)
        try:
            state = await asyncio.to_thread(self._find, packaging_id)
            if state is None:
                await stream.aclose()
                return None
            follows = follow and not state.is_complete
            stream.blocks = self._follow(packaging_id, state) if follows else _whole(state.folder)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def _follow(self, packaging_id: str, state: LogState) -> AsyncGenerator[bytes, None]:
        if self.is_stopping:
            async for block in _whole(state.folder):
                yield block
            return
        key = packaging_id, state.generation
        tailer = self._tailers.get(key)
        if tailer is None:
            tailer = self._tailers[key] = LogTailer(packaging_id, state, self._find, self._pause)
        tailer.followers += 1
        try:
            async for block in tailer.blocks():
                yield block
        finally:
            tailer.followers -= 1
            if not tailer.followers:
                tailer.close()
                if self._tailers.get(key) is tailer:
                    del self._tailers[key]


class LogStream:
    """The stream of one client; it counts as open until it is closed."""

    def __init__(self, broadcaster: LogBroadcaster) -> None:
        """Open a stream."""
        self.blocks: AsyncGenerator[bytes, None] = _whole(None)
        self._broadcaster: LogBroadcaster | None = broadcaster
        broadcaster.streams += 1

    @property
    def is_stopping(self) -> bool:
        """Whether the service stops, so that slow clients are disconnected."""
        return self._broadcaster is not None and self._broadcaster.is_stopping

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the blocks of the log."""
        return self.blocks

    async def aclose(self) -> None:
        """Close the stream."""
        if self._broadcaster is not None:
            self._broadcaster.streams -= 1
            self._broadcaster = None
            await self.blocks.aclose()


class LogTailer:
    """Reads one growing log for all of its followers."""

    def __init__(
        self, packaging_id: str, state: LogState, find: Callable[[str], LogState | None], pause: float
    ) -> None:
        """Start with a state; `find` returns the current one and is called every `pause` seconds."""
        self.followers = 0
        self._packaging_id = packaging_id
        self._generation = state.generation
        self._folder = state.folder
        self._find = find
        self._pause = pause
        self._size = 0
        self._is_complete = False
        self._newest = _EMPTY
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Stop reading and end the streams."""
        self._task.cancel()
        self._is_complete = True
        self._notify()

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Return the log from its beginning until its packaging ends."""
        offset = 0
        while True:
            changed = self._changed
            if self._folder is not None and offset < self._size:
                block = self._newest
                if block.start != offset or not block.data:
                    block = await asyncio.to_thread(read_log, self._folder, offset, limit=BLOCK_BYTES)
                if block.start > offset:
                    yield _gap(block.start - offset)
                offset = block.end if block.data else self._size  # else the rest was removed
                if block.data:
                    yield block.data
            elif self._is_complete:
                return
            else:
                await changed.wait()

    async def _watch(self) -> None:
        failures = 0
        try:
            while not self._is_complete:
                try:
                    await self._refresh()
                    failures = 0
                except Exception as error:
                    failures += 1
                    if failures == 1:
                        log.warning(
                            "cannot read the log of %s at the moment: %s", self._packaging_id, type(error).__name__
                        )
                    if failures >= _MAX_FAILURES:
                        raise
                if not self._is_complete:
                    await asyncio.sleep(self._pause)
        except Exception:
            log.exception("cannot follow the log of %s any more", self._packaging_id)
        finally:
            self._is_complete = True
            self._notify()

    async def _refresh(self) -> None:
        state = await asyncio.to_thread(self._find, self._packaging_id)
        is_complete = state is None or state.is_complete or state.generation != self._generation
        if state is not None and state.generation == self._generation and state.folder is not None:
            self._folder = state.folder
        size = await asyncio.to_thread(log_size, self._folder) if self._folder else 0
        if size == self._size and not is_complete:
            return
        if self._folder and 0 < size - self._size <= BLOCK_BYTES:
            newest = await asyncio.to_thread(read_log, self._folder, self._size, limit=BLOCK_BYTES)
            self._newest = newest if newest.start == self._size else _EMPTY
        self._size, self._is_complete = max(size, self._size), is_complete
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _whole(folder: Path | None) -> AsyncGenerator[bytes, None]:
    """Return the current content of a log."""
    offset, size = 0, await asyncio.to_thread(log_size, folder) if folder else 0
    while folder is not None and offset < size:
        block = await asyncio.to_thread(read_log, folder, offset, limit=min(_WHOLE_BYTES, size - offset))
        if block.start > offset:
            yield _gap(block.start - offset)
        if not block.data:
            return
        offset = block.end
        yield block.data


def _gap(count: int) -> bytes:
    return f"... {count} bytes of this log were removed to limit its size ...\n".encode()
