"""What a failure answers: always `{"message": ...}`, never a traceback or a secret."""

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


def handle_failures(app: FastAPI) -> None:
    """Register what answers each kind of failure."""
    app.add_exception_handler(PackagerError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(Exception, _unexpected)


def answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer of that status."""
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
        message = (
            f"the body is {kind[:100].encode(errors='replace').decode() or 'of no type'}: send JSON with the header "
        )
        return answer(HTTPStatus.BAD_REQUEST, f"{message}Content-Type: application/json")
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path"))
        what = str(problem["msg"]).removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            what = "this parameter is unknown"
        lines.append(f"{where[:200]}: {what}" if where else what)
    clean = [line.encode(errors="replace").decode() for line in lines]
    return answer(HTTPStatus.BAD_REQUEST, "\n".join(["the request is wrong:", *(f"  - {line}" for line in clean)]))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if (
        error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    ):  # the router names those of the first route of that path only
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    return answer(error.status_code, str(error.detail), headers)


def _methods(request: Request) -> list[str]:
    paths = request.app.openapi()["paths"].items()
    return sorted(
        method.upper() for path, methods in paths if compile_path(path)[0].match(request.url.path) for method in methods
    )


async def _database(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, (OperationalError, PoolTimeoutError)):
        log.error("the database doesn't answer: %s", str(error).splitlines()[0])
        if "disk is full" in str(error):  # SQLite's words
            return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database can't be written: its disk is full")
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database doesn't answer; try again", {"Retry-After": "5"})
    return await _unexpected(_request, error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected %s at %s %s", type(error).__name__, request.method, request.url.path, exc_info=error)
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "an unexpected error; the service's log says more")
