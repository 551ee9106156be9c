"""The URL of the API service and the token for it, read by the Jupyter server and never sent to a browser."""

from __future__ import annotations

import configparser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packager.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HINT = "set PACKAGER_API_URL and PACKAGER_API_TOKEN_FILE for the Jupyter server, or log in with `odahuflowctl login`"


@dataclass(frozen=True, kw_only=True)
class Access:
    """The URL of the service and the token for it.

    Attributes:
        url: Without the API's base path and without a trailing slash.
        token: None for a service without authentication.
    """

    url: str
    token: str | None = field(default=None, repr=False)


def find_access(environ: Mapping[str, str]) -> Access:
    """Read `PACKAGER_API_URL` with `PACKAGER_API_TOKEN` or `_TOKEN_FILE`, else the ODAHU client's configuration.

    URL and token always come from the same source, so that no token is sent to another service. Files are read on each
    call, so that a new login or a renewed token needs no restart. The client's file is an INI file with `api_url` and
    `api_token` in its section `general`: `~/.odahuflow/config`, or the file that `ODAHUFLOW_CONFIG` names.

    Raises:
        ServiceError: The URL is missing or invalid, or a file is unreadable.
    """
    if url := environ.get("PACKAGER_API_URL", "").strip():
        return Access(url=_checked(url, "PACKAGER_API_URL"), token=_token(environ))
    home = environ.get("HOME")
    named = environ.get("ODAHUFLOW_CONFIG")
    if named or home:
        path = Path(named) if named else Path(str(home)) / ".odahuflow" / "config"
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ServiceError(f"cannot read {path}: {error.strerror}", hint=_HINT, status=503) from error
        except (configparser.Error, UnicodeDecodeError):  # not quoted: the file contains a token
            raise ServiceError(
                f"{path} is not a configuration file of the ODAHU client",
                hint="log in again with `odahuflowctl login`",
                status=503,
            ) from None
        if url := parser.get("general", "api_url", fallback="").strip():
            token = parser.get("general", "api_token", fallback="").strip()
            return Access(url=_checked(url, f"api_url in {path}"), token=token or None)
    raise ServiceError("no API service is configured", hint=_HINT, status=503)


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("PACKAGER_API_TOKEN", "").strip():
        return token
    if not (path := environ.get("PACKAGER_API_TOKEN_FILE", "")):
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ServiceError(
            f"cannot read PACKAGER_API_TOKEN_FILE {path}: {reason}",
            hint="check the path and its permissions",
            status=503,
        ) from error


def _checked(url: str, where: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ServiceError(
            f"{where} is not a service URL", hint="use a URL such as https://packager.example.com", status=503
        )
    return url.rstrip("/")
