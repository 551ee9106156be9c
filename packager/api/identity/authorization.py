"""The door: every path wants a known caller, but for those named here; changes and secrets want one who may write."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from packager.api.identity.base import UnansweredError, UnknownCallerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from packager.api.identity.base import Identity

HEALTH = "/health"
# What holds nothing of anyone's: probes, counts, the routes' description; and the pages, which have their own door.
PUBLIC_PATHS = {"/", HEALTH, "/ready", "/metrics", "/openapi.json", "/favicon.ico"}
PUBLIC_PREFIXES = ("/swagger/", "/static/", "/ui/")
_READING = {"GET", "HEAD", "OPTIONS"}
_SECRETS = "/decrypted"
READ_ONLY = "the token is read-only: it may neither change anything nor see secrets"


class Guard:
    """An ASGI middleware: it answers before anything of a body is read."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        """Take what is behind the door, and who tells the callers."""
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with its caller in `request.state.principal`, or refuse it."""
        if scope["type"] == "http" and (refusal := await self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        path, method = scope["path"], scope["method"]
        token = _token(Headers(scope=scope))
        public = path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)
        # `odahuflowctl login` tries a token at the health route; a probe has none.
        if public and not (path == HEALTH and token):
            return None
        try:
            caller = await self._identity.authenticate(token)
        except UnknownCallerError as error:
            return _answer(HTTPStatus.UNAUTHORIZED, str(error), {"WWW-Authenticate": "Bearer"})
        except UnansweredError as error:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "10"})
        if (method not in _READING or path.rstrip().rstrip("/").endswith(_SECRETS)) and not caller.may_write:
            return _answer(HTTPStatus.FORBIDDEN, READ_ONLY)
        scope.setdefault("state", {})["principal"] = caller
        return None


def _token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _answer(status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message}, status, headers)
