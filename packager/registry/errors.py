"""What a registry's answer, or its silence, means: one of our errors."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from packager.errors import (
    ImageNotFoundError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.logs.sanitize import sanitize
from packager.models.image import DOCKER_MANIFEST
from packager.registry.response_limits import MOST_ERROR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import httpx

    from packager.models.reference import Reference

_PLAIN_ANSWER = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
# X.509 verification results: docs.openssl.org/master/man3/X509_STORE_CTX_get_error
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_REFUSED = "CERTIFICATE_VERIFY_FAILED"
# Of a registry that lets no tag be replaced: Amazon ECR (moby/buildkit#3776), Harbor (412, goharbor/harbor#18792),
# Nexus (GoogleContainerTools/jib#3057), Docker Hub (403, docker/hub-feedback#2466)
_KEEPS_TAGS = ("immutab", "cannot be overwritten", "does not allow updating", "already exists")
_KEEPS_TAGS_STATUSES = (409, 412)
_WRONG_FORMAT = ("media type", "mediatype", "content type", "content-type", "schema version")
BEHIND_PROXY = (
    "the registry's operator lets it know that it is reached in HTTPS: by X-Forwarded-Proto from the proxy before it, "
    "or by its own setting (Harbor's external_url or externalURL)"
)
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")  # alerts sent to us

Verb = Literal["pull", "push"]


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """What a registry was asked for, and as whom.

    Attributes:
        verb: Whether it's for a pull or for a push.
        reference: The image.
        user: Who we said we are; empty for nobody.
    """

    verb: Verb
    reference: Reference
    user: str = ""

    def __str__(self) -> str:
        """Return it as the start of a message."""
        return f"{self.verb} of {self.reference}"


def refusal(context: RequestContext, response: httpx.Response, body: bytes) -> PackagerError:
    """Say what a status other than success means."""
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


def keeps_tags(response: httpx.Response, body: bytes) -> bool:
    """Tell whether a manifest may have been refused because its tag names another one, for good."""
    code, cause = _cause(response, body)
    text = cause.lower()
    return any(words in text for words in _KEEPS_TAGS) or (
        (response.status_code in _KEEPS_TAGS_STATUSES or code == "TAG_INVALID") and "quota" not in text
    )


def manifest_refusal(
    context: RequestContext, response: httpx.Response, body: bytes, *, media_type: str, stored: str
) -> PackagerError:
    """Say why a manifest was refused; `stored` is the digest of what its tag names and can't be replaced, or empty."""
    code, cause = _cause(response, body)
    host, docker_format = context.reference.host, "set PACKAGER_IMAGE_FORMAT=docker, for docker's format"
    if media_type == DOCKER_MANIFEST:
        docker_format = "leave PACKAGER_IMAGE_FORMAT at oci"
    if stored or "immutab" in cause.lower():
        return RegistryError(
            f"{context} failed: {context.reference.repository} has the tag {context.reference.tag} already, and its "
            f"registry lets no tag be replaced (immutable tags): {cause}",
            hint="push with another tag: a new version, or {{ RandomUUID }} in imageName",
        )
    if response.status_code == 415 or any(words in cause.lower() for words in _WRONG_FORMAT):  # noqa: PLR2004
        return RegistryError(
            f"{context} failed: the registry {host} doesn't accept manifests of the type {media_type}: {cause}",
            hint=docker_format,
        )
    error = refusal(context, response, body)
    if code == "MANIFEST_INVALID":
        error.hint = f"{error.hint}; if it doesn't know this manifest format, {docker_format}"
    return error


def insecure_token_service(context: RequestContext, realm: httpx.URL) -> RegistryAuthError:
    """Say that a registry in HTTPS wants the login to be sent in plain HTTP."""
    return RegistryAuthError(
        f"{context}: the registry {context.reference.host} is reached in HTTPS, but names a token service "
        f"in plain HTTP, {_origin(realm)}, to which no login is sent",
        hint=BEHIND_PROXY,
    )


def unknown_login(context: RequestContext, schemes: Sequence[str]) -> RegistryAuthError:
    """Say that a registry lets nobody in with a password or a token."""
    return RegistryAuthError(
        f"{context}: the registry {context.reference.host} offers no login with a password or a token, but only: "
        f"{sanitize(', '.join(schemes))}",
        hint="the registry's operator offers Basic or Bearer besides, or another name or port that does",
    )


def token_service_failure(context: RequestContext, response: httpx.Response, body: bytes) -> RegistryError:
    """Say that a token service answered neither with a token nor with a word about the login."""
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
            f"{start} refused the credentials: {cause}; none were sent, as no connection or docker config has some",
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
    """Say that the registry has no such image."""
    return ImageNotFoundError(
        f"the registry {reference.host} has no image {reference}", hint="check the name and tag of dockerfileBaseImage"
    )


def silence(context: RequestContext, error: httpx.TransportError) -> RegistryUnreachableError:
    """Say why no answer came."""
    host, cause = context.reference.host, sanitize(str(error) or type(error).__name__)
    refused = _find(error, ssl.SSLCertVerificationError)
    if isinstance(refused, ssl.SSLCertVerificationError):
        reason = getattr(refused, "verify_message", str(refused))  # there when it's OpenSSL's own
        return _untrusted(context, reason, getattr(refused, "verify_code", 0))
    if _REFUSED in str(error):
        return _untrusted(context, cause)
    if is_plain_answer(error):
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
            hint="name the registry as its certificate does, or let it have a certificate for this name",
        )
    return RegistryUnreachableError(
        f"{start} can't be trusted: {sanitize(reason)}",
        hint="name a PEM file with the authority that signed it in PACKAGER_CA_FILE",
    )


def is_tls_trouble(error: BaseException) -> bool:
    """Tell whether the two sides met, and TLS between them failed: it will fail again."""
    found = _find(error, ssl.SSLError)
    cut_off = isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or "UNEXPECTED_EOF" in str(error)
    return not cut_off and (found is not None or "[SSL" in str(error))


def is_plain_answer(error: BaseException) -> bool:
    """Tell whether something answered that speaks no TLS."""
    return any(word in str(error) for word in _PLAIN_ANSWER)


def _find(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    return next((each for each in _chain(error) if isinstance(each, kind)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _cause(response: httpx.Response, body: bytes) -> tuple[str, str]:
    """Return the registry's error code, empty where it gave none, and what to show of its answer."""
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
    """Read as much of a failure's body as counts."""
    return next(response.iter_raw(MOST_ERROR_BYTES), b"")


def cause(response: httpx.Response) -> str:
    """Return what may be shown of an answer that is no success; reads it."""
    return _cause(response, error_body(response))[1]
