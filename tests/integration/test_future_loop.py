"""The loop on which futures of other languages' threads are awaited, with threads of obstore's."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import S3Store

from packager.errors import Interrupted
from packager.system.event_loop import FutureLoop
from tests.integration.storage_servers import KEY_ID, KEY_SECRET, REGION, Fault, Thing, WebStore

if TYPE_CHECKING:
    import asyncio


class _Reporting(FutureLoop):
    """Tells what each report of a thread was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: queue.Queue[asyncio.Handle | BaseException] = queue.Queue()

    def call_soon_threadsafe(self, *args: Any, **keywords: Any) -> asyncio.Handle:  # type: ignore[override]
        try:
            handle = super().call_soon_threadsafe(*args, **keywords)
        except BaseException as error:
            self.answers.put(error)
            raise
        self.answers.put(handle)
        return handle


def test_a_request_that_a_stop_cut_off_before_it_was_awaited_is_not_heard_of_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with WebStore() as web:
        web.things["/models/wine.zip"] = Thing(size=1)
        web.faults.append(Fault(stall=0))
        store = S3Store(
            "models",
            endpoint=web.url,
            region=REGION,
            access_key_id=KEY_ID,
            secret_access_key=KEY_SECRET,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

        async def ask() -> None:
            _ = obstore.get_range_async(store, "wine.zip", start=0, end=1)  # its thread is at work from here on
            raise Interrupted(15)

        loop = _Reporting()
        with pytest.raises(Interrupted):
            loop.run_until_complete(ask())
        loop.end()
        assert web.stalled.wait(60)
        assert loop.answers.empty()
    answer = loop.answers.get(timeout=60)
    assert not isinstance(answer, BaseException), answer
    assert answer.cancelled()
    assert capfd.readouterr().err == ""
