"""An archive at a web server, by httpx: plain GET with ranges (RFC 9110)."""

from __future__ import annotations

import logging
import netrc
import re
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from packager.errors import StorageError
from packager.sources.stores.checksums import Checksum, best_checksum, from_headers
from packager.sources.stores.location import is_loopback
from packager.sources.stores.store import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Access,
    ErrorResponse,
    Opened,
    changed,
    is_untrusted,
    refused,
    unreachable,
    without_queries,
)
from packager.system.proxies import ProxyTransport
from packager.system.retries import RetryableError, read_retry_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    from packager.sources.stores.location import RemoteModel

log = logging.getLogger(__name__)

_TIMEOUT = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
_NUMBER = r"[0-9]{1,19}"  # more bytes are nowhere
_RANGE = re.compile(rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)")
_MOST_REDIRECTS = 5


class WebSource:
    """An archive at one URL. Close it, as with `contextlib.closing`."""

    def __init__(
        self,
        model: RemoteModel,
        *,
        context: ssl.SSLContext,
        environ: Mapping[str, str],
        insecure_hosts: Iterable[str] = (),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Name the archive; tests give another `transport` than the network."""
        auth, credential = _login(environ)
        self.access = Access(
            location=str(model),
            store=model.bucket,
            credential="the URL's own signature" if model.query else credential,
            permission="reading that file",
        )
        self._url = model.url
        self._asked = model.bucket  # the host with its port; another one after a redirect
        self._insecure_hosts = frozenset(insecure_hosts)
        self._checksums: list[Checksum] = []
        self._client = httpx.Client(
            auth=auth,
            headers={"Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            timeout=_TIMEOUT,
            transport=transport or ProxyTransport(context),
            trust_env=False,
            event_hooks={"request": [self._check_request]},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def checksums(self) -> list[Checksum]:
        """Return the checksums of the first response's headers."""
        return self._checksums

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Opened]:
        """Ask for the bytes from `offset` on; see `Source`."""
        headers = _conditions(offset, validator)
        try:
            with closing(self._ask(headers)) as response:
                self._check(response)
                opened = self._opened(response, offset)
                if validator and opened.validator != validator:
                    raise changed(self.access)
                yield opened
        except httpx.TransportError as error:
            cause = f"{type(error).__name__}: {error}"
            failure = unreachable(replace(self.access, store=self._asked), cause)
            if is_untrusted(cause) or isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
                raise failure from error
            raise RetryableError(failure) from error
        except httpx.TooManyRedirects as error:
            raise StorageError(f"{self.access.location} redirects too many times", hint="check the URL") from error
        except httpx.InvalidURL as error:
            raise self._bad_redirect() from error

    def _ask(self, headers: Mapping[str, str]) -> httpx.Response:
        """Send the request and those that redirects lead to; the body is still to come."""
        self._asked = self.access.store
        try:
            return self._client.send(self._client.build_request("GET", self._url, headers=headers), stream=True)
        except UnicodeError as error:  # of IDNA: a host that MODEL names was checked, so it's one that was led to
            raise self._bad_redirect() from error
        except httpx.RemoteProtocolError as error:
            if "location header" in str(error):  # httpx has no class of its own for it
                raise self._bad_redirect() from error
            raise

    def _bad_redirect(self) -> StorageError:
        return StorageError(f"{self.access.location} redirects to an invalid URL", hint="check the URL")

    def _check_request(self, request: httpx.Request) -> None:
        """Refuse a redirect from https to http, or to another scheme; note the host that is asked."""
        host, netloc = request.url.host, request.url.netloc.decode()
        if request.url.scheme not in ("http", "https"):
            raise StorageError(
                f"{self.access.location} redirects to {request.url.scheme}://, which is not the URL of a web server",
                hint="give a URL from which the archive itself comes",
            )
        if request.url != self._url:
            self._asked = netloc
        if request.url.scheme != "https" and not is_loopback(host) and netloc not in self._insecure_hosts:
            raise StorageError(
                f"{self.access.location} redirects to {netloc} over plain HTTP", hint="give the URL of its target"
            )

    def _check(self, response: httpx.Response) -> None:
        if response.status_code in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            return
        body = next(response.iter_raw(1 << 14), b"").decode(errors="replace")
        answer = ErrorResponse.from_text(response.status_code, body)
        if not answer.code:
            answer = ErrorResponse(status=response.status_code, message=response.reason_phrase)
        error = refused(self.access, answer)
        if answer.is_retryable:
            raise RetryableError(error, retry_after=read_retry_after(response.headers))
        raise error

    def _opened(self, response: httpx.Response, offset: int) -> Opened:
        headers = response.headers
        length = headers.get("content-length", "")
        start, size = 0, int(length) if re.fullmatch(_NUMBER, length) else None
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            match = _RANGE.fullmatch(headers.get("content-range", ""))
            if match is None or int(match[1]) != offset:
                given = without_queries(headers.get("content-range", "no range"))
                raise StorageError(f"{self.access.store!r} was asked for the bytes from {offset} on, and gave {given}")
            start, size = offset, None if match[2] == "*" else int(match[2])
        else:
            self._checksums = best_checksum(from_headers({name.lower(): value for name, value in headers.items()}))
        return Opened(start=start, size=size, validator=_validator(headers), chunks=response.iter_raw())


def _validator(headers: httpx.Headers) -> str:
    """Return a strong ETag, else the date: a weak ETag doesn't tell versions apart byte by byte."""
    etag = headers.get("etag", "")
    return etag if etag.startswith('"') else str(headers.get("last-modified", ""))


def _conditions(offset: int, validator: str) -> dict[str, str]:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if validator:
        headers["If-Match" if validator.startswith('"') else "If-Unmodified-Since"] = validator
    return headers


def _login(environ: Mapping[str, str]) -> tuple[httpx.Auth | None, str]:
    """Return the logins of the user's .netrc (or what NETRC names), if there is such a file, and how to name them."""
    try:
        return httpx.NetRCAuth(environ.get("NETRC") or None), "the login of .netrc"
    except FileNotFoundError:
        return None, "anonymous access"
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        log.warning("the .netrc file is not used: it can't be read (%s)", type(error).__name__)
        return None, "anonymous access"
