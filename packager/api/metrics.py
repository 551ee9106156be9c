"""What Prometheus is told: requests by route, and packagings by state."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from packager.api.store import Store

log = logging.getLogger(__name__)

_STATES = ("scheduling", "running", "succeeded", "failed")
_KEPT = 5.0  # seconds that counts are not asked for again
_METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"}


class PackagingCounts(Collector):
    """Packagings by state, counted by the database when Prometheus asks, not more often than every five seconds."""

    def __init__(self, store: Store) -> None:
        """Take where to count."""
        self._store = store
        self._counts: dict[str, int] | None = None
        self._asked = float("-inf")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the counts; the last ones while the database doesn't answer."""
        if time.monotonic() - self._asked > _KEPT:
            self._asked = time.monotonic()
            try:
                self._counts = self._store.packagings.counts()
            except SQLAlchemyError as error:  # not as no packagings: alerts would go off, or be silent
                log.warning("packagings can't be counted: %s", type(error).__name__)
        if self._counts is not None:
            gauge = GaugeMetricFamily("packager_api_packagings", "Packagings by state", labels=["state"])
            for state in {*_STATES, *self._counts}:
                gauge.add_metric([state or "unknown"], self._counts.get(state, 0))
            yield gauge

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what is collected, without asking the database."""
        yield GaugeMetricFamily("packager_api_packagings", "Packagings by state", labels=["state"])


class Metrics:
    """The registry of one application."""

    def __init__(self, store: Store) -> None:
        """Set up the counts."""
        self.registry = CollectorRegistry()
        self.registry.register(PackagingCounts(store))
        labels = ["method", "route"]
        self.requests = Counter(
            "packager_api_requests", "Requests answered", [*labels, "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "packager_api_request_seconds", "Until the answer began", labels, registry=self.registry
        )


class Measure:
    """An ASGI middleware that counts requests by their route, never by what a caller wrote into a path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Take what is measured."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counted)
