"""An object in S3, Google Cloud Storage or Azure Blob Storage, by obstore."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import httpx
import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from packager.errors import StorageAuthError, StorageError
from packager.sources.stores.checksums import Checksum, best_checksum, from_headers
from packager.sources.stores.location import is_loopback
from packager.sources.stores.store import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Access,
    ErrorResponse,
    Opened,
    is_untrusted,
    refused,
    unreachable,
    without_queries,
)
from packager.sources.stores.tls import ssl_context
from packager.system.event_loop import FutureLoop
from packager.system.proxies import ProxyTransport
from packager.system.retries import RetryableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from obstore import BytesStream, GetOptions
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

log = logging.getLogger(__name__)
_T = TypeVar("_T")

ONCE: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=READ_SECONDS)}  # the download retries
# A cut connection loses the buffered bytes, so there are few. Each chunk costs about 0.3 ms (measured: 2 GiB over TLS
# took 40 s of processor time in TLS's own chunks of 16 kB, and 10 s in these).
_CHUNK = 256 << 10
_STATUS = re.compile(r"status code: (\d{3})")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_TIMED_OUT = re.compile(r"\b(kind: Timeout|TimedOut)\b")
_REASON = re.compile(r'\b(?:message|error): "([^"]+)"')
_LONGEST = timedelta(days=7)  # for the whole response; a broken connection is noticed by the time between two bytes
_STATUSES: dict[type[Exception], int] = {
    FileNotFoundError: 404,
    PermissionDeniedError: 403,
    UnauthenticatedError: 401,
    PreconditionError: 412,
}


@dataclass(frozen=True, kw_only=True)
class ClientEnvironment:
    """The surroundings of a store's client.

    Attributes:
        environ: The environment's variables.
        authorities: The PEM text of authorities that are trusted besides the system's.
        workspace: A private folder.
    """

    environ: Mapping[str, str]
    authorities: str | None
    workspace: Path

    def client_options(self, endpoint: str | None) -> ClientConfig:
        """Return the options of obstore's client for an endpoint; None means the public one."""
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=READ_SECONDS),
            "timeout": _LONGEST,
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        }
        if self.authorities is not None:
            options["root_certificate"] = self.authorities
        host = urlsplit(endpoint or "").hostname or ""
        if is_loopback(host):
            # There is no option to use no proxy: an unused proxy hides the variables.
            options["proxy_url"], options["proxy_excludes"] = "http://127.0.0.1:9", host
        return options


@dataclass(frozen=True, kw_only=True)
class OpenedStore:
    """A bucket that can be read.

    Attributes:
        store: obstore's store.
        access: The object and the credential, for messages.
        checksums: Asks the store for the checksums of the object with this ETag; may raise anything.
    """

    store: S3Store | GCSStore | AzureStore
    access: Access
    checksums: Callable[[str], list[Checksum]]


class ObjectSource:
    """One object. Close it, as with `contextlib.closing`.

    obstore's futures are awaited one by one on a loop of our own: its blocking calls would keep a signal waiting for as
    long as a store is silent.
    """

    def __init__(self, opened: OpenedStore, key: str) -> None:
        """Name the object."""
        self.access = opened.access
        self._opened = opened
        self._key = key
        self._etag = ""
        self._loop = FutureLoop()

    def close(self) -> None:
        """Cancel what is unfinished."""
        self._loop.end()

    def checksums(self) -> list[Checksum]:
        """Return the store's checksum of the object, if it gives one; the log says if it can't be asked."""
        try:
            return best_checksum(self._opened.checksums(self._etag))
        except Exception as error:  # noqa: BLE001  (boto3's, httpx' and obstore's; the size is still checked)
            log.debug("can't get a checksum of %s: %s", self.access.location, without_queries(first_line(error)))
            return []

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Opened]:
        """Ask for the bytes from `offset` on; see `Source`."""
        options: GetOptions = {}
        if offset:
            options["range"] = {"offset": offset}
        if validator:
            options["if_match"] = validator
        try:
            result = self._wait(lambda: obstore.get_async(self._opened.store, self._key, options=options))
            meta, start = result.meta, result.range[0]
        except (BaseError, FileNotFoundError, ValueError, TypeError) as error:
            raise read_failure(error, self.access) from error
        self._etag = meta["e_tag"] or ""
        chunks = self._chunks(result.stream(min_chunk_size=_CHUNK))
        yield Opened(start=start, size=meta["size"], validator=self._etag, chunks=chunks)

    def _chunks(self, stream: BytesStream) -> Iterator[bytes]:
        try:
            while (chunk := self._wait(lambda: _next(stream))) is not None:
                yield chunk
        except BaseError as error:
            raise read_failure(error, self.access) from error

    def _wait(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        async def wait() -> _T:
            return await ask()

        return self._loop.run_until_complete(wait())


async def _next(stream: BytesStream) -> bytes | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None


def read_failure(error: Exception, access: Access) -> Exception:
    """Return the error that an error of obstore means; its own text holds the whole URL and is never shown.

    obstore doesn't pass on how long the store asks to wait.
    """
    text, _, details = str(error).partition("Debug source:")
    found = _STATUS.search(text)
    status = int(found[1]) if found else next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 0)
    if isinstance(error, InvalidPathError | TypeError | ValueError):
        return StorageError(f"{access.location} has an invalid key", hint="rename the object")
    by_store = found or not isinstance(error, UnauthenticatedError | PermissionDeniedError)
    if not by_store or re.search(r"\b(TokenRequest|TokenResponseBody|ManagedIdentity|Credential) \{", details):
        return _no_credentials(error, access, ErrorResponse.from_text(status, text))
    if status:
        answer = ErrorResponse.from_text(status, text)
        failure = refused(access, answer)
        return RetryableError(failure) if answer.is_retryable else failure
    cause = first_line(error)
    if "HttpError" in details:
        reason = _reason(cause, details)
        failure = unreachable(access, reason)
        return failure if is_untrusted(reason) else RetryableError(failure)
    return _no_credentials(error, access, ErrorResponse(status=0))


def _no_credentials(error: Exception, access: Access, answer: ErrorResponse) -> Exception:
    failure = StorageAuthError(
        f"{access.location} can't be requested: {access.credential} gives no credentials: "
        f"{without_queries(first_line(error))}",
        hint="check the connection, or the environment's credentials for this store",
    )
    return RetryableError(failure) if answer.is_retryable else failure


def _reason(cause: str, details: str) -> str:
    """Return the cause of a broken connection, from obstore's debug report."""
    if certificate := _CERTIFICATE.search(details):
        return f"invalid certificate: {certificate[1]}"
    if _TIMED_OUT.search(details):
        return "no answer in time"
    reasons = _REASON.findall(details)
    return f"{cause}: {reasons[-1]}" if reasons else cause


def first_line(error: Exception) -> str:
    """Return the error without obstore's debug report and without the URL, which our message has."""
    text = str(error).partition("Debug source:")[0].strip() or type(error).__name__
    return re.sub(r"Error performing [A-Z]+ \S+ in \S+( -)? ", "", text)


def signed_headers(
    store: GCSStore | AzureStore, key: str, etag: str, environment: ClientEnvironment, *, url: str | None = None
) -> list[Checksum]:
    """Return the checksums in an object's headers, by a signed URL or by `url`: obstore passes on only some headers.

    Raises:
        Exception: The credential can't sign, or the store doesn't answer.
    """
    address = url or obstore.sign(store, "HEAD", key, expires_in=timedelta(minutes=5))
    transport = ProxyTransport(ssl_context(environment.authorities))
    with httpx.Client(transport=transport, trust_env=False, timeout=READ_SECONDS) as client:
        answer = client.head(address, headers={"Accept-Encoding": "identity"}).raise_for_status()
    if etag and answer.headers.get("etag") != etag:
        return []
    return from_headers({name.lower(): value for name, value in answer.headers.items()})
