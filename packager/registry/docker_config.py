"""Docker's configuration: the user's own `config.json` with its credential helpers, and ours merged above it.

Sources: docker's configuration reference (`auths`, `credHelpers`, `credsStore`), docker/cli's `cli/config/configfile`
and containers-auth.json(5): an entry's key is a host, or a host and a path; the longest key that matches counts. For
the helpers, github.com/docker/docker-credential-helpers: `docker-credential-NAME get` reads the host from its standard
input and prints `{"Username": ..., "Secret": ...}`; the user `<token>` marks the secret as an identity token.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import ToolMissingError, UsageError
from packager.models.reference import DOCKER_HUB
from packager.registry.credentials import DOCKER_HUB_HOSTS, TOKEN_USER, Credential
from packager.system.process import OutOfBoundsError, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from packager.models.reference import Reference
    from packager.system.process import Completed

log = logging.getLogger(__name__)

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"  # docker's own key for Docker Hub; Kaniko looks for this one
CORRECT_IT = "correct it (`docker login` writes it), or name another folder, which may be empty, in DOCKER_CONFIG"
_HELPER_SECONDS = 30.0
_HELPER_GRACE = 2.0
_MAX_ANSWER = 1 << 20  # bytes
_OUR_SETTINGS = "PACKAGER_"


@dataclass(frozen=True, kw_only=True)
class DockerConfig:
    """The logins of a `config.json`.

    Attributes:
        logins: The logins by `host` or `host/path`, in the file's order.
        helpers: The credential helper of each host that has one (`gcloud` is the program `docker-credential-gcloud`).
        store: The helper for all hosts, or empty.
        broken: The problem of each entry that can't be read, by its key; it shows no value of the entry.
    """

    logins: Mapping[str, Credential] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    broken: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes) -> DockerConfig:
        """Read a `config.json`; keys that are URLs (`https://host/v1/`) count for their host, as in docker.

        Of two keys for one host or path, the one that is no URL wins. An entry that can't be read is kept in `broken`.
        A byte order mark, which Windows' editors write, is skipped.

        Raises:
            ValueError: The format is wrong; the message says where, and shows no value.
        """
        try:
            document = json.loads(content if content.strip() else b"{}")
        except (ValueError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"it is not JSON{where}") from None
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
                broken[_place(key)] = f"credHelpers[{key!r}] is not a string"
        return cls(logins=logins, helpers=helpers, store=_text(document.get("credsStore"), "credsStore"), broken=broken)

    def secrets(self) -> list[str]:
        """Return every secret in it, for redaction."""
        return [secret for login in self.logins.values() for secret in login.secrets()]

    def login_for(self, reference: Reference) -> Credential | None:
        """Return the login for a repository, or None where there is none."""
        parts = reference.path.split("/")
        places = [f"{reference.host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
        return next((self.logins[place] for place in (*places, reference.host) if place in self.logins), None)

    def with_logins(self, credentials: Sequence[Credential]) -> DockerConfig:
        """Return this configuration with our logins above its own; where several of ours have one key, the first wins.

        Each of ours is entered for its path, and for its whole host: not every client looks for paths. An entry of this
        file with a longer path would win over ours, so it is left out; so is the helper of a host of ours.
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

    A missing file counts as empty. In `~/.docker`, so does one that we may not read, with a warning: in a pod HOME is
    often another user's. The problems of broken entries name the file.

    Raises:
        UsageError: Its format is wrong, or it can't be read where DOCKER_CONFIG names it.
    """
    named, home = environ.get("DOCKER_CONFIG"), environ.get("HOME")
    if not named and not home:
        return DockerConfig()
    file = (Path(named) if named else Path(str(home), ".docker")) / "config.json"
    try:
        config = DockerConfig.from_bytes(file.read_bytes())
    except NotADirectoryError as error:
        if named:
            raise _unusable(file, f"can't be read: {named} is not a folder") from error
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
        raise _unusable(file, f"is wrong: {error}") from None  # the cause shows the file's contents
    broken = {place: f"the docker configuration {file} is wrong: {problem}" for place, problem in config.broken.items()}
    return replace(config, broken=broken)


def ask_helpers(
    config: DockerConfig,
    hosts: Iterable[str],
    environ: Mapping[str, str],
    run: Callable[..., Completed] = run_command,
) -> DockerConfig:
    """Return the configuration with its helpers' entries for these hosts replaced by the logins that they give.

    A helper that is missing or fails causes a warning at most: access may be anonymous.
    """
    logins, helpers = dict(config.logins), dict(config.helpers)
    for host in dict.fromkeys(hosts):
        name = helpers.pop(host, "") or config.store
        if name and host not in logins and (login := _ask_helper(name, host, environ, run)):
            logins[host] = login
    return replace(config, logins=logins, helpers=helpers, store="")


def _ask_helper(name: str, host: str, environ: Mapping[str, str], run: Callable[..., Completed]) -> Credential | None:
    program = f"docker-credential-{name}"
    env = {key: value for key, value in environ.items() if not key.startswith(_OUR_SETTINGS)}
    asked = _DOCKER_HUB_KEY if host == DOCKER_HUB else host
    try:
        done = run(
            [program, "get"],
            env=env,
            capture=True,
            text=f"{asked}\n",
            seconds=_HELPER_SECONDS,
            most=_MAX_ANSWER,
            grace=_HELPER_GRACE,
        )
    except ToolMissingError:
        log.warning("the docker configuration keeps the login for %s in %s, which is not installed here", host, program)
        return None
    except OutOfBoundsError as error:
        log.warning("%s was stopped while it looked for the login for %s: %s", program, host, error)
        return None
    if done.returncode != 0:
        log.log(
            logging.DEBUG if "not found" in done.stdout else logging.WARNING,
            "%s has no login for %s: exit code %d",
            program,
            host,
            done.returncode,
        )
        return None
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s answered for %s with an invalid login", program, host)
        return None
    login = Credential(host=host, username=username, password=secret)
    if username == TOKEN_USER:
        login = Credential(host=host, username=username, identity_token=secret)
    return login if secret else None


def _unusable(file: Path, problem: str) -> UsageError:
    return UsageError(
        f"the docker configuration {file} {problem}",
        hint=CORRECT_IT,
    )


def _place(key: str) -> str:
    """Return the host or `host/path` that a key means: of a URL its host alone (`docker/cli`'s ConvertToHostname)."""
    rest = key.removeprefix("https://").removeprefix("http://")
    host, _, path = rest.rstrip("/").partition("/")
    host = DOCKER_HUB if host in DOCKER_HUB_HOSTS else host
    return f"{host}/{path}" if path not in ("", "v1", "v2") and rest == key else host


def _login(place: str, entry: dict[str, Any], key: str) -> Credential | None:
    """Read an entry of `auths`; None for the empty one that docker writes when a helper has the login."""
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
    identity_token = _text(entry.get("identitytoken"), f"{where}.identitytoken")
    login = Credential(
        host=host,
        path=path,
        username=username or (TOKEN_USER if identity_token else ""),
        password=password.strip("\0"),  # as docker does
        identity_token=identity_token,
        registry_token=_text(entry.get("registrytoken"), f"{where}.registrytoken"),
    )
    return login if login.entry() else None


def _mapping(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")  # noqa: TRY004  (the text is wrong, not our type)
    return value


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where} is not a string")  # noqa: TRY004
    return value
