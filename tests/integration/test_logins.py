"""The config.json that we write, read by the real Buildah: every login in it is found and sent as it should be."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from packager.engines.host import scrubbed
from packager.models.connection import Connection
from packager.registry.authfile import auth_file
from packager.registry.docker_config import read_user_config
from packager.registry.keychain import Keychain, LoginContext
from tests.integration.registry import Registry, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")


def push(image: str, name: str, auth: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["buildah", "push", "--authfile", str(auth), "--tls-verify=false", image, f"docker://{name}"]
    return subprocess.run(words, env=environ, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("key", ["https://{host}/v1/", "{host}", "{host}/own"])
def test_login_of_the_users_docker_config_is_sent(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path, key: str
) -> None:
    pair = {"username": password_registry.username, "password": password_registry.password}
    document = {"auths": {key.format(host=password_registry.host): pair}, "credsStore": "no-such-store"}
    (tmp_path / "config.json").write_text(json.dumps(document))
    context = LoginContext(user=read_user_config({"DOCKER_CONFIG": str(tmp_path)}))
    other = Connection.model_validate(
        {"id": "other", "spec": {"type": "docker", "uri": f"127.0.0.1:{free_port()}", "username": "u", "password": "p"}}
    )
    with auth_file(Keychain.open(other, None, context), tmp_path) as auth:
        done = push(tiny_base, f"{password_registry.host}/own/image:1", auth, storage)
        assert done.returncode == 0, done.stderr
    assert password_registry.digest("own/image", "1") is not None


def test_login_of_the_connection_wins_over_the_users(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> None:
    host = password_registry.host
    wrong = {"username": "u", "password": "wrong"}
    document = {"auths": {host: wrong, f"{host}/won/deep": wrong}, "credHelpers": {host: "no-such-helper"}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    context = LoginContext(user=read_user_config({"DOCKER_CONFIG": str(tmp_path)}))
    with auth_file(Keychain.open(password_registry.connection("won"), None, context), tmp_path) as auth:
        done = push(tiny_base, f"{host}/won/deep/image:1", auth, storage)
        assert done.returncode == 0, done.stderr
    with auth_file(Keychain.open(None, None, context), tmp_path) as auth:  # the helper would have been asked
        assert "no-such-helper" in push(tiny_base, f"{host}/won/deep/image:1", auth, storage).stderr


def test_credential_helper_is_found_in_buildahs_scrubbed_environment(
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
    user = read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    for hosts in ((), (password_registry.host,)):  # Buildah asks the helper; or we have asked it, and Buildah needn't
        context = LoginContext(user=user, hosts=hosts, environ=environ)
        with auth_file(Keychain.open(None, None, context), tmp_path) as auth:
            assert ("credHelpers" in auth.read_text()) is not bool(hosts)
            if hosts:
                helper.unlink()
            name = f"{password_registry.host}/helped/image:{len(hosts)}"
            done = push(tiny_base, name, auth, scrubbed(environ, temporary=tmp_path))
        assert done.returncode == 0, done.stderr
        assert (home / "asked").read_text().strip() == password_registry.host
        (home / "asked").unlink()


class Challenger:
    """A registry without images that writes down what it is sent; `scheme` is how it wants to be spoken to."""

    def __init__(self, scheme: str) -> None:
        challenger = self
        self.logins: list[str] = []
        self.token_requests: list[dict[str, list[str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = self.headers.get("Authorization", "")
                if login:
                    challenger.logins.append(login)
                    self.answer(200 if self.path == "/v2/" else 404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
                    return
                realm = f'realm="http://{challenger.host}/token",service="tests"'
                self.answer(401, {"errors": [{"code": "UNAUTHORIZED"}]}, f"{scheme} {realm}")

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                body = b""
                while size := int(self.rfile.readline(), 16):  # Buildah sends it in chunks
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                challenger.token_requests.append(parse_qs(body.decode()))
                self.answer(200, {"access_token": "access", "token": "access", "expires_in": 300})

            def answer(self, status: int, document: object, challenge: str = "") -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if challenge:
                    self.send_header("WWW-Authenticate", challenge)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"


@contextmanager
def challenger(scheme: str) -> Iterator[Challenger]:
    running = Challenger(scheme)
    thread = Thread(target=running.server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join()


def pull(registry: Challenger, username: str, password: str, environ: dict[str, str], folder: Path) -> None:
    spec = {"type": "docker", "uri": f"{registry.host}/team", "username": username, "password": password}
    with auth_file(Keychain.open(None, Connection.model_validate({"id": "c", "spec": spec})), folder) as auth:
        name = f"docker://{registry.host}/team/image:1"
        words = ["buildah", "pull", "--authfile", str(auth), "--tls-verify=false", name]
        done = subprocess.run(words, env=environ, check=False, capture_output=True, text=True)
    assert "unauthorized" not in done.stderr


def test_identity_token_is_sent_to_the_token_service(storage: dict[str, str], tmp_path: Path) -> None:
    with challenger("Bearer") as registry:
        pull(registry, "<token>", "identity-t0ken", storage, tmp_path)
    assert registry.token_requests
    for request in registry.token_requests:
        assert request["grant_type"] == ["refresh_token"]
        assert request["refresh_token"] == ["identity-t0ken"]
    assert set(registry.logins) == {"Bearer access"}


@pytest.mark.parametrize(
    "password",
    [
        json.dumps({"type": "service_account", "private_key": "-----BEGIN\nMII\n"}, indent=2),
        "a\n\tb\r\n",
        "ä€😀:\"'\\$%",
    ],
)
def test_password_with_any_character_is_sent_unchanged(storage: dict[str, str], tmp_path: Path, password: str) -> None:
    with challenger("Basic") as registry:
        pull(registry, "_json_key", password, storage, tmp_path)
    pairs = {base64.b64decode(login.removeprefix("Basic ")).decode() for login in registry.logins}
    assert pairs == {f"_json_key:{password}"}
