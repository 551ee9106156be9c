"""Conda channels: names made into URLs, mirrors, and the credentials taken out of URLs."""

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
    """What a channel's host wants to see: a user and a password, a bearer token, or conda's token in the path."""

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
class Source:
    """A channel: `url` is its name in locks and images, `asked` where its packages are fetched (a mirror, perhaps)."""

    url: str
    asked: str

    @property
    def public(self) -> str:
        """The URL that may go into an image.

        A channel in a folder keeps only the folder's name: its path is this machine's and means nothing elsewhere.
        """
        if self.url.startswith("file://"):
            return f"file:///{self.url.rstrip('/').rpartition('/')[2]}"
        return self.url


def split_credential(url: str) -> tuple[str, Credential | None]:
    """Take `user:password@` or `/t/TOKEN` out of a URL.

    Raises:
        DependenciesError: It has both, and a request has room for one.
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
    """Take the credentials out of every URL in a text."""
    return _TOKEN_IN_TEXT.sub("*****", _USER_INFO.sub("", text))


def channel_urls(channel: str, *, file: Path, settings: Settings) -> tuple[str, ...]:
    """Spell a channel of the conda file `file` out as URLs, with the credentials still in them.

    Raises:
        DependenciesError: It isn't a name, a path or a URL of a known scheme, or it names an environment variable.
    """
    if _VARIABLE.search(channel):
        raise DependenciesError(
            f"{file.name}: the channel {sanitize(repr(without_credentials(channel)))} names an environment variable, "
            "and none is passed on",
            hint="write the URL without a token or password, and put that into PACKAGER_CONDA_CREDENTIALS",
        )
    if channel == "local":
        raise DependenciesError(
            f"{file.name}: the channel 'local' is a folder of the machine that built the packages",
            hint="name a channel that can be reached from here",
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
        hint=f"write a name, a path that starts with ./ or /, or a URL of {', '.join(_SCHEMES)}",
    )


def _url_of_name(name: str, settings: Settings) -> str:
    """Return where a named channel lies: `pkgs/main` and its siblings are Anaconda's own, not on the alias' host."""
    if name.startswith("pkgs/"):
        defaults = (url.rstrip("/") for url in settings.conda_default_channels)
        return next((url for url in defaults if url.endswith(f"/{name}")), f"{_ANACONDA}/{name}")
    return f"{settings.conda_channel_alias.rstrip('/')}/{name}"


def source_of(url: str, settings: Settings) -> tuple[Source, Credential | None]:
    """Find where a channel's packages are fetched: the mirror with the longest matching URL, or the channel itself."""
    asked, credential = url, None
    for channel, mirror in sorted(settings.conda_mirrors.items(), key=lambda pair: -len(pair[0])):
        start = (channel if "://" in channel else _url_of_name(channel, settings)).rstrip("/")
        if url == start or url.startswith(f"{start}/"):
            asked, credential = split_credential(mirror.get_secret_value().rstrip("/") + url[len(start) :])
            break
    return Source(url=url, asked=asked), credential


def configured_credentials(settings: Settings) -> tuple[Credential, ...]:
    """Read `HOST=USER:PASSWORD` and `HOST=TOKEN`; a token is a bearer token, but on anaconda.org conda's own.

    Raises:
        UsageError: An entry has another form.
    """
    credentials = []
    for number, entry in enumerate(settings.conda_credentials, 1):
        host, equals, value = entry.get_secret_value().partition("=")
        if not (host and equals and value):
            raise UsageError(
                f"PACKAGER_CONDA_CREDENTIALS: entry {number} is not HOST=USER:PASSWORD or HOST=TOKEN",
                hint="a character that separates entries (space, comma) can't be in a password",
            )
        user, colon, password = value.partition(":")
        if colon:
            credentials.append(Credential(host=host, kind="basic", user=user, secret=SecretStr(password)))
        else:
            kind = "conda" if host.endswith("anaconda.org") else "bearer"
            credentials.append(Credential(host=host, kind=kind, secret=SecretStr(value)))
    return tuple(credentials)
