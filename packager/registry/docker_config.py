"""The format of a docker `config.json`: what a user's own file says, and ours with it merged beneath.

Sources: docker's configuration reference (`auths`, `credHelpers`, `credsStore`), docker/cli's `cli/config/configfile`
and containers-auth.json(5): an entry's key is a host, or a host and a path; of several that fit, the longest counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import UsageError
from packager.models.reference import DOCKER_HUB
from packager.registry.credentials import Credential

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packager.models.reference import Reference

log = logging.getLogger(__name__)

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"  # what docker itself calls Docker Hub; Kaniko looks for this one
CORRECT_IT = "correct it (`docker login` writes it), or name another folder, which may be empty, in DOCKER_CONFIG"
_DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, kw_only=True)
class DockerConfig:
    """What a `config.json` says about logins.

    Attributes:
        logins: By their place, `host` or `host/path`, in the file's order.
        helpers: The credential helper of each host that has one (`gcloud` is the program `docker-credential-gcloud`).
        store: The helper for all hosts, or empty.
        broken: What is wrong with the entries that can't be read, by their place; it shows no value of theirs.
    """

    logins: Mapping[str, Credential] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    broken: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes) -> DockerConfig:
        """Read a `config.json`; keys that are URLs (`https://host/v1/`) count for their host, as in docker.

        Of two keys that count for one place, the one that is written as the place wins. An entry that can't be read is
        kept in `broken`. A byte order mark, which Windows' editors write, is skipped.

        Raises:
            ValueError: It isn't one; the message says where, and shows no value.
        """
        try:
            document = json.loads(content if content.strip() else b"{}")
        except (ValueError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"it is no JSON{where}") from None
        document = _mapping(document, "it")
        logins: dict[str, Credential] = {}
        helpers: dict[str, str] = {}
        broken: dict[str, str] = {}
        for key, entry in _mapping(document.get("auths"), "auths").items():
            place = _place(key)
            try:
                login = _login(place, _mapping(entry, f"auths[{key!r}]"), key)
            except ValueError as error:
                broken[place] = str(error)
                continue
            if login is not None and (place not in logins or key in (place, _DOCKER_HUB_KEY)):
                logins[place] = login
        for key, name in _mapping(document.get("credHelpers"), "credHelpers").items():
            if isinstance(name, str):
                helpers[_place(key)] = name
            elif name is not None:
                broken[_place(key)] = f"credHelpers[{key!r}] is no text"
        return cls(logins=logins, helpers=helpers, store=_text(document.get("credsStore"), "credsStore"), broken=broken)

    def secrets(self) -> list[str]:
        """Return every secret in it, for redaction."""
        return [secret for login in self.logins.values() for secret in login.secrets()]

    def login_for(self, reference: Reference) -> Credential | None:
        """Return the login for a repository, or None where there is none."""
        parts = reference.path.split("/")
        places = [f"{reference.host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
        return next((self.logins[place] for place in (*places, reference.host) if place in self.logins), None)

    def beneath(self, credentials: Sequence[Credential]) -> DockerConfig:
        """Put our logins above this file's; where several of ours claim one place, the first wins.

        Each of ours is entered for its path, and for its whole host: not every client looks for paths. What this file
        has for a place within one of ours would win over it, so it goes; so does the helper of a host of ours.
        """
        ours = [f"{login.host}/{login.path}" if login.path else login.host for login in credentials]
        hosts = {login.host for login in credentials}
        logins: dict[str, Credential] = {}
        for place, login in [
            *((place, login) for place, login in zip(ours, credentials, strict=True) if login.path),
            *((login.host, login) for login in credentials),
        ]:
            logins.setdefault(place, login)
        for place, login in self.logins.items():
            if not any(place.startswith(f"{our}/") for our in ours):
                logins.setdefault(place, login)
        helpers = {host: name for host, name in self.helpers.items() if host.partition("/")[0] not in hosts}
        return DockerConfig(logins=logins, helpers=helpers)

    def to_bytes(self) -> bytes:
        """Write a `config.json`. There is no `credsStore` in it: some clients ask it before they look at `auths`."""
        auths = {place: login.entry() for place, login in self.logins.items()}
        if DOCKER_HUB in auths:
            auths[_DOCKER_HUB_KEY] = auths[DOCKER_HUB]
        helpers = dict(self.helpers)
        if DOCKER_HUB in helpers:
            helpers[_DOCKER_HUB_KEY] = helpers[DOCKER_HUB]
        return json.dumps({"auths": auths, **({"credHelpers": helpers} if helpers else {})}, indent=1).encode()


def read_user_config(environ: Mapping[str, str]) -> DockerConfig:
    """Read the user's own `config.json`: in the folder that DOCKER_CONFIG names, else in `~/.docker`.

    A file that isn't there says nothing. In `~/.docker`, one that we may not read says nothing either, with a warning:
    in a pod HOME is often another user's. What is said of broken entries names the file.

    Raises:
        UsageError: It is no docker configuration, or can't be read where DOCKER_CONFIG names it.
    """
    named, home = environ.get("DOCKER_CONFIG"), environ.get("HOME")
    if not named and not home:
        return DockerConfig()
    file = (Path(named) if named else Path(str(home), ".docker")) / "config.json"
    try:
        config = DockerConfig.from_bytes(file.read_bytes())
    except NotADirectoryError as error:
        if named:
            raise _unusable(file, f"can't be read: {named} is no folder") from error
        return DockerConfig()
    except FileNotFoundError:
        return DockerConfig()
    except PermissionError as error:
        if named:
            raise _unusable(file, f"can't be read: {error.strerror}") from error
        log.warning("the docker configuration %s can't be read and has no effect: %s", file, error.strerror)
        return DockerConfig()
    except OSError as error:
        raise _unusable(file, f"can't be read: {error.strerror}") from error
    except ValueError as error:
        raise _unusable(file, f"is wrong: {error}") from None  # the cause shows what the file holds
    broken = {place: f"the docker configuration {file} is wrong: {problem}" for place, problem in config.broken.items()}
    return replace(config, broken=broken)


def _unusable(file: Path, problem: str) -> UsageError:
    return UsageError(
        f"the docker configuration {file} {problem}",
        hint=CORRECT_IT,
    )


def _place(key: str) -> str:
    """Return what a key stands for: the host alone when it is an address (`docker/cli`'s ConvertToHostname)."""
    rest = key.removeprefix("https://").removeprefix("http://")
    host, _, path = rest.rstrip("/").partition("/")
    host = DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host
    return f"{host}/{path}" if path not in ("", "v1", "v2") and rest == key else host


def _login(place: str, entry: dict[str, Any], key: str) -> Credential | None:
    """Read an entry of `auths`; None for the empty one that docker writes where a helper has the login."""
    where = f"auths[{key!r}]"
    values = {name: _text(entry.get(name), f"{where}.{name}") for name in ("auth", "username", "password")}
    username, password = values["username"], values["password"]
    if values["auth"]:
        compact = "".join(values["auth"].split()).rstrip("=")  # some tools write no padding
        try:
            decoded = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
            username, colon, password = decoded.decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"{where}.auth is not the base64 of USER:PASSWORD") from None
        if not colon or not username:
            raise ValueError(f"{where}.auth is not the base64 of USER:PASSWORD")
    host, _, path = place.partition("/")
    login = Credential(
        host=host,
        path=path,
        username=username,
        password=password.strip("\0"),  # as docker does
        identity_token=_text(entry.get("identitytoken"), f"{where}.identitytoken"),
        registry_token=_text(entry.get("registrytoken"), f"{where}.registrytoken"),
    )
    return login if login.entry() else None


def _mapping(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004  (what is wrong is the text, not our type)
    return value


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where} is no text")  # noqa: TRY004
    return value
