"""Prometheus metrics: requests by route, and packagings by state."""

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
_COUNTS_LIFETIME = 5.0  # seconds before the database is queried again
_METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"}


class PackagingCounts(Collector):
    """Packagings by state; queries the database on a scrape, at most every five seconds."""

    def __init__(self, store: Store) -> None:
        """Count the packagings of a store."""
        self._store = store
        self._counts: dict[str, int] | None = None
        self._queried = float("-inf")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the counts; the last known ones while the database does not answer."""
        if time.monotonic() - self._queried > _COUNTS_LIFETIME:
            self._queried = time.monotonic()
            try:
                self._counts = self._store.packagings.counts()
            except SQLAlchemyError as error:  # zero packagings would trigger or silence alerts
                log.warning("cannot count the packagings: %s", type(error).__name__)
        if self._counts is not None:
            gauge = GaugeMetricFamily("packager_api_packagings", "Packagings by state", labels=["state"])
            for state in {*_STATES, *self._counts}:
                gauge.add_metric([state or "unknown"], self._counts.get(state, 0))
            yield gauge

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Describe the metric without querying the database."""
        yield GaugeMetricFamily("packager_api_packagings", "Packagings by state", labels=["state"])


class Metrics:
    """The metrics of one application."""

    def __init__(self, store: Store) -> None:
        """Create the metrics."""
        self.registry = CollectorRegistry()
        self.registry.register(PackagingCounts(store))
        labels = ["method", "route"]
        self.requests = Counter(
            "packager_api_requests", "Requests answered", [*labels, "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "packager_api_request_seconds", "Time to the first byte of the response", labels, registry=self.registry
        )


class RequestMetrics:
    """An ASGI middleware that counts requests by route; paths from callers would create endless labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Measure the requests to an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and count it when its response starts."""
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
