"""The error that a registry's response, or a missing response, means; and bounds on the responses that are read."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx

from packager.errors import (
    ImageNotFoundError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.logs.sanitize import sanitize
from packager.models.image import DOCKER_MANIFEST
from packager.registry import quirks
from packager.system.retries import RetryableError, find_cause, is_plain_http_answer, read_retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from packager.models.reference import Reference

# X.509 verification results: docs.openssl.org/master/man3/X509_STORE_CTX_get_error
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_MAX_ERROR_BYTES = 1 << 16
_MAX_SECONDS = 60.0  # for a whole short response; httpx's own limit is for each read, so a slow trickle would never end
_REFUSED = "CERTIFICATE_VERIFY_FAILED"
BEHIND_PROXY = (
    "the registry's operator lets it know that it is reached in HTTPS: by X-Forwarded-Proto from the proxy before it, "
    "or by its own setting (Harbor's external_url or externalURL)"
)
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")  # alerts sent to us

Verb = Literal["pull", "push"]


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """The purpose of a request, for messages.

    Attributes:
        verb: Whether the request belongs to a pull or a push.
        reference: The image.
        user: The user name that was sent; empty for anonymous access.
    """

    verb: Verb
    reference: Reference
    user: str = ""

    def __str__(self) -> str:
        """Return it as the start of a message."""
        return f"{self.verb} of {self.reference}"


def refusal(context: RequestContext, response: httpx.Response, body: bytes) -> PackagerError:
    """Return the error for a status other than success."""
    host, (code, cause) = context.reference.host, _cause(response, body)
    if response.status_code in (401, 403):
        return _refused_login(context, f"{context}: the registry {host}", cause, status=response.status_code, code=code)
    if response.status_code == 404 and context.verb == "pull":  # noqa: PLR2004  (RFC 9110)
        return image_not_found(context.reference)
    if response.status_code == 429:  # noqa: PLR2004
        return RegistryError(
            f"{context}: the registry {host} limits the rate of requests: {cause}",
            hint="wait, or log in with a connection; PACKAGER_REGISTRY_RETRY_SECONDS is how long we wait",
        )
    if response.status_code == 413:  # noqa: PLR2004
        return RegistryError(
            f"{context}: the registry {host}, or a proxy before it, takes no requests of this size: {cause}",
            hint="raise the limit there (client_max_body_size of nginx, proxy-body-size of its ingress)",
        )
    hint = f"look into the log of {host}"
    if response.status_code >= 500 and context.verb == "push":  # noqa: PLR2004
        hint = f"the storage of {host} may be out of space or out of order: look into its log, then push again"
    return RegistryError(f"{context} failed: the registry {host} answered {_with_status(response, cause)}", hint=hint)


def status_error(context: RequestContext, response: httpx.Response, body: bytes) -> PackagerError | RetryableError:
    """Return the error for a status other than success: a retryable one where another attempt may succeed."""
    if response.status_code in quirks.RETRYABLE_STATUSES:
        return retryable(context, response, body)
    return refusal(context, response, body)


def retryable(context: RequestContext, response: httpx.Response, body: bytes) -> RetryableError:
    """Return the retryable error for a status other than success."""
    cause = f"{response.status_code} {response.reason_phrase}".strip()
    return RetryableError(refusal(context, response, body), cause=cause, retry_after=read_retry_after(response.headers))


def keeps_tags(response: httpx.Response, body: bytes) -> bool:
    """Tell whether a manifest may have been refused because its tag names another one and can't be replaced."""
    return quirks.keeps_tags(response.status_code, *_cause(response, body))


def manifest_refusal(
    context: RequestContext, response: httpx.Response, body: bytes, *, media_type: str, stored: str
) -> PackagerError:
    """Return the error for a refused manifest; `stored` is the digest of the one that keeps its tag, or empty."""
    code, cause = _cause(response, body)
    host, docker_format = context.reference.host, "set PACKAGER_IMAGE_FORMAT=docker, for docker's format"
    if media_type == DOCKER_MANIFEST:
        docker_format = "leave PACKAGER_IMAGE_FORMAT at oci"
    if stored or quirks.says_immutable(cause):
        return RegistryError(
            f"{context} failed: {context.reference.repository} has the tag {context.reference.tag} already, and its "
            f"registry lets no tag be replaced (immutable tags): {cause}",
            hint="push with another tag: a new version, or {{ RandomUUID }} in imageName",
        )
    if quirks.refuses_format(response.status_code, cause):
        return RegistryError(
            f"{context} failed: the registry {host} doesn't accept manifests of the type {media_type}: {cause}",
            hint=docker_format,
        )
    error = refusal(context, response, body)
    if code == "MANIFEST_INVALID":
        error.hint = f"{error.hint}; if it doesn't know this manifest format, {docker_format}"
    return error


def insecure_token_service(context: RequestContext, realm: httpx.URL) -> RegistryAuthError:
    """Return the error for a registry in HTTPS whose token service speaks plain HTTP."""
    return RegistryAuthError(
        f"{context}: the registry {context.reference.host} is reached in HTTPS, but names a token service "
        f"in plain HTTP, {_origin(realm)}, to which no login is sent",
        hint=BEHIND_PROXY,
    )


def unknown_login(context: RequestContext, schemes: Sequence[str]) -> RegistryAuthError:
    """Return the error for a registry that accepts neither a password nor a token."""
    return RegistryAuthError(
        f"{context}: the registry {context.reference.host} offers no login with a password or a token, but only: "
        f"{sanitize(', '.join(schemes))}",
        hint="the registry's operator offers Basic or Bearer besides, or another name or port that does",
    )


def token_service_failure(context: RequestContext, response: httpx.Response, body: bytes) -> RegistryError:
    """Return the error for a token service that failed for another reason than the login."""
    return RegistryError(
        f"{context}: the token service of the registry {context.reference.host}, {_origin(response.url)}, answered "
        f"{_with_status(response, _cause(response, body)[1])}",
        hint="look into its log; the registry's configuration names it",
    )


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode(errors='replace')}"


def _with_status(response: httpx.Response, cause: str) -> str:
    status = str(response.status_code)
    return cause if cause.startswith(status) else f"{status} {cause}"


def _refused_login(context: RequestContext, start: str, cause: str, *, status: int, code: str) -> RegistryAuthError:
    target = f"docker-{context.verb}"
    place = context.reference.repository
    if not context.user:
        return RegistryAuthError(
            f"{start} refused the credentials: {cause}; none were sent, as no connection or docker config has a login",
            hint=f"give the {target} target a connection for {context.reference.host} with user and password",
        )
    if status == 403 or code == "DENIED":  # noqa: PLR2004
        return RegistryAuthError(
            f"{start} refused the credentials of user {context.user!r} for this: {cause}",
            hint=f"let this user {context.verb} at {place}, or give the {target} target another connection",
        )
    return RegistryAuthError(
        f"{start} refused the credentials of user {context.user!r}: {cause}",
        hint=f"check user and password of the {target} target's connection, and that this user may {context.verb} "
        f"at {place}",
    )


def image_not_found(reference: Reference) -> ImageNotFoundError:
    """Return the error for a missing image."""
    return ImageNotFoundError(
        f"the registry {reference.host} has no image {reference}", hint="check the name and tag of dockerfileBaseImage"
    )


def unreachable(context: RequestContext, error: httpx.TransportError) -> RegistryUnreachableError:
    """Return the error for a request that got no response."""
    host, cause = context.reference.host, sanitize(str(error) or type(error).__name__)
    refused = find_cause(error, ssl.SSLCertVerificationError)
    if isinstance(refused, ssl.SSLCertVerificationError):
        reason = getattr(refused, "verify_message", str(refused))  # there when it's OpenSSL's own
        return _untrusted(context, reason, getattr(refused, "verify_code", 0))
    if _REFUSED in str(error):
        return _untrusted(context, cause)
    if is_plain_http_answer(error):
        return RegistryUnreachableError(
            f"{context}: the registry {host} speaks plain HTTP, and was asked in HTTPS",
            hint=f"if that is meant to be so, set PACKAGER_INSECURE_REGISTRIES={host}",
        )
    if any(word in str(error) for word in _WANTS_CERTIFICATE):
        return RegistryUnreachableError(
            f"{context}: the registry {host} didn't accept our TLS connection: {cause}",
            hint=f"if it asks for a client certificate, name it in PACKAGER_CLIENT_CERTIFICATES={host}=CERTIFICATE:KEY",
        )
    return RegistryUnreachableError(
        f"{context}: the registry {host} can't be reached: {cause}",
        hint="check its name and port, the network, and the proxy variables",
    )


def _untrusted(context: RequestContext, reason: str, code: int = 0) -> RegistryUnreachableError:
    start = f"{context}: the certificate of {context.reference.host}"
    if code == _EXPIRED:
        return RegistryUnreachableError(f"{start} has expired", hint="renew it on the registry; check this clock too")
    if code == _NOT_YET_VALID:
        return RegistryUnreachableError(f"{start} is not valid yet", hint="check the clocks here and there")
    if code in (_WRONG_NAME, _WRONG_ADDRESS):
        return RegistryUnreachableError(
            f"{start} is for another name: {sanitize(reason)}",
            hint="use the host name in the certificate, or give the registry a certificate for this name",
        )
    return RegistryUnreachableError(
        f"{start} can't be trusted: {sanitize(reason)}",
        hint="name a PEM file with the authority that signed it in PACKAGER_CA_FILE",
    )


def _cause(response: httpx.Response, body: bytes) -> tuple[str, str]:
    """Return the registry's error code, empty where it gave none, and the part of its response to show."""
    try:
        document: Any = json.loads(body)
        first = document["errors"][0]
        code, detail = str(first["code"]), first.get("detail")
        text = f"{code}: {first.get('message') or response.reason_phrase}"
        return code, sanitize(f"{text}: {detail}" if detail and isinstance(detail, str) else text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", sanitize(f"{response.status_code} {response.reason_phrase}".strip())


def code(response: httpx.Response, body: bytes) -> str:
    """Return the registry's error code, empty where it gave none."""
    return _cause(response, body)[0]


def error_body(response: httpx.Response) -> bytes:
    """Read the first bytes of an error response."""
    return next(response.iter_raw(_MAX_ERROR_BYTES), b"")


def cause(response: httpx.Response) -> str:
    """Read an error response, and return the part to show."""
    return _cause(response, error_body(response))[1]


class _Limited(httpx.SyncByteStream):
    """The first bytes of a stream."""

    def __init__(self, stream: httpx.SyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def __iter__(self) -> Iterator[bytes]:
        end = time.monotonic() + _MAX_SECONDS
        for chunk in self._stream:
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the response did not end within {_MAX_SECONDS:.0f} s")
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                return

    def close(self) -> None:
        self._stream.close()


def limit_body(response: httpx.Response, limit: int) -> None:
    """Let at most `limit` bytes of a response be read, and cut off the rest.

    Reading raises httpx.ReadTimeout when it takes more than 60 seconds.
    """
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Limited(response.stream, limit)


def limit_error_body(response: httpx.Response) -> None:
    """Limit the body of a response that is no success: errors, challenges, redirects. An httpx event hook."""
    if not response.is_success:
        limit_body(response, _MAX_ERROR_BYTES)
