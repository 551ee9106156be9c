"""A bound for the bodies of requests; FastAPI's own one answers with plain text where ours are `{"message": ...}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """An ASGI middleware: a body that says it is too large is not read, another is read until it is."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """Take the largest size, in bytes."""
        self._app = app
        self._most = most
        self._text = f"the body is larger than {most} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on whose body is small enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "0")
        if not said.isdigit() or int(said[:20]) > self._most:
            answer = JSONResponse({"message": self._text}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._text)
            return message

        await self._app(scope, bounded, send)
