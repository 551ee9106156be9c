"""Registering our integrations at an ODAHU API, so that the platform starts us for its packagings."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from packager.errors import ClusterAccessError, ClusterError, ClusterUnreachableError
from packager.system.proxies import ProxyTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

_PATH = "/api/v1/packaging/integration"
_TRIES = 5


def register(
    documents: Iterable[dict[str, Any]],
    url: str,
    token: str = "",
    *,
    transport: httpx.BaseTransport | None = None,
    pause: float = 1.0,
) -> None:
    """Create each `kind: PackagingIntegration` document at the API, or change the one that is there.

    `pause` is the seconds before an API that can't be reached is tried again, doubled each time.

    Raises:
        ClusterAccessError: The API refuses the token.
        ClusterUnreachableError: It can't be reached.
        ClusterError: It refuses an integration.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential(multiplier=pause, max=30),
        reraise=True,
    )
    way = transport or ProxyTransport(httpx.create_ssl_context())
    with httpx.Client(base_url=url.rstrip("/"), headers=headers, transport=way, trust_env=False, timeout=30) as client:
        for document in documents:
            body = {name: document[name] for name in ("id", "spec")}
            try:
                answer = retrying(client.post, _PATH, json=body)
                if answer.status_code == HTTPStatus.CONFLICT:
                    answer = retrying(client.put, _PATH, json=body)
            except httpx.TransportError as error:
                raise ClusterUnreachableError(
                    f"the ODAHU API at {url} can't be reached: {error}", hint="check apiUrl and the network policy"
                ) from error
            _check(answer, document["id"])
            log.info("the integration %s is registered", document["id"])


def _check(answer: httpx.Response, name: str) -> None:
    if answer.is_success:
        return
    try:
        message = str(answer.json()["message"])[:400]
    except (ValueError, TypeError, KeyError):
        message = f"HTTP status {answer.status_code}"
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or answer.is_redirect:
        raise ClusterAccessError(
            f"the ODAHU API refuses the integration {name!r}: {message}",
            hint="give a token that may change integrations: the key `token` in the Secret of apiTokenSecret",
        )
    raise ClusterError(f"the ODAHU API refuses the integration {name!r}: {message}")
