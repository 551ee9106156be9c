"""The application: every route behind one door, and what answers a failure."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from packager import __version__
from packager.api.body_limit import BodyLimit
from packager.api.error_responses import handle_failures
from packager.api.identity.authorization import Guard
from packager.api.metrics import Measure, Metrics
from packager.api.routes import ROUTERS
from packager.api.web import PAGES
from packager.api.web.swagger import describe_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from packager.api.runner import Runner
    from packager.api.service import Service

OPENAPI = "/openapi.json"
_ABOUT = "Packages trained models into container images. Errors are `{message}`; secrets of connections are base64."


def create_app(service: Service, runner: Runner | None = None) -> FastAPI:
    """Return the ASGI application of a service; what runs packagings, and the store, are closed when it ends."""
    metrics = Metrics(service.store)
    hosts = service.settings.hosts or ["*"]
    app = FastAPI(
        title="packager",
        version=__version__,
        description=_ABOUT,
        openapi_url=OPENAPI,
        docs_url=None,  # their assets come from elsewhere; Swagger UI is served from the package
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=[
            Middleware(Measure, metrics=metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(Guard, identity=service.identity),
            Middleware(BodyLimit, most=service.settings.max_body_bytes),
        ],
    )
    app.state.service, app.state.metrics, app.state.runner = service, metrics, runner
    handle_failures(app)
    for router in (*ROUTERS, *PAGES):
        app.include_router(router)
    if service.settings.has_identity:
        describe_tokens(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    runner: Runner | None = app.state.runner
    try:
        if runner is not None:
            runner.start()
        yield
    finally:
        if runner is not None:
            # A thread of its own: requests that are stuck may hold all others.
            await to_thread.run_sync(runner.close, limiter=CapacityLimiter(1))
        app.state.service.store.close()
