"""`/health` (the process answers), `/ready` (its database too) and `/metrics`, for probes and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from packager.api.routes.common import Message, service_of

router = APIRouter(tags=["Health"])


@router.get("/health", responses={401: {"model": Message, "description": "A token is given, and it is wrong"}})
async def health() -> Message:
    """Tell that the service answers."""
    return Message(message="ok")


@router.get("/ready", responses={503: {"model": Message, "description": "The database doesn't answer"}})
def ready(request: Request, response: Response) -> Message:
    """Tell whether the service can work."""
    try:
        service_of(request).store.check()
    except SQLAlchemyError:
        response.status_code = 503
        return Message(message="the database doesn't answer")
    return Message(message="ok")


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Return the counts, as Prometheus reads them."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
