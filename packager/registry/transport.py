"""One repository's conversation with its registry: requests with logins, trust and retries.

The protocol is that of github.com/opencontainers/distribution-spec; docker's is the same here.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import httpx

from packager.errors import RegistryError
from packager.registry import errors, quirks
from packager.registry.challenge import ChallengeAuth
from packager.registry.errors import limit_body, limit_error_body
from packager.system.proxies import ProxyTransport
from packager.system.retries import RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.errors import Verb

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT = httpx.Timeout(30.0)
_CANCEL_SECONDS = 5.0
CHUNK = 1 << 18
_MAX_BYTES = 4 << 20  # of a response that should be short


class RegistrySession:
    """Requests to the registry of one repository. Close it, as with `contextlib.closing`. Threads may share it."""

    def __init__(
        self,
        reference: Reference,
        access: RegistryAccess,
        *,
        verb: Verb = "pull",
        transport: httpx.BaseTransport | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        """Name the repository and the verb; tests give another `transport` than the network.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: The login has expired, and can't be renewed.
        """
        self.reference = reference
        login = access.keychain.login_for(reference)
        self.context = errors.RequestContext(verb=verb, reference=reference, user=login.username if login else "")
        self._retries = retries or RetryPolicy(seconds=access.trust.retry_seconds)
        scheme = "http" if reference.host in access.insecure_hosts else "https"
        self._root = f"{scheme}://{quirks.api_host(reference.host)}"
        self._client = httpx.Client(
            auth=ChallengeAuth(lambda: access.keychain.login_for(reference), self._root, self.context),
            cookies=quirks.no_cookies(),
            headers={"Accept-Encoding": "identity", "User-Agent": "packager"},
            event_hooks={"response": [limit_error_body]},
            follow_redirects=True,
            timeout=_TIMEOUT,
            transport=transport or ProxyTransport(access.trust.ssl_context(reference.host)),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def url(self, path: str) -> str:
        """Return the URL of `manifests/…`, `blobs/…` and so on in the repository."""
        return f"{self._root}/v2/{self.reference.path}/{path}"

    def location(self, response: httpx.Response) -> str:
        """Return the URL that a response's Location header names; empty where it has none.

        Raises:
            RegistryError: It's no valid URL, or it leads from HTTPS to plain HTTP.
        """
        location = response.headers.get("Location", "")
        if not location:
            return ""
        try:
            url = response.url.join(location)
        except httpx.InvalidURL as error:
            raise self.wrong("redirects to an invalid URL") from error
        if url.scheme != "https" and url.scheme != httpx.URL(self._root).scheme:
            raise RegistryError(
                f"{self.context}: the registry {self.reference.host} sends uploads on from HTTPS to plain HTTP, to "
                f"{url.host}, where nothing is sent",
                hint=errors.BEHIND_PROXY,
            )
        return str(url)

    def request(
        self,
        method: str,
        url: str,
        *,
        also: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send a request whose response is short, and retry it while the registry can't serve it.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It failed with a status that isn't in `also`.
        """

        def send() -> httpx.Response:
            with self.stream(method, url, also=also, headers=headers, content=content) as response:
                limit_body(response, _MAX_BYTES)
                response.read()
            return response

        return self.retried(send, f"{method} {url_path(url)}")

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        also: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request once, and give its response unread.

        Any 2xx is a success: registries answer the same request with different ones.

        Raises:
            RetryableError, httpx.TransportError: Another attempt may succeed: see `retried`.
            RegistryAuthError, RegistryError: It failed with a status that isn't in `also`.
        """
        try:
            with self._client.stream(method, url, headers=headers, content=content) as response:
                if not response.is_success and response.status_code not in also:
                    raise self.unexpected(response)
                yield response
        except (httpx.InvalidURL, httpx.TooManyRedirects, UnicodeError) as error:  # a host's name that has no encoding
            raise self.wrong("redirects too many times, or to an invalid URL") from error
        except httpx.DecodingError as error:
            raise self.wrong("answered with a Content-Encoding that its bytes don't have") from error

    def unexpected(self, response: httpx.Response) -> Exception:
        """Return the error for a response with another status, as `stream` raises it."""
        return errors.status_error(self.context, response, errors.error_body(response))

    def cancel(self, location: str) -> bool:
        """Cancel an upload with one request, whether that succeeds or not; False where it is answered too slowly."""
        try:
            with self._client.stream("DELETE", location, timeout=_CANCEL_SECONDS) as response:
                log.debug("canceled an upload: %d", response.status_code)
        except Exception as error:  # noqa: BLE001  (nothing depends on it)
            log.debug("an upload can't be canceled: %s", type(error).__name__)
            return not isinstance(error, httpx.TimeoutException)
        return True

    def retried(self, work: Callable[[], T], what: str, *, seconds: float | None = None) -> T:
        """Do the work, retry it while it fails with a retryable error, and raise its last failure as one of our errors.

        `seconds` limits the retries further than the settings do.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It failed.
        """
        retries = self._retries
        if seconds is not None:
            limit = seconds if retries.seconds is None else min(seconds, retries.seconds)
            retries = replace(retries, seconds=limit)
        try:
            return retries.call(work, f"{self.reference.host}: {what}")
        except RetryableError as failure:
            raise failure.error from failure
        except httpx.TransportError as error:
            raise errors.unreachable(self.context, error) from error

    def check_digest(self, response: httpx.Response, digest: str) -> None:
        """Check that the registry has stored the bytes that were sent, as far as it names a digest.

        Raises:
            RegistryError: It has stored others.
        """
        if other := quirks.other_digest(response.headers, digest):
            raise self.wrong(f"stored {other} where {digest} was sent")

    def wrong(self, what: str) -> RegistryError:
        """Return the error for a response that violates the specification."""
        return RegistryError(
            f"{self.context}: the registry {self.reference.host} {what}",
            hint="look into its log, and at proxies and mirrors between it and this machine",
        )


def url_path(url: str) -> str:
    """Return the part of a URL that may be shown: the query can hold a token."""
    return httpx.URL(url).path
