"""The ASGI application: routes, middlewares and error handlers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from packager import __version__
from packager.api.error_responses import add_error_handlers
from packager.api.metrics import Metrics, RequestMetrics
from packager.api.middleware import Authorization, BodyLimit
from packager.api.routes import ROUTERS
from packager.api.web import PAGES
from packager.api.web.assets import describe_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from packager.api.runner import Runner
    from packager.api.service import Service

OPENAPI = "/openapi.json"
_ABOUT = "Packages trained models into container images. Errors are `{message}`; connection secrets are base64."


def create_app(service: Service, runner: Runner | None = None) -> FastAPI:
    """Create the ASGI application of a service; its shutdown closes the runner and the store."""
    metrics = Metrics(service.store)
    hosts = service.settings.hosts or ["*"]
    app = FastAPI(
        title="packager",
        version=__version__,
        description=_ABOUT,
        openapi_url=OPENAPI,
        docs_url=None,  # it loads assets from a CDN; packager.api.web.assets serves Swagger UI
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=[
            Middleware(RequestMetrics, metrics=metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(Authorization, identity=service.identity),
            Middleware(BodyLimit, max_bytes=service.settings.max_body_bytes),
        ],
    )
    app.state.service, app.state.metrics, app.state.runner = service, metrics, runner
    add_error_handlers(app)
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
            # In an extra thread: hanging requests may occupy all others.
            await to_thread.run_sync(runner.close, limiter=CapacityLimiter(1))
        app.state.service.store.close()
