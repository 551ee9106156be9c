"""Helpers of the routes: strict JSON bodies, pages of lists, described errors, and the audit log."""

from __future__ import annotations

import json
import logging
import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Response

    from packager.api.identity import Principal
    from packager.api.runner import Runner
    from packager.api.service import Service

PREFIX = "/api/v1"
audit_log = logging.getLogger("packager.audit")
_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")


class Message(BaseModel):
    """A confirmation or an error."""

    message: str


class Page(BaseModel):
    """A page of a list."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=500, ge=1, le=10_000, description="Maximum number of entities.")
    page: int = Field(default=0, ge=0, le=1_000_000, description="Page number, from 0.")


def _problem(*codes: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    return {int(code): {"model": Message, "description": code.phrase} for code in codes}


_ANY = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE)
_CHANGE = (*_ANY, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
READS = _problem(*_ANY)
READS_ONE = _problem(*_ANY, HTTPStatus.NOT_FOUND)
CREATES = _problem(*_CHANGE, HTTPStatus.CONFLICT)
CHANGES = _problem(*_CHANGE, HTTPStatus.NOT_FOUND)


def service_of(request: Request) -> Service:
    """Return the service."""
    found: Service = request.app.state.service
    return found


def caller_of(request: Request) -> Principal:
    """Return the caller that the middleware has authenticated."""
    found: Principal = request.state.principal
    return found


def audit(request: Request, action: str, kind: str, entity_id: str) -> None:
    """Log a change with its caller and the caller's address."""
    fields = {
        "audit": action,
        "kind": kind,
        "id": entity_id,
        "user": caller_of(request).username,
        "address": request.client.host if request.client else "",
    }
    text = "audit: %(user)s %(audit)s %(kind)s %(id)s from %(address)s"
    audit_log.info(text, fields, extra={"fields": fields})


def wake_runner(request: Request) -> None:
    """Make the supervisor look for changes now."""
    runner: Runner | None = request.app.state.runner
    if runner is not None:
        runner.supervisor.wake()


def read_json(body: bytes) -> object:
    """Parse JSON strictly: finite numbers, and text that every database can store.

    Raises:
        ValueError: The text is not valid JSON, or has such a number or character.
    """
    value = json.loads(body, parse_constant=_refuse_number, parse_float=_read_float)
    if b"\\u" in body or b"\x00" in body:
        _check_text(value)
    return value


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _read_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _check_text(value: object) -> None:
    if isinstance(value, str) and _UNSENDABLE.search(value):
        raise ValueError("a text contains a NUL character or an unpaired surrogate")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


class _StrictRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401  (as the base)
        try:
            return read_json(await self.body())
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {reason}") from error


class StrictRoute(APIRoute):
    """A route that parses its body with `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
