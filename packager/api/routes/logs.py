"""`/model/packaging/{id}/log`: a packaging's log, streamed as it is written."""

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
from packager.api.store.entity_repository import not_found

if TYPE_CHECKING:
    from starlette.types import Message as AsgiMessage
    from starlette.types import Receive, Scope, Send

    from packager.api.logs import LogStream

log = logging.getLogger(__name__)

_LATER = 5.0  # seconds after the kernel should have cut the connection off (server.py)

router = APIRouter(prefix=f"{PREFIX}/model/packaging", tags=["Packaging"])
_BUSY: dict[int | str, dict[str, Any]] = {429: {"model": Message, "description": "Too many logs are being read"}}
# The log is plain text, and its errors are JSON as everywhere; FastAPI would describe both by the route's own class.
_JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/Message"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": response["description"], "content": _JSON}
    for status, response in {**READS_ONE, **_BUSY}.items()
}


class LogQuery(BaseModel):
    """How a log is read."""

    model_config = ConfigDict(extra="forbid")

    follow: bool = Field(default=False, description="Go on until the packaging ends.")


@router.get("/{packaging_id}/log", responses=_ERRORS, response_class=PlainTextResponse)
async def read_log(request: Request, packaging_id: str, asked: Annotated[LogQuery, Query()]) -> Response:
    """Return a packaging's log, line by line as it is written."""
    service, runner = service_of(request), request.app.state.runner
    if runner is None:
        await asyncio.to_thread(service.store.runs.get, packaging_id)  # a missing one is told first
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "no packaging is run here")
    try:
        stream = await runner.logs.open(packaging_id, follow=asked.follow)
    except TooManyStreamsError as error:
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, error.message, {"Retry-After": "10"}) from error
    if stream is None:
        raise not_found(packaging_id)
    return LogResponse(stream, subject=packaging_id, stall=service.settings.log_stall_seconds + _LATER)


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
            log.info("a reader of the log of %s has read nothing for %.0f s and is dropped", self._subject, self._stall)
        except asyncio.CancelledError:
            if not self._stream.is_stopping:
                raise
            log.info("a reader of the log of %s has not read it all before the stop and is dropped", self._subject)
        finally:
            await self._stream.aclose()
