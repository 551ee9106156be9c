"""What a registry's answer, or its silence, means: one of our errors."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

from packager.errors import (
    ImageNotFoundError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)

if TYPE_CHECKING:
    import httpx

    from packager.models.reference import Reference

_MOST_CHARACTERS = 300
_PLAIN_ANSWER = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def refusal(reference: Reference, response: httpx.Response, body: bytes) -> PackagerError:
    """Say what a status other than success means for the pull of `reference`."""
    host, cause = reference.host, _cause(response, body)
    what = f"pull of {reference}"
    if response.status_code in (401, 403):
        return RegistryAuthError(
            f"{what}: the registry {host} refused the credentials: {cause}",
            hint=f"check user and password of the connection for {host}, and that this user may pull there",
        )
    if response.status_code == 404:  # noqa: PLR2004  (RFC 9110)
        return image_not_found(reference)
    if response.status_code == 429:  # noqa: PLR2004
        return RegistryError(
            f"{what}: the registry {host} limits the rate of requests: {cause}",
            hint="wait, or log in with a connection",
        )
    return RegistryError(f"{what} failed: the registry {host} answered {cause}", hint=f"look into the log of {host}")


def image_not_found(reference: Reference) -> ImageNotFoundError:
    """Say that the registry has no such image."""
    return ImageNotFoundError(
        f"the registry {reference.host} has no image {reference}", hint="check the name and tag of dockerfileBaseImage"
    )


def silence(reference: Reference, error: httpx.TransportError) -> RegistryUnreachableError:
    """Say why no answer came."""
    host, cause = reference.host, _shown(str(error) or type(error).__name__)
    what = f"pull of {reference}"
    if is_untrusted(error):
        return RegistryUnreachableError(
            f"{what}: the certificate of {host} can't be trusted: {cause}",
            hint="put its authority into the file named by SSL_CERT_FILE",
        )
    if any(word in str(error) for word in _PLAIN_ANSWER):
        return RegistryUnreachableError(
            f"{what}: the registry {host} speaks plain HTTP, and was asked in HTTPS",
            hint=f"if that is meant to be so, set PACKAGER_INSECURE_REGISTRIES={host}",
        )
    return RegistryUnreachableError(
        f"{what}: the registry {host} can't be reached: {cause}",
        hint="check its name and port, the network, and the proxy variables",
    )


def is_untrusted(error: BaseException | None) -> bool:
    """Tell whether a certificate was refused, here or in what led here."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(response: httpx.Response, body: bytes) -> str:
    try:
        document: Any = json.loads(body)
        first = document["errors"][0]
        text = f"{first['code']}: {first.get('message') or response.reason_phrase}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        text = f"{response.status_code} {response.reason_phrase}".strip()
    return _shown(text)


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "…"
