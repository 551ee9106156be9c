"""ASGI middlewares: the authorization of callers, and the size limit of request bodies."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from packager.api.identity.base import IdentityUnavailableError, UnknownCallerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from packager.api.identity.base import Identity

HEALTH = "/health"
# Nothing here belongs to a user: probes, metrics and the API description. The pages authenticate callers themselves.
PUBLIC_PATHS = {"/", HEALTH, "/ready", "/metrics", "/openapi.json", "/favicon.ico"}
PUBLIC_PREFIXES = ("/swagger/", "/static/", "/ui/")
READ_ONLY = "the token is read-only: it may neither change anything nor see secrets"
_READING = {"GET", "HEAD", "OPTIONS"}
_SECRETS = "/decrypted"


class Authorization:
    """Lets a request pass with its caller in `request.state.principal`, or refuses it before its body is read.

    Every path needs a known caller, except the public ones. Changes and secrets need a caller who may write.
    """

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        """Protect an application."""
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and (refusal := await self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        path, method = scope["path"], scope["method"]
        token = _token(Headers(scope=scope))
        public = path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)
        # `odahuflowctl login` verifies a token with the health route; a probe sends none.
        if public and not (path == HEALTH and token):
            return None
        try:
            caller = await self._identity.authenticate(token)
        except UnknownCallerError as error:
            return _answer(HTTPStatus.UNAUTHORIZED, str(error), {"WWW-Authenticate": "Bearer"})
        except IdentityUnavailableError as error:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "10"})
        if (method not in _READING or path.rstrip().rstrip("/").endswith(_SECRETS)) and not caller.may_write:
            return _answer(HTTPStatus.FORBIDDEN, READ_ONLY)
        scope.setdefault("state", {})["principal"] = caller
        return None


class BodyLimit:
    """Refuses a body above the limit: by its Content-Length, else as soon as it has received too much."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        """Limit the bodies of requests to an application."""
        self._app = app
        self._max_bytes = max_bytes
        self._text = f"the body is larger than {max_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > self._max_bytes:
            answer = _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._text, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._text)
            return message

        await self._app(scope, receive_limited, send)


def _token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _answer(status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message}, status, headers)
