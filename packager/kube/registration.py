"""Registers integrations with an ODAHU API, so that the platform starts the packager."""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

from packager.errors import ClusterAccessError, ClusterError, ClusterUnreachableError
from packager.logs.sanitize import sanitize
from packager.system.proxies import ProxyTransport
from packager.system.retries import RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

_PATH = "/api/v1/packaging/integration"
RETRIES = RetryPolicy(attempts=5)


def register_integrations(
    documents: Iterable[dict[str, Any]],
    url: str,
    token: str = "",
    *,
    transport: httpx.BaseTransport | None = None,
    retries: RetryPolicy = RETRIES,
) -> None:
    """Create each `kind: PackagingIntegration` document at the API, or replace the existing one.

    Raises:
        ClusterAccessError: The API rejects the token.
        ClusterUnreachableError: The API is unreachable.
        ClusterError: The API rejects an integration.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = transport or ProxyTransport(httpx.create_ssl_context())
    with httpx.Client(
        base_url=url.rstrip("/"), headers=headers, transport=transport, trust_env=False, timeout=30
    ) as client:

        def send(method: str, body: Mapping[str, Any]) -> httpx.Response:
            try:
                return client.request(method, _PATH, json=body)
            except httpx.TransportError as error:
                raise RetryableError(
                    ClusterUnreachableError(
                        f"cannot reach the ODAHU API at {url}: {error}", hint="check apiUrl and the network policy"
                    )
                ) from error

        for document in documents:
            name = document["id"]
            body = {"id": name, "spec": document["spec"]}
            try:
                answer = retries.call(partial(send, "POST", body), f"integration {name}")
                if answer.status_code == HTTPStatus.CONFLICT:
                    answer = retries.call(partial(send, "PUT", body), f"integration {name}")
            except RetryableError as failed:
                raise failed.error from failed.__cause__
            _check(answer, name)
            log.info("integration %s is registered", name)


def _check(answer: httpx.Response, name: str) -> None:
    if answer.is_success:
        return
    try:
        message = sanitize(answer.json()["message"])
    except (ValueError, TypeError, KeyError):
        message = f"HTTP status {answer.status_code}"
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or answer.is_redirect:
        raise ClusterAccessError(
            f"the ODAHU API rejects the integration {name!r}: {message}",
            hint="use a token with permission to change integrations: the key `token` in the Secret apiTokenSecret",
        )
    raise ClusterError(f"the ODAHU API rejects the integration {name!r}: {message}")
