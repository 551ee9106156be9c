"""ECR registries on this machine under their real names: docker-registry over TLS, behind a proxy that knows the names.

Every client gets the proxy (HTTPS_PROXY) and the tests' own authority (SSL_CERT_FILE), and nothing else.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EcrHosts:
    """Running registries.

    Attributes:
        environ: How they are reached.
        asked: The names that the proxy was asked for.
    """

    environ: dict[str, str]
    ports: dict[str, int]
    passwords: dict[str, str]
    asked: list[str] = field(default_factory=list)

    def digest(self, host: str, path: str, tag: str) -> str | None:
        """What a registry serves under a tag, or None."""
        context = ssl.create_default_context(cafile=self.environ["SSL_CERT_FILE"])
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports[host], context=context, timeout=60)
        pair = b64encode(f"AWS:{self.passwords[host]}".encode()).decode()
        headers = {"Accept": "application/vnd.oci.image.manifest.v1+json", "Authorization": f"Basic {pair}"}
        try:
            connection.request("HEAD", f"/v2/{path}/manifests/{tag}", headers=headers)
            answer = connection.getresponse()
            return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None
        finally:
            connection.close()


@contextmanager
def serve_ecr_hosts(folder: Path, passwords: Mapping[str, str]) -> Iterator[EcrHosts]:
    """Run a registry for each host, which accepts only the user AWS with that host's password."""
    make_certificate(folder, list(passwords))
    ports = {host: free_port() for host in passwords}
    servers = [_start_registry(folder / host, folder, ports[host], password) for host, password in passwords.items()]
    asked: list[str] = []
    try:
        for (host, port), server in zip(ports.items(), servers, strict=True):
            _wait_for(port, server, folder / host / "log")
        with _serve_proxy(ports, asked) as proxy:
            environ = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(folder / "ca.crt"), "NO_PROXY": "127.0.0.1"}
            yield EcrHosts(environ=environ, ports=ports, passwords=dict(passwords), asked=asked)
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)


def make_certificate(folder: Path, names: list[str]) -> None:
    """Make `ca.crt`, and `server.crt` with `server.key` for some names and for 127.0.0.1."""
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    alternatives = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
    (folder / "extensions").write_text(f"subjectAltName={alternatives}\nbasicConstraints=CA:FALSE\n")
    for words in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.crt"],
        [*new, "-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"],
        ["openssl", "x509", "-req", "-days", "2", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
         "-CAcreateserial", "-extfile", "extensions", "-out", "server.crt"],
    ):  # fmt: skip
        subprocess.run(words, cwd=folder, check=True, capture_output=True)


def _start_registry(folder: Path, keys: Path, port: int, password: str) -> subprocess.Popen[bytes]:
    folder.mkdir()
    made = subprocess.run(["htpasswd", "-niBC", "4", "AWS"], input=password, capture_output=True, check=True, text=True)
    (folder / "htpasswd").write_text(made.stdout)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "tls": {"certificate": str(keys / "server.crt"), "key": str(keys / "server.key")},
        },
        "auth": {"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}: {log.read_text()}")


@contextmanager
def _serve_proxy(ports: Mapping[str, int], asked: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            host = self.path.rpartition(":")[0]
            asked.append(host)
            if host not in ports:
                self.send_error(502, f"no such host: {host}")
                return
            with socket.create_connection(("127.0.0.1", ports[host])) as behind:
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    _pass_on(self.connection, behind)
            self.close_connection = True

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(1 << 16)
            if not data:
                return
            (other if source is one else one).sendall(data)
