"""Error responses: always `{"message": ...}`, never a traceback or a secret."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from packager.errors import EntityExistsError, EntityNotFoundError, PackagerError, RequestError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

log = logging.getLogger(__name__)

_STATUS: dict[type[PackagerError], HTTPStatus] = {
    EntityNotFoundError: HTTPStatus.NOT_FOUND,
    EntityExistsError: HTTPStatus.CONFLICT,
    RequestError: HTTPStatus.BAD_REQUEST,
}


def add_error_handlers(app: FastAPI) -> None:
    """Register the handler of each kind of error."""
    app.add_exception_handler(PackagerError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(Exception, _unexpected)


def answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"message": message}, status, headers)


async def _known(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, PackagerError):
        raise error
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        log.error("%s", error.message)
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
    return answer(status, error.message)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    kind = request.headers.get("content-type", "")
    if "json" not in kind and any(problem["loc"] == ("body",) for problem in error.errors()):
        given = kind[:100].encode(errors="replace").decode() or "unknown"
        message = f"the body has the type {given}: send JSON with the header Content-Type: application/json"
        return answer(HTTPStatus.BAD_REQUEST, message)
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path"))
        what = str(problem["msg"]).removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            what = "unknown parameter"
        lines.append(f"{where[:200]}: {what}" if where else what)
    clean = [line.encode(errors="replace").decode() for line in lines]
    return answer(HTTPStatus.BAD_REQUEST, "\n".join(["the request is invalid:", *(f"  - {line}" for line in clean)]))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the router names only the methods of its first match
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    return answer(error.status_code, str(error.detail), headers)


def _methods(request: Request) -> list[str]:
    paths = request.app.openapi()["paths"].items()
    return sorted(
        method.upper() for path, methods in paths if compile_path(path)[0].match(request.url.path) for method in methods
    )


async def _database(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, (OperationalError, PoolTimeoutError)):
        log.error("the database does not answer: %s", str(error).splitlines()[0])
        if "disk is full" in str(error):  # SQLite's message
            return answer(HTTPStatus.SERVICE_UNAVAILABLE, "cannot write to the database: its disk is full")
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer; try again", {"Retry-After": "5"})
    return await _unexpected(_request, error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected %s at %s %s", type(error).__name__, request.method, request.url.path, exc_info=error)
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; see the log of the service")
