"""Real registries on this machine, mostly Debian's docker-registry: each on a free port, in its own folder."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from packager.models.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Below what the kernel gives clients and those who ask for any port (32768 and above, see
# /proc/sys/net/ipv4/ip_local_port_range): a port of ours may be bound minutes after it was chosen.
_PORTS = range(20_000, 32_000)
_PORTS_OF_A_PROCESS = 2000
PASSWORD = 's3cret "pass:word" ä$'
_ACCEPT = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


@dataclass(frozen=True, kw_only=True)
class Registry:
    host: str
    folder: Path
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None  # what its certificate is checked with

    def connection(self, path: str = "", *, password: str | None = None) -> Connection:
        spec = {
            "type": "docker",
            "uri": f"{self.host}/{path}".rstrip("/"),
            "username": self.username,
            "password": self.password if password is None else password,
        }
        return Connection.model_validate({"id": "registry", "spec": spec})

    def ask(self, method: str, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Accept": _ACCEPT}
        if self.username:
            pair = f"{self.username}:{self.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        connection = (
            http.client.HTTPSConnection(self.host, timeout=60, context=self.tls)
            if self.tls
            else http.client.HTTPConnection(self.host, timeout=60)
        )
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def digest(self, path: str, tag: str) -> str | None:
        """What the registry serves under a tag, or None."""
        status, headers, _ = self.ask("HEAD", f"/v2/{path}/manifests/{tag}")
        return headers["Docker-Content-Digest"] if status == 200 else None

    def manifest(self, path: str, tag: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.ask("GET", f"/v2/{path}/manifests/{tag}")[2])
        return manifest

    def blob(self, path: str, digest: str) -> bytes:
        return self.ask("GET", f"/v2/{path}/blobs/{digest}")[2]


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """A registry's certificate and key, and whose certificates its clients must show, all in PEM files."""

    certificate: Path
    key: Path
    client_authority: Path | None = None
    client: tuple[Path, Path] | None = None  # what the tests' own questions show

    def config(self) -> dict[str, Any]:
        asked = {"clientcas": [str(self.client_authority)]} if self.client_authority else {}
        return {"certificate": str(self.certificate), "key": str(self.key), **asked}

    def context(self) -> ssl.SSLContext:
        """How the tests ask the registry, whatever its certificate is like."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.client:
            context.load_cert_chain(*self.client)
        return context


def _own_ports() -> list[int]:
    """The ports that this one of pytest-xdist's processes takes alone, from one by chance on: other runs count too."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = number * _PORTS_OF_A_PROCESS % len(_PORTS)
    own = _PORTS[first : first + _PORTS_OF_A_PROCESS]
    start = random.randrange(len(own))  # noqa: S311  (no secret)
    return [*own[start:], *own[:start]]


_next_ports = cycle(_own_ports())


def free_port() -> int:
    """Return a port that nothing listens on, and that this function gives nobody else for the next 2000 times."""
    for _ in range(_PORTS_OF_A_PROCESS):
        port = next(_next_ports)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def serve_registry(
    folder: Path,
    *,
    with_password: bool = False,
    password: str = PASSWORD,
    storage: Path | None = None,
    tls: ServerTls | None = None,
    address: str = "127.0.0.1",
    program: str = "docker-registry",
) -> Iterator[Registry]:
    """Run a registry below `folder` for the block; its blobs lie in `storage`, which is made when it's not given.

    `program` is distribution's registry, of version 2 or 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(storage or folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:{port}"},
    }
    if tls is not None:
        config["http"]["tls"] = tls.config()
    username = "packager" if with_password else ""
    if with_password:
        made = subprocess.run(
            ["htpasswd", "-niBC", "4", username], input=password, capture_output=True, check=True, text=True
        )
        (folder / "htpasswd").write_text(made.stdout)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))  # YAML holds JSON
    registry = Registry(
        host=f"{address}:{port}",
        folder=folder,
        username=username,
        password=password if with_password else "",
        tls=tls.context() if tls else None,
    )
    with _running([program, "serve", str(folder / "config.yml")], registry):
        yield registry


@contextmanager
def serve_crane_registry(folder: Path, crane: str) -> Iterator[Registry]:
    """Run go-containerregistry's own registry, which lets everyone in, for the block."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(host=f"127.0.0.1:{free_port()}", folder=folder)
    words = [crane, "registry", "serve", "--address", registry.host, "--disk", str(folder)]
    with _running(words, registry):
        yield registry


@contextmanager
def _running(words: list[str], registry: Registry) -> Iterator[None]:
    with (registry.folder / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        _wait_until_up(registry, server)
        yield
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_up(registry: Registry, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, (registry.folder / "log").read_text()
        try:
            if registry.ask("GET", "/v2/")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError((registry.folder / "log").read_text())
