from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from packager.api.log_files import LogWriter, log_size, read_log
from packager.api.logs import BLOCK_BYTES, LogBroadcaster, LogState, TooManyStreamsError
from packager.api.routes.logs import LogResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.types import Message


def whole(folder: Path) -> str:
    offset, text = 0, b""
    while (block := read_log(folder, offset, limit=7)).data:
        text, offset = text + block.data, block.end
    return text.decode()


# On disk


def test_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", most_bytes=1000) as writer:
        for number in range(50):
            writer.write_line(f"line {number} ä")
            assert log_size(tmp_path / "log") == len("".join(f"line {n} ä\n" for n in range(number + 1)).encode())
    with LogWriter(tmp_path / "log", most_bytes=1000) as writer:  # another process appends
        writer.write_line("the last")
    assert whole(tmp_path / "log") == "".join(f"line {n} ä\n" for n in range(50)) + "the last\n"


def test_beginning_of_a_long_log_is_removed(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", most_bytes=800) as writer:
        for number in range(1000):
            writer.write_line(f"line {number:03}")
    assert log_size(tmp_path / "log") == 9000
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) < 1000
    first = read_log(tmp_path / "log", 0, limit=9)
    assert 8000 <= first.start < 8400
    assert first.data == f"line {first.start // 9:03}\n".encode()
    kept = whole(tmp_path / "log")
    assert kept.splitlines()[-1] == "line 999"
    assert len(kept) == 9000 - first.start


def test_missing_log_is_empty(tmp_path: Path) -> None:
    assert log_size(tmp_path / "log") == 0
    assert read_log(tmp_path / "log", 5, limit=10).data == b""


# Followed


class Packaging:
    """A packaging whose log is written by the test."""

    def __init__(self, folder: Path) -> None:
        self.writer = LogWriter(folder / "log", most_bytes=1 << 30)
        self.look: LogState | None = LogState(generation=1, is_complete=False, folder=folder / "log")
        self.looks = 0

    def __call__(self, packaging_id: str) -> LogState | None:
        assert packaging_id == "wine"
        self.looks += 1
        return self.look

    def end(self) -> None:
        assert self.look is not None
        self.look = LogState(generation=self.look.generation, is_complete=True, folder=self.look.folder)


@pytest.fixture
def packaging(tmp_path: Path) -> Packaging:
    return Packaging(tmp_path)


async def follow(broadcaster: LogBroadcaster, begun: Callable[[], None] = lambda: None) -> list[bytes]:
    stream = await broadcaster.open("wine", follow=True)
    assert stream is not None
    blocks = []
    async for block in stream:
        blocks.append(block)
        begun()
    await stream.aclose()
    return blocks


def run(test: Awaitable[None]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(test, 60)

    asyncio.run(in_time())


def test_all_followers_get_the_same_blocks_from_one_reader(packaging: Packaging) -> None:
    async def test() -> None:
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        waiting = [asyncio.create_task(follow(broadcaster)) for _ in range(200)]
        while packaging.looks <= 200:  # noqa: ASYNC110  (in threads: each has looked once, and the one reader too)
            await asyncio.sleep(0.01)
        assert broadcaster.streams == 200
        opened = packaging.looks
        for number in range(5):
            packaging.writer.write_line(f"line {number}")
            await asyncio.sleep(0.05)
        assert packaging.looks - opened < 100, "they look each for itself"
        packaging.end()
        all_blocks = await asyncio.gather(*waiting)
        assert all(b"".join(blocks) == b"".join(b"line %d\n" % n for n in range(5)) for blocks in all_blocks)
        assert len({id(block) for blocks in all_blocks for block in blocks}) <= 6, "each has its own copy"
        assert broadcaster.streams == 0

    run(test())


def test_late_follower_gets_the_whole_log(packaging: Packaging) -> None:
    async def test() -> None:
        text = "".join(f"line {number}\n" for number in range(50_000)).encode()
        for line in text.decode().splitlines():
            packaging.writer.write_line(line)
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        late = asyncio.create_task(follow(broadcaster))
        await asyncio.sleep(0.05)
        packaging.writer.write_line("end")
        packaging.end()
        blocks = await late
        assert b"".join(blocks) == text + b"end\n"
        assert max(map(len, blocks)) <= BLOCK_BYTES

    run(test())


def test_a_follower_waits_for_a_log_that_does_not_exist_yet(packaging: Packaging) -> None:
    async def test() -> None:
        begun = packaging.look
        packaging.look = LogState(generation=1, is_complete=False, folder=None)
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        waiting = asyncio.create_task(follow(broadcaster))
        await asyncio.sleep(0.05)
        packaging.writer.write_line("begun")
        packaging.look = begun
        await asyncio.sleep(0.05)
        packaging.end()
        assert b"".join(await waiting) == b"begun\n"

    run(test())


@pytest.mark.parametrize("what", ["deleted", "edited"])
def test_a_stream_ends_with_its_run(packaging: Packaging, what: str) -> None:
    async def test() -> None:
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        packaging.writer.write_line("the first run")
        waiting = asyncio.create_task(follow(broadcaster))
        await asyncio.sleep(0.05)
        packaging.look = None if what == "deleted" else LogState(generation=2, is_complete=False, folder=None)
        assert b"".join(await waiting) == b"the first run\n"

    run(test())


@pytest.mark.parametrize("failures", [5, 1000], ids=["for a moment", "for good"])
def test_stream_survives_short_failures_only(packaging: Packaging, failures: int) -> None:
    looks = 0

    def look(packaging_id: str) -> LogState | None:
        nonlocal looks
        looks += 1
        if 1 < looks < 2 + failures:
            raise OSError("the database is away")
        if looks > 10:
            packaging.end()
        return packaging(packaging_id)

    async def test() -> None:
        broadcaster = LogBroadcaster(look, pause=0.001)
        packaging.writer.write_line("begun")
        assert b"".join(await follow(broadcaster)) == (b"begun\n" if failures < 20 else b"")

    run(test())


def test_complete_log_and_unfollowed_log_end_at_once(packaging: Packaging) -> None:
    async def test() -> None:
        broadcaster = LogBroadcaster(packaging)
        packaging.writer.write_line("so far")
        for _ in range(2):
            stream = await broadcaster.open("wine", follow=packaging.look is not None and packaging.look.is_complete)
            assert stream is not None
            assert [block async for block in stream] == [b"so far\n"]
            await stream.aclose()
            packaging.end()

    run(test())


def test_removed_part_of_a_log_is_reported(packaging: Packaging, tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", most_bytes=80) as writer:
        for number in range(100):
            writer.write_line(f"line {number}")
    packaging.end()

    async def test() -> None:
        (first, *_, last) = await follow(LogBroadcaster(packaging))
        gone = read_log(tmp_path / "log", 0, limit=1).start
        assert first == f"... {gone} bytes of this log were removed to limit its size ...\n".encode()
        assert last.endswith(b"line 99\n")

    run(test())


def test_stop_sends_the_rest_of_the_log_to_every_follower(packaging: Packaging) -> None:
    async def test() -> None:
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        begun = asyncio.Event()
        packaging.writer.write_line("begun")
        waiting = [asyncio.create_task(follow(broadcaster, begun.set)) for _ in range(3)]
        await begun.wait()
        late = await broadcaster.open("wine", follow=True)  # and read only when the stop has come
        broadcaster.stop()
        assert [b"".join(blocks) for blocks in await asyncio.gather(*waiting)] == [b"begun\n"] * 3
        assert late is not None
        assert [block async for block in late] == [b"begun\n"]
        await late.aclose()
        assert await follow(broadcaster) == [b"begun\n"]
        assert broadcaster.streams == 0

    run(test())


def test_closed_streams_do_not_count_for_the_limit(packaging: Packaging) -> None:
    async def test() -> None:
        broadcaster = LogBroadcaster(packaging, max_streams=2)
        streams = [await broadcaster.open("wine", follow=True) for _ in range(2)]
        with pytest.raises(TooManyStreamsError):
            await broadcaster.open("wine", follow=False)
        for stream in streams:
            assert stream is not None
            await stream.aclose()
            await stream.aclose()  # once more does nothing
        packaging.look = None
        for _ in range(3):
            assert await broadcaster.open("wine", follow=True) is None
        assert broadcaster.streams == 0

    run(test())


def test_client_that_stops_reading_is_disconnected(packaging: Packaging) -> None:
    sent = []

    async def test() -> None:
        packaging.writer.write_line("x" * 1000)
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        stream = await broadcaster.open("wine", follow=True)
        assert stream is not None

        async def send(message: Message) -> None:
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()  # its socket is full

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        response = LogResponse(stream, subject="wine", stall=0.05)
        await response({"type": "http"}, receive, send)
        assert broadcaster.streams == 0

    run(test())
    assert sent == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("stops", [False, True])
def test_client_disconnected_at_a_stop_is_no_failure(packaging: Packaging, *, stops: bool) -> None:
    async def test() -> None:
        packaging.writer.write_line("x" * 1000)
        broadcaster = LogBroadcaster(packaging, pause=0.01)
        stream = await broadcaster.open("wine", follow=True)
        assert stream is not None
        is_full = asyncio.Event()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                is_full.set()
                await asyncio.Event().wait()

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        response = LogResponse(stream, subject="wine", stall=60)
        reading = asyncio.create_task(response({"type": "http"}, receive, send))
        await is_full.wait()
        if stops:
            broadcaster.stop()
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled() is not stops
        assert broadcaster.streams == 0

    run(test())
