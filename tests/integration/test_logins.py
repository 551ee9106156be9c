"""The config.json that we write, read by the real Buildah: every login in it is found where it should be."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from packager.engines.machine import scrubbed
from packager.models.connection import Connection
from packager.registry.authfile import LoginContext, auth_file
from packager.registry.docker_config import read_user_config
from tests.integration.registry import Registry, free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")


def push(image: str, name: str, auth: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["buildah", "push", "--authfile", str(auth), "--tls-verify=false", image, f"docker://{name}"]
    return subprocess.run(words, env=environ, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("key", ["https://{host}/v1/", "{host}", "{host}/own"])
def test_a_login_of_the_users_own_file(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path, key: str
) -> None:
    pair = {"username": password_registry.username, "password": password_registry.password}
    document = {"auths": {key.format(host=password_registry.host): pair}, "credsStore": "no-such-store"}
    (tmp_path / "config.json").write_text(json.dumps(document))
    context = LoginContext(user=read_user_config({"DOCKER_CONFIG": str(tmp_path)}))
    other = Connection.model_validate(
        {"id": "other", "spec": {"type": "docker", "uri": f"127.0.0.1:{free_port()}", "username": "u", "password": "p"}}
    )
    with auth_file(other, None, tmp_path, context) as auth:
        done = push(tiny_base, f"{password_registry.host}/own/image:1", auth, storage)
        assert done.returncode == 0, done.stderr
    assert password_registry.digest("own/image", "1") is not None


def test_the_connections_login_wins_over_the_users(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> None:
    host = password_registry.host
    wrong = {"username": "u", "password": "wrong"}
    document = {"auths": {host: wrong, f"{host}/won/deep": wrong}, "credHelpers": {host: "no-such-helper"}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    context = LoginContext(user=read_user_config({"DOCKER_CONFIG": str(tmp_path)}))
    with auth_file(password_registry.connection("won"), None, tmp_path, context) as auth:
        done = push(tiny_base, f"{host}/won/deep/image:1", auth, storage)
        assert done.returncode == 0, done.stderr
    with auth_file(None, None, tmp_path, context) as auth:  # the helper would have been asked
        assert "no-such-helper" in push(tiny_base, f"{host}/won/deep/image:1", auth, storage).stderr


def test_a_credential_helper_is_found_in_buildahs_scrubbed_environment(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> None:
    home, programs = tmp_path / "home", tmp_path / "bin"
    for folder in (home, programs):
        folder.mkdir()
    answer = {"ServerURL": "", "Username": password_registry.username, "Secret": password_registry.password}
    (home / "secret.json").write_text(json.dumps(answer))
    helper = programs / "docker-credential-desk"
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && cat > {shlex.quote(str(home))}/asked && cat "$HOME/secret.json"\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {password_registry.host: "desk"}}))
    environ = {**storage, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    context = LoginContext(user=read_user_config({"DOCKER_CONFIG": str(tmp_path)}))
    with auth_file(None, None, tmp_path, context) as auth:
        done = push(tiny_base, f"{password_registry.host}/helped/image:1", auth, scrubbed(environ, temporary=tmp_path))
    assert done.returncode == 0, done.stderr
    assert (home / "asked").read_text().strip() == password_registry.host
