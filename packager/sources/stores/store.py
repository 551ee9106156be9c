"""A store as the download sees it: an object whose bytes it gives, its error responses, and the errors they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packager.errors import ArtifactError, PackagerError, StorageAuthError, StorageError, StorageUnreachableError
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from packager.sources.stores.checksums import Checksum

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0  # without a byte, after which a connection counts as broken
_QUERY = re.compile(r"(https?://[^\s?\"')]+)\?[^\s\"')]*")
_TAG = {name: re.compile(rf"<{name}>([^<]*)</{name}>") for name in ("Code", "Message")}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed")
_BAD_KEY = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "AuthenticationFailed",
    "UnrecognizedClientException", "InvalidSecurity",
)  # fmt: skip
_REGION = (
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
)
_BUSY = ("SlowDown", "RequestTimeout", "InternalError", "ServerBusy", "Throttling", "ThrottlingException")
_BUSY_STATUS = (408, 425, 429)
_PERMANENT = (501, 505)
_NOT_FOUND, _UNAUTHORIZED, _FORBIDDEN, _PRECONDITION, _SERVER_ERROR = 404, 401, 403, 412, 500


@dataclass(frozen=True, kw_only=True)
class Access:
    """The object and the credential of a request, for messages; it holds no secret.

    Attributes:
        location: The object, without a query.
        store: The bucket, container or host.
        credential: The credential's name, e.g. `connection 'models'`.
        permission: The permission that the credential needs.
    """

    location: str
    store: str
    credential: str
    permission: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An object that is being read.

    Attributes:
        start: The offset of the first byte: the requested one, or 0 where the store can't start later.
        size: The whole object's size, where it is known.
        validator: Identifies this version of the object (an ETag or a date); empty if the store gives none.
        chunks: The bytes.
    """

    start: int
    size: int | None
    validator: str
    chunks: Iterator[bytes]


class Source(Protocol):
    """An object in a store."""

    access: Access

    def open(self, offset: int, validator: str) -> AbstractContextManager[Opened]:
        """Ask for the bytes from `offset` on, of that version if a validator is given.

        Raises:
            RetryableError: Another attempt may succeed; also raised while the bytes come.
            ArtifactError: There is no such object, or it was changed.
            StorageError: The store refuses.
        """

    def checksums(self) -> list[Checksum]:
        """Return the store's checksums of the opened object, if it gives any."""


@dataclass(frozen=True, kw_only=True)
class ErrorResponse:
    """A store's response other than the object, with `code` and `message` of its error document."""

    status: int
    code: str = ""
    message: str = ""

    @classmethod
    def from_text(cls, status: int, text: str) -> ErrorResponse:
        """Read the `<Code>` and `<Message>` of S3's, Google's and Azure's error documents."""
        found = {name: match[1] for name, tag in _TAG.items() if (match := tag.search(text))}
        return cls(status=status, code=found.get("Code", ""), message=found.get("Message", ""))

    @property
    def is_retryable(self) -> bool:
        """Tell whether the same request may succeed a moment later."""
        if self.code in _BUSY or self.status in _BUSY_STATUS:
            return True
        return self.status >= _SERVER_ERROR and self.status not in _PERMANENT

    def __str__(self) -> str:
        """Return it for messages."""
        return without_queries(" ".join(word for word in (str(self.status), self.code, self.message) if word))


def refused(access: Access, answer: ErrorResponse) -> PackagerError:
    """Return the error for a response other than the object."""
    if answer.code in _NO_BUCKET:
        return ArtifactError(
            f"there is no bucket {access.store!r} for the model {access.location}",
            hint="check the bucket's name, the connection's uri, and the account or region",
        )
    if answer.status == _NOT_FOUND:
        key = access.location.partition("://")[2].partition("/")[2]
        return ArtifactError(
            f"there is no object {key!r} in {access.store!r}: the model {access.location} is missing",
            hint="check the key (upper and lower case count), and that the training has stored its archive",
        )
    if answer.status == _PRECONDITION:
        return changed(access)
    if answer.code in _REGION:
        return StorageError(
            f"the bucket {access.store!r} is in another region: {answer}",
            hint="name the bucket's region in the connection, or in AWS_REGION",
        )
    return _denied(access, answer) or StorageError(
        f"{access.location} can't be fetched: {access.store!r} answered {answer}", hint="look into the store's log"
    )


def _denied(access: Access, answer: ErrorResponse) -> StorageAuthError | None:
    if answer.code in _EXPIRED:
        return StorageAuthError(
            f"{access.store!r} refused {access.credential} for {access.location}: it has expired ({answer})",
            hint="renew the credentials, and check this machine's clock",
        )
    if answer.code in _BAD_KEY or answer.status == _UNAUTHORIZED:
        return StorageAuthError(
            f"{access.store!r} doesn't accept {access.credential} for {access.location}: {answer}",
            hint="check its key and secret",
        )
    if answer.status == _FORBIDDEN:
        return StorageAuthError(
            f"{access.store!r} denies {access.credential} access to {access.location}: {answer}",
            hint=f"grant it {access.permission}; some stores also answer so when the object is missing",
        )
    return None


def changed(access: Access) -> ArtifactError:
    """Return the error for an object that was replaced since the download began."""
    return ArtifactError(
        f"{access.location} was changed while it was fetched", hint="run it again when the upload is complete"
    )


def unreachable(access: Access, cause: str) -> StorageUnreachableError:
    """Return the error for a missing or broken response."""
    if is_untrusted(cause):
        return StorageUnreachableError(
            f"the certificate of the store {access.store!r} can't be trusted: {without_queries(cause)}",
            hint="name its authority's PEM file in PACKAGER_CA_FILE (or SSL_CERT_FILE)",
        )
    return StorageUnreachableError(
        f"{access.location} can't be fetched: {access.store!r} can't be reached: {without_queries(cause)}",
        hint="check the host or endpoint, the network, and the proxy variables",
    )


def is_untrusted(cause: str) -> bool:
    """Tell whether a certificate was refused, which is not retryable."""
    return re.search(r"certificate|CERTIFICATE_VERIFY", cause) is not None


def without_queries(text: str) -> str:
    """Sanitize a text from outside, and remove the queries of its URLs: they hold signatures."""
    return sanitize(_QUERY.sub(r"\1", text))
