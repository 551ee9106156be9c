"""The loop on which futures of other languages' threads are awaited."""

from __future__ import annotations

import asyncio

import pytest

from packager.errors import Interrupted
from packager.system.event_loop import future_loop


def test_a_closed_loop_calls_nothing_and_an_open_one_does() -> None:
    called: list[str] = []
    with future_loop() as loop:
        loop.call_soon_threadsafe(called.append, "open")
        loop.run_until_complete(asyncio.sleep(0))
    assert loop.call_soon_threadsafe(called.append, "closed").cancelled()
    assert called == ["open"]


def test_an_error_of_an_open_loop_is_told() -> None:
    with future_loop() as loop:
        loop.set_debug(True)  # it looks at what it is given
        with pytest.raises(TypeError):
            loop.call_soon_threadsafe("not callable")  # type: ignore[arg-type]


def test_what_is_under_way_at_the_end_is_called_off_and_waited_for() -> None:
    ended: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    async def main() -> None:
        tasks.append(asyncio.create_task(work()))
        await asyncio.sleep(0)
        raise Interrupted(15)

    with pytest.raises(Interrupted), future_loop() as loop:
        loop.run_until_complete(main())
    assert ended == ["work"]
    assert loop.is_closed()
