"""What a store's answer, or its silence, means: one of our errors, and whether to ask again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.errors import ArtifactError, PackagerError, StorageAuthError, StorageError, StorageUnreachableError
from packager.logs.sanitize import sanitize

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
_NEVER_AGAIN = (501, 505)
_NOT_FOUND, _UNAUTHORIZED, _FORBIDDEN, _PRECONDITION, _SERVER_ERROR = 404, 401, 403, 412, 500


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who asks for what, for messages; nothing secret in it.

    Attributes:
        location: The object as it may be shown.
        store: The bucket, container or host.
        credential: What is asked with, e.g. `connection 'models'`.
        permission: What that credential must be allowed to do.
    """

    location: str
    store: str
    credential: str
    permission: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a store answered other than the object; `code` and `message` as its document has them."""

    status: int
    code: str = ""
    message: str = ""

    @classmethod
    def from_text(cls, status: int, text: str) -> Answer:
        """Read the `<Code>` and `<Message>` of S3's, Google's and Azure's error documents."""
        found = {name: match[1] for name, tag in _TAG.items() if (match := tag.search(text))}
        return cls(status=status, code=found.get("Code", ""), message=found.get("Message", ""))

    @property
    def is_retryable(self) -> bool:
        """Tell whether the same request may well succeed a moment later."""
        if self.code in _BUSY or self.status in _BUSY_STATUS:
            return True
        return self.status >= _SERVER_ERROR and self.status not in _NEVER_AGAIN

    def __str__(self) -> str:
        """Return it as it may be shown."""
        return without_queries(" ".join(word for word in (str(self.status), self.code, self.message) if word))


class RetryableError(Exception):
    """Something that may well succeed when it's tried again, with the error to raise when it doesn't.

    Attributes:
        error: What to raise after the last try.
        wait: Seconds that the store asks to wait, if it said so.
    """

    def __init__(self, error: PackagerError, *, wait: float | None = None) -> None:
        """Keep the error."""
        super().__init__(error.message)
        self.error = error
        self.wait = wait


def refused(access: Access, answer: Answer) -> PackagerError:
    """Say what an answer other than the object means."""
    if answer.code in _NO_BUCKET:
        return ArtifactError(
            f"there is no bucket {access.store!r}, which the model {access.location} should lie in",
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
            f"the bucket {access.store!r} lies in another region than was asked: {answer}",
            hint="name the bucket's region in the connection, or in AWS_REGION",
        )
    return _denied(access, answer) or StorageError(
        f"{access.location} can't be fetched: {access.store!r} answered {answer}", hint="look into the store's log"
    )


def _denied(access: Access, answer: Answer) -> StorageAuthError | None:
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
    """Say that the object is another one than at the download's beginning."""
    return ArtifactError(
        f"{access.location} was changed while it was fetched", hint="run it again, when nobody writes to it"
    )


def unreachable(access: Access, cause: str) -> StorageUnreachableError:
    """Say why no answer came, or not all of it."""
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
    """Tell whether a certificate was refused, which no second try mends."""
    return re.search(r"certificate|CERTIFICATE_VERIFY", cause) is not None


def without_queries(text: str) -> str:
    """Return a text from outside as one short line, without the queries of its URLs: they hold signatures."""
    return sanitize(_QUERY.sub(r"\1", text))
