"""Logins that the user's credential helpers keep, asked for the hosts that a run speaks with.

The protocol is docker's (github.com/docker/docker-credential-helpers): `docker-credential-NAME get` reads the host from
its standard input and prints `{"Username": ..., "Secret": ...}`; the user `<token>` says that the secret is an identity
token.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from packager.errors import ToolMissingError
from packager.models.reference import DOCKER_HUB
from packager.registry.credentials import TOKEN_USER, Credential
from packager.system.process import OutOfBoundsError, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from packager.registry.docker_config import DockerConfig
    from packager.system.process import Completed

log = logging.getLogger(__name__)

_HUB_ADDRESS = "https://index.docker.io/v1/"
_SECONDS = 30.0
_GRACE = 2.0
_MOST_BYTES = 1 << 20
_OUR_SETTINGS = "PACKAGER_"


def ask_helpers(
    config: DockerConfig,
    hosts: Iterable[str],
    environ: Mapping[str, str],
    run: Callable[..., Completed] = run_command,
) -> DockerConfig:
    """Return the configuration with the logins that its helpers have for these hosts, in the helpers' place.

    A helper that is missing, fails or knows nothing is a warning or less: the registry tells whether it wants a login.
    """
    logins, helpers = dict(config.logins), dict(config.helpers)
    for host in dict.fromkeys(hosts):
        name = helpers.pop(host, "") or config.store
        if name and host not in logins and (login := _ask(name, host, environ, run)):
            logins[host] = login
    return replace(config, logins=logins, helpers=helpers, store="")


def _ask(name: str, host: str, environ: Mapping[str, str], run: Callable[..., Completed]) -> Credential | None:
    program = f"docker-credential-{name}"
    env = {key: value for key, value in environ.items() if not key.startswith(_OUR_SETTINGS)}
    asked = _HUB_ADDRESS if host == DOCKER_HUB else host
    try:
        done = run(
            [program, "get"], env=env, capture=True, text=f"{asked}\n", seconds=_SECONDS, most=_MOST_BYTES, grace=_GRACE
        )
    except ToolMissingError:
        log.warning("the docker configuration keeps the login for %s in %s, which is not installed here", host, program)
        return None
    except OutOfBoundsError as error:
        log.warning("%s was asked for the login for %s and ended by us: %s", program, host, error)
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
        log.warning("%s answered for %s with something that is no login", program, host)
        return None
    login = Credential(host=host, username=username, password=secret)
    if username == TOKEN_USER:
        login = Credential(host=host, username=username, identity_token=secret)
    return login if secret else None
