"""`GET /model/packaging/{id}/log`: a packaging's log, streamed as it is written."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from packager.api.logs import LogStream

log = logging.getLogger(__name__)


class LogResponse(StreamingResponse):
    """A log as plain text; a client that doesn't read it for `stall` seconds is dropped."""

    def __init__(self, stream: LogStream, *, subject: str, stall: float) -> None:
        """Stream the log of the packaging `subject`."""
        # A proxy that collects an answer before it passes it on (nginx) would hold the lines back.
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        super().__init__(aiter(stream), media_type="text/plain; charset=utf-8", headers=headers)
        self._stream = stream
        self._subject = subject
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the log, and give its place back whatever happens."""
        stalled = False

        async def send_in_time(message: Message) -> None:
            nonlocal stalled
            try:
                await asyncio.wait_for(send(message), self._stall)
            except asyncio.TimeoutError:
                stalled = True
                raise

        try:
            await super().__call__(scope, receive, send_in_time)
        except asyncio.TimeoutError:
            if not stalled:
                raise
            log.info("a reader of the log of %s has read nothing for %.0f s and is dropped", self._subject, self._stall)
        finally:
            await self._stream.aclose()
