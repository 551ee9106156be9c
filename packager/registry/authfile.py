"""Logins as a docker `config.json`, which every engine reads; the only file that ever holds them.

The format is that of containers-auth.json(5): an entry's key is a host, or a host and a path; of several that fit, the
longest counts.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from packager.interruption import private_folder
from packager.models.reference import DOCKER_HUB
from packager.registry.credentials import Credential, credential_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from packager.models.connection import Connection
    from packager.models.reference import Reference

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"  # what docker itself calls Docker Hub; Kaniko looks for this one


def auth_config(credentials: Sequence[Credential]) -> bytes:
    """Write a docker `config.json`; where several logins claim one key, the first wins.

    Each login is entered for its path, and for its whole host: not every client looks for paths.
    """
    auths: dict[str, dict[str, str]] = {}
    entries = [(f"{login.host}/{login.path}", login) for login in credentials if login.path]
    entries += [(login.host, login) for login in credentials]
    entries += [(_DOCKER_HUB_KEY, login) for login in credentials if login.host == "docker.io"]
    for key, login in entries:
        pair = f"{login.username}:{login.password}".encode()
        auths.setdefault(key, {"auth": base64.b64encode(pair).decode("ascii")})
    return json.dumps({"auths": auths}, indent=1).encode()


@contextmanager
def auth_file(push: Connection | None, pull: Connection | None, workspace: Path) -> Iterator[Path]:
    """Give a docker `config.json` with the connections' logins, and remove it at the end of the block.

    It has mode 0600 in a folder of its own with mode 0700, named `config.json` so that the folder can be a
    DOCKER_CONFIG. The push's login is the one for a whole host that both are of.

    Raises:
        RequestError: A connection can't log in to a registry.
    """
    connections = [connection for connection in (push, pull) if connection is not None]
    logins = [login for login in map(credential_for, connections) if login is not None]
    with private_folder("auth-", workspace) as folder:
        path = folder / "config.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(auth_config(logins))
        yield path


def login_for(reference: Reference, file: Path) -> Credential | None:
    """Return the login that a `config.json` of ours has for a repository, or None where access is anonymous."""
    auths = json.loads(file.read_bytes())["auths"]
    parts = reference.path.split("/")
    keys = [f"{reference.host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    keys += [reference.host, *([_DOCKER_HUB_KEY] if reference.host == DOCKER_HUB else [])]
    for key in keys:
        if key in auths:
            username, _, password = base64.b64decode(auths[key]["auth"]).decode().partition(":")
            return Credential(host=reference.host, username=username, password=password)
    return None
