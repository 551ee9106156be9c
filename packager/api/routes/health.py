"""`/health` (the process answers), `/ready` (its database too) and `/metrics`, for probes and Prometheus."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from packager.api.routes.common import Message, service_of

if TYPE_CHECKING:
    from collections.abc import Callable

router = APIRouter(tags=["Health"])
_PATIENCE = 5.0  # seconds


@router.get("/health", responses={401: {"model": Message, "description": "A token is given, and it is wrong"}})
async def health() -> Message:
    """Tell that the service answers."""
    return Message(message="ok")


@router.get("/ready", responses={503: {"model": Message, "description": "The database doesn't answer"}})
async def ready(request: Request, response: Response) -> Message:
    """Tell whether the service can work."""
    state = request.app.state
    # One at a time: of a database that has frozen each would keep a thread for as long as that lasts.
    if getattr(state, "asking", None) is None or state.asking.done():
        state.asking = _asked_aside(service_of(request).store.check)
    with suppress(SQLAlchemyError, asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(state.asking)), _PATIENCE)
        return Message(message="ok")
    response.status_code = 503
    return Message(message="the database doesn't answer")


def _asked_aside(question: Callable[[], None]) -> Future[None]:
    """Ask in a thread that the service's end doesn't wait for."""
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            question()
        except BaseException as error:  # noqa: BLE001  (it's the answer)
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=ask, name="ready", daemon=True).start()
    return answer


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Return the counts, as Prometheus reads them."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
