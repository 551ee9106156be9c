"""One repository's conversation with its registry: requests with logins, trust and retries.

The protocol is that of github.com/opencontainers/distribution-spec; docker's is the same here.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, TypeVar

import httpx

from packager.errors import RegistryError
from packager.models.reference import DOCKER_HUB
from packager.registry import errors
from packager.registry.authfile import login_for
from packager.registry.challenge import ChallengeAuth
from packager.registry.response_limits import bound, bound_failure
from packager.registry.retries import RETRYABLE_STATUSES, Retries, RetryableStatusError
from packager.system.proxies import ProxyTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from packager.errors import PackagerError
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.errors import Verb

log = logging.getLogger(__name__)

T = TypeVar("T")

_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
_TIMEOUT = httpx.Timeout(30.0)
_CALL_OFF_SECONDS = 5.0
CHUNK = 1 << 18
_MOST_BYTES = 4 << 20  # of an answer that should be short


class RegistrySession:
    """Speaks with the registry of one repository. Close it, as with `contextlib.closing`. Threads may share it."""

    def __init__(
        self,
        reference: Reference,
        access: RegistryAccess,
        *,
        verb: Verb = "pull",
        transport: httpx.BaseTransport | None = None,
        retries: Retries | None = None,
    ) -> None:
        """Name the repository and what is done there; `transport` is what stands for the network in tests."""
        self.reference = reference
        login = login_for(reference, access.auth_file)
        self.context = errors.RequestContext(verb=verb, reference=reference, user=login.username if login else "")
        self._retries = retries or Retries(seconds=access.trust.retry_seconds)
        scheme = "http" if reference.host in access.insecure_hosts else "https"
        self._root = f"{scheme}://{_API_HOSTS.get(reference.host, reference.host)}"
        self._client = httpx.Client(
            auth=ChallengeAuth(lambda: login_for(reference, access.auth_file), self._root, self.context),
            # Harbor takes whoever keeps its session's cookie for a browser, and refuses what a browser may not do
            # (dotnet/sdk-container-builds#418); docker keeps none (distribution/distribution#1818).
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"Accept-Encoding": "identity", "User-Agent": "packager"},
            event_hooks={"response": [bound_failure]},
            follow_redirects=True,
            timeout=_TIMEOUT,
            transport=transport or ProxyTransport(access.trust.ssl_context(reference.host)),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def url(self, path: str) -> str:
        """Return the address of `manifests/…`, `blobs/…` and so on in the repository."""
        return f"{self._root}/v2/{self.reference.path}/{path}"

    def location(self, response: httpx.Response) -> str:
        """Return the URL that a response's Location header names; empty where it has none.

        Raises:
            RegistryError: It's no URL, or it leads from HTTPS to plain HTTP.
        """
        location = response.headers.get("Location", "")
        if not location:
            return ""
        try:
            url = response.url.join(location)
        except httpx.InvalidURL as error:
            raise self.wrong("sends us on to something that is no address") from error
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
        """Send a request whose response is short, again while the registry can't serve it for the moment.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It failed with a status that isn't in `also`.
        """

        def send() -> httpx.Response:
            with self.stream(method, url, also=also, headers=headers, content=content) as response:
                bound(response, _MOST_BYTES)
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

        Any 2xx is a success: for one and the same request, registries differ in which one they answer with.

        Raises:
            RetryableStatusError, httpx.TransportError: It may help to try again: see `retried`.
            RegistryAuthError, RegistryError: It failed with a status that isn't in `also`.
        """
        try:
            with self._client.stream(method, url, headers=headers, content=content) as response:
                if not response.is_success and response.status_code not in also:
                    raise self.unexpected(response)
                yield response
        except (httpx.InvalidURL, httpx.TooManyRedirects, UnicodeError) as error:  # a host's name that has no encoding
            raise self.wrong("sends us on and on, or to something that is no address") from error
        except httpx.DecodingError as error:
            raise self.wrong("answered with a Content-Encoding that its bytes don't have") from error

    def unexpected(self, response: httpx.Response) -> Exception:
        """Return the error that a response with another status stands for, as `stream` raises it."""
        body = errors.error_body(response)
        if response.status_code in RETRYABLE_STATUSES:
            return RetryableStatusError(response, body)
        return errors.refusal(self.context, response, body)

    def cancel(self, location: str) -> bool:
        """Ask once to forget an upload, as the registry does by itself in time; False where it answers too slowly."""
        try:
            with self._client.stream("DELETE", location, timeout=_CALL_OFF_SECONDS) as response:
                log.debug("an upload was called off: %d", response.status_code)
        except Exception as error:  # noqa: BLE001  (nothing depends on it)
            log.debug("an upload can't be called off: %s", type(error).__name__)
            return not isinstance(error, httpx.TimeoutException)
        return True

    def retried(self, work: Callable[[], T], what: str, *, seconds: float | None = None) -> T:
        """Do the work, again while it fails for the moment; then turn its failure into one of our errors.

        `seconds` lets the last attempt begin earlier than the settings do.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It failed.
        """
        retries = self._retries
        if seconds is not None:
            retries = replace(retries, seconds=min(seconds, retries.seconds))
        try:
            return retries.call(work, f"{self.reference.host}: {what}")
        except (RetryableStatusError, httpx.TransportError) as error:
            raise self.failure(error) from error

    def failure(self, error: RetryableStatusError | httpx.TransportError) -> PackagerError:
        """Say what an error that may pass means when it didn't."""
        if isinstance(error, RetryableStatusError):
            return errors.refusal(self.context, error.response, error.body)
        return errors.silence(self.context, error)

    def check_digest(self, response: httpx.Response, digest: str) -> None:
        """See that the registry has stored what was sent; it need not say so, and may say it with another algorithm.

        Raises:
            RegistryError: It says that it has stored something else.
        """
        given = response.headers.get("Docker-Content-Digest", "")
        if given.startswith("sha256:") and given != digest:
            raise self.wrong(f"stored {given[:80]} where {digest} was sent")

    def wrong(self, what: str) -> RegistryError:
        """Say that the registry did what no registry should."""
        return RegistryError(
            f"{self.context}: the registry {self.reference.host} {what}",
            hint="look into its log, and at what lies between it and this machine (proxies, mirrors)",
        )


def url_path(url: str) -> str:
    """Return what may be shown of an address: the query can hold a token."""
    return httpx.URL(url).path


def skipped(chunks: Iterable[bytes], offset: int) -> Iterator[bytes]:
    """Give the chunks without the first `offset` bytes."""
    for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
        else:
            yield chunk[offset:]
            offset = 0
