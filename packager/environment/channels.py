"""Conda channels: URLs of channel names, mirrors, and credentials in URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import SecretStr

from packager.errors import DependenciesError, UsageError
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from pathlib import Path

    from packager.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*", re.ASCII)
_ANACONDA = "https://repo.anaconda.com"
_SCHEMES = ("https://", "http://", "file://", "s3://", "oci://")
_PATH_TOKEN = re.compile(r"^/t/([^/]+)(?=/|$)")
_USER_INFO = re.compile(r"(?<=://)[^/\s]+@")
_TOKEN_IN_TEXT = re.compile(r"(?<=/t/)[^/\s'\"]+")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]")


@dataclass(frozen=True, kw_only=True)
class Credential:
    """Credentials for a channel's host: user and password, a bearer token, or conda's token in the path."""

    host: str
    kind: str
    user: str = ""
    secret: SecretStr

    def as_auth_entry(self) -> dict[str, object]:
        """Return the entry of rattler's authentication file (rattler_networking, `Authentication`)."""
        secret = self.secret.get_secret_value()
        if self.kind == "basic":
            return {"BasicHTTP": {"username": self.user, "password": secret}}
        return {"BearerToken" if self.kind == "bearer" else "CondaToken": secret}


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel: `url` names it in locks and images; packages come from `fetch_url`, which may be a mirror."""

    url: str
    fetch_url: str

    @property
    def public(self) -> str:
        """The URL that may go into an image.

        A channel in a folder keeps only the folder's name: its path is valid on this machine only.
        """
        if self.url.startswith("file://"):
            return f"file:///{self.url.rstrip('/').rpartition('/')[2]}"
        return self.url


def split_credential(url: str) -> tuple[str, Credential | None]:
    """Split `user:password@` or `/t/TOKEN` off a URL.

    Raises:
        DependenciesError: It has both, but a request supports only one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.password is not None or parts.username:
        if _PATH_TOKEN.match(parts.path):
            raise DependenciesError(
                f"the channel {sanitize(without_credentials(url))} has both a user and a token in its URL",
                hint="keep one of them, best in PACKAGER_CONDA_CREDENTIALS",
            )
        netloc = parts.netloc.rpartition("@")[2]
        secret = SecretStr(unquote(parts.password or ""))
        credential = Credential(host=host, kind="basic", user=unquote(parts.username or ""), secret=secret)
        return urlunsplit(parts._replace(netloc=netloc)), credential
    if match := _PATH_TOKEN.match(parts.path):
        credential = Credential(host=host, kind="conda", secret=SecretStr(match[1]))
        return urlunsplit(parts._replace(path=parts.path[match.end() :] or "/")), credential
    return url, None


def without_credentials(text: str) -> str:
    """Remove the credentials from every URL in a text."""
    return _TOKEN_IN_TEXT.sub("*****", _USER_INFO.sub("", text))


def channel_urls(channel: str, *, file: Path, settings: Settings) -> tuple[str, ...]:
    """Return the URLs of a channel of the conda file `file`, including their credentials.

    Raises:
        DependenciesError: The channel isn't a name, a path or a URL of a known scheme, or uses an environment variable.
    """
    if _VARIABLE.search(channel):
        raise DependenciesError(
            f"{file.name}: the channel {sanitize(repr(without_credentials(channel)))} uses an environment variable, "
            "which is not supported",
            hint="write the URL without a token or password, and put that into PACKAGER_CONDA_CREDENTIALS",
        )
    if channel == "local":
        raise DependenciesError(
            f"{file.name}: the channel 'local' is a folder of the machine that built the packages",
            hint="use a channel that this machine can reach",
        )
    if channel == "defaults":
        return settings.conda_default_channels
    if channel.startswith(("./", "../", "/")):
        return ((file.parent / channel).resolve().as_uri(),)
    if channel.startswith(_SCHEMES):
        return (channel.rstrip("/"),)
    if _NAME.fullmatch(channel):
        return (_url_of_name(channel, settings),)
    raise DependenciesError(
        f"{file.name}: {sanitize(repr(without_credentials(channel)))} is not a conda channel",
        hint=f"use a name, a path that starts with ./ or /, or a URL that starts with {', '.join(_SCHEMES)}",
    )


def _url_of_name(name: str, settings: Settings) -> str:
    """Return the URL of a named channel; `pkgs/main` and its siblings are on Anaconda's host, not on the alias'."""
    if name.startswith("pkgs/"):
        defaults = (url.rstrip("/") for url in settings.conda_default_channels)
        return next((url for url in defaults if url.endswith(f"/{name}")), f"{_ANACONDA}/{name}")
    return f"{settings.conda_channel_alias.rstrip('/')}/{name}"


def resolve_mirror(url: str, settings: Settings) -> tuple[Channel, Credential | None]:
    """Return a channel with its fetch URL, which is the mirror with the longest matching URL or the channel itself."""
    fetch_url, credential = url, None
    for channel, mirror in sorted(settings.conda_mirrors.items(), key=lambda pair: -len(pair[0])):
        start = (channel if "://" in channel else _url_of_name(channel, settings)).rstrip("/")
        if url == start or url.startswith(f"{start}/"):
            fetch_url, credential = split_credential(mirror.get_secret_value().rstrip("/") + url[len(start) :])
            break
    return Channel(url=url, fetch_url=fetch_url), credential


def configured_credentials(settings: Settings) -> tuple[Credential, ...]:
    """Parse `HOST=USER:PASSWORD` and `HOST=TOKEN`; a token is a bearer token, on anaconda.org a conda token.

    Raises:
        UsageError: An entry has another form.
    """
    credentials = []
    for number, entry in enumerate(settings.conda_credentials, 1):
        host, equals, value = entry.get_secret_value().partition("=")
        if not (host and equals and value):
            raise UsageError(
                f"PACKAGER_CONDA_CREDENTIALS: entry {number} is not HOST=USER:PASSWORD or HOST=TOKEN",
                hint="a password can't contain a separator of entries (space, comma)",
            )
        user, colon, password = value.partition(":")
        if colon:
            credentials.append(Credential(host=host, kind="basic", user=user, secret=SecretStr(password)))
        else:
            kind = "conda" if host.endswith("anaconda.org") else "bearer"
            credentials.append(Credential(host=host, kind=kind, secret=SecretStr(value)))
    return tuple(credentials)
