"""`/model/packaging/{id}/log`: the log of a packaging, streamed as it is written."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from packager.api.logs import TooManyStreamsError
from packager.api.routes.common import PREFIX, READS_ONE, Message, service_of
from packager.api.store.database import not_found

if TYPE_CHECKING:
    from starlette.types import Message as AsgiMessage
    from starlette.types import Receive, Scope, Send

    from packager.api.logs import LogStream

log = logging.getLogger(__name__)

_MARGIN = 5.0  # seconds after the kernel should have closed the connection (server.py)

router = APIRouter(prefix=f"{PREFIX}/model/packaging", tags=["Packaging"])
_BUSY: dict[int | str, dict[str, Any]] = {429: {"model": Message, "description": "Too many open log streams"}}
# The log is plain text, its errors are JSON; FastAPI would describe both with the media type of the response class.
_JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/Message"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": response["description"], "content": _JSON}
    for status, response in {**READS_ONE, **_BUSY}.items()
}


class LogQuery(BaseModel):
    """Query of a log."""

    model_config = ConfigDict(extra="forbid")

    follow: bool = Field(default=False, description="Stream the log until the packaging ends.")


@router.get("/{packaging_id}/log", responses=_ERRORS, response_class=PlainTextResponse)
async def read_log(request: Request, packaging_id: str, query: Annotated[LogQuery, Query()]) -> Response:
    """Return the log of a packaging, streamed as it is written."""
    service, runner = service_of(request), request.app.state.runner
    if runner is None:
        await asyncio.to_thread(service.store.runs.get, packaging_id)  # 404 comes before 503
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "this process runs no packagings")
    try:
        stream = await runner.logs.open(packaging_id, follow=query.follow)
    except TooManyStreamsError as error:
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, error.message, {"Retry-After": "10"}) from error
    if stream is None:
        raise not_found(packaging_id)
    return LogResponse(stream, subject=packaging_id, stall=service.settings.log_stall_seconds + _MARGIN)


class LogResponse(StreamingResponse):
    """A log as plain text; a client that reads nothing for `stall` seconds is disconnected."""

    def __init__(self, stream: LogStream, *, subject: str, stall: float) -> None:
        """Stream the log of the packaging `subject`."""
        # Proxies such as nginx would buffer the lines.
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        super().__init__(aiter(stream), media_type="text/plain; charset=utf-8", headers=headers)
        self._stream = stream
        self._subject = subject
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the log, and close the stream in any case."""
        stalled = False

        async def send_in_time(message: AsgiMessage) -> None:
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
            log.info(
                "disconnecting a client of the log of %s: it has read nothing for %.0f s", self._subject, self._stall
            )
        except asyncio.CancelledError:
            if not self._stream.is_stopping:
                raise
            log.info("disconnecting a client of the log of %s at the stop: it has not read everything", self._subject)
        finally:
            await self._stream.aclose()
