"""`/configuration` and `/user/info`; `/health`, `/ready` and `/metrics` for probes and Prometheus."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from packager import __version__
from packager.api.routes.common import PREFIX, READS, Message, caller_of, service_of
from packager.kube.job_settings import JobSettings
from packager.models.entity import Entity

if TYPE_CHECKING:
    from collections.abc import Callable

router = APIRouter(prefix=PREFIX, tags=["About"])
probes = APIRouter(tags=["Health"])
_READY_TIMEOUT = 5.0  # seconds


class CommonConfiguration(Entity):
    """General settings."""

    version: str
    resource_gpu_name: str


class PackagingConfiguration(Entity):
    """Settings of packagings."""

    enabled: bool = True
    model_packager_image: str
    output_connection_id: str = Field(serialization_alias="outputConnectionID")


class Configuration(Entity):
    """The server's settings that clients may need; none of them is secret."""

    common: CommonConfiguration
    packaging: PackagingConfiguration


class UserInfo(BaseModel):
    """The caller."""

    username: str
    email: str


@router.get("/configuration", responses=READS)
def get_configuration(request: Request) -> Configuration:
    """Return the configuration."""
    settings = service_of(request).settings
    return Configuration(
        common=CommonConfiguration(version=__version__, resource_gpu_name=JobSettings().gpu_resource),
        packaging=PackagingConfiguration(
            model_packager_image=settings.packager_image, output_connection_id=settings.output_connection
        ),
    )


@router.get("/user/info", responses=READS)
def get_user_info(request: Request) -> UserInfo:
    """Return the caller."""
    caller = caller_of(request)
    return UserInfo(username=caller.username, email=caller.email)


@probes.get("/health", responses={401: {"model": Message, "description": "The given token is invalid"}})
async def health() -> Message:
    """Return 200: the process answers."""
    return Message(message="ok")


@probes.get("/ready", responses={503: {"model": Message, "description": "The database does not answer"}})
async def ready(request: Request, response: Response) -> Message:
    """Return 200 if the database answers."""
    state = request.app.state
    # One check at a time: while the database hangs, each one would block another thread.
    if getattr(state, "readiness", None) is None or state.readiness.done():
        state.readiness = _start_check(service_of(request).store.check)
    with suppress(SQLAlchemyError, asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(state.readiness)), _READY_TIMEOUT)
        return Message(message="ok")
    response.status_code = 503
    return Message(message="the database does not answer")


def _start_check(check: Callable[[], None]) -> Future[None]:
    """Run a check in a daemon thread, for which the shutdown does not wait."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            check()
        except BaseException as error:  # noqa: BLE001  (passed on)
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run, name="ready", daemon=True).start()
    return outcome


@probes.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
