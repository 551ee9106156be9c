"""The certificate authorities for stores."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import certifi

from packager.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def authorities(ca_file: Path | None, environ: Mapping[str, str]) -> str | None:
    """Return the PEM text of the authorities that are trusted besides the system's: `ca_file` and SSL_CERT_FILE.

    Raises:
        UsageError: A file can't be read or holds no certificate.
    """
    named = {"PACKAGER_CA_FILE": ca_file, "SSL_CERT_FILE": environ.get("SSL_CERT_FILE")}
    texts = [_read(name, Path(path)) for name, path in named.items() if path]
    return "\n".join(texts) or None


def ssl_context(pem: str | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and these."""
    context = ssl.create_default_context()
    if pem is not None:
        context.load_verify_locations(cadata=pem)
    return context


def write_bundle(pem: str | None, workspace: Path) -> str | None:
    """Write a file with the public authorities and these, for clients that only accept a file."""
    if pem is None:
        return None
    bundle = workspace / "authorities.pem"
    bundle.write_text(f"{Path(certifi.where()).read_text(encoding='ascii')}\n{pem}", encoding="utf-8")
    return str(bundle)


def _read(name: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        ssl.create_default_context().load_verify_locations(cadata=text)
    except (OSError, UnicodeDecodeError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(
            f"{name}: {path} can't be read as PEM certificates: {reason}", hint="name a file with PEM certificates"
        ) from error
    return text
