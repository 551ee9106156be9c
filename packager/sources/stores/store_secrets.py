"""The secrets of stores to redact: signatures, keys, and those in the environment."""

from __future__ import annotations

import base64
import json
import netrc
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from packager.logs.redaction import secrets_of_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRET_NAME = re.compile(r"sig|token|credential|key|password|secret|auth", re.IGNORECASE)
_LONG = 16  # a query value with so many characters counts as a secret, whatever its name
_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def environment_secrets(environ: Mapping[str, str]) -> list[str]:
    """Return the secrets that the stores' own variables and those of the proxies hold."""
    held = [environ[name] for name in _SECRET_VARIABLES if environ.get(name)]
    proxies = [value for name, value in environ.items() if name.lower() in _PROXIES]
    return [*held, *(secret for proxy in proxies for secret in secrets_of_url(proxy))]


def netrc_secrets(environ: Mapping[str, str]) -> list[str]:
    """Return the passwords of the user's .netrc (or NETRC's file), each also as HTTP sends it (RFC 7617).

    A file that is missing or can't be read has none: its logins aren't sent either.
    """
    try:
        hosts = netrc.netrc(environ.get("NETRC") or None).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return []
    held = {(login, password) for login, _, password in hosts.values() if password}
    sent = [base64.b64encode(f"{login}:{password}".encode()).decode() for login, password in held]
    return [*(password for _, password in held), *sent]


def secrets_of_query(query: str) -> list[str]:
    """Return a URL's query and those of its values that may be secret, encoded as they are and decoded."""
    values = [value for name, value in parse_qsl(query) if _SECRET_NAME.search(name) or len(value) >= _LONG]
    raw = [pair.partition("=")[2] for pair in query.split("&")]
    return [text for text in (query, *values, *(value for value in raw if unquote(value) in values)) if text]


def private_key(text: str) -> list[str]:
    """Return the private key in a service account's JSON, as a whole and line by line."""
    try:
        key = str(json.loads(text)["private_key"])
    except (ValueError, KeyError, TypeError):
        return []
    return [key, *(line for line in key.splitlines() if "-----" not in line)]
