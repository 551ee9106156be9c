"""AWS on this machine: moto's server on a free loopback port, and a front that can misbehave before it.

`serve_aws` is for every test that needs one of AWS's services; moto speaks the protocols of all of them.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.etree.ElementTree import Element, SubElement, tostring

from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "123456789012"  # moto's own, for keys that it hasn't made
KEY_ID, KEY_SECRET = "AKIAIOSFODNN7LOOPBCK", "wJalrXUtnFEMI/K7MDENG+loopback"


@dataclass(frozen=True, kw_only=True)
class Aws:
    """A running AWS: where it is, and the variables with which boto3 and other clients find it, and nothing else."""

    endpoint: str

    @property
    def environ(self) -> dict[str, str]:
        """An environment with keys; nothing of this machine's own AWS configuration counts."""
        return {**self.environ_without_keys, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": KEY_SECRET}

    @property
    def environ_without_keys(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reset(self) -> None:
        """Forget everything that was made."""
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=60)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()


@contextmanager
def serve_aws(folder: Path) -> Iterator[Aws]:
    """Run moto's server for the block; its log goes into the folder."""
    port = free_port()
    with (folder / "moto.log").open("wb") as log:
        words = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        aws = Aws(endpoint=f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert server.poll() is None, (folder / "moto.log").read_text()
            try:
                aws.reset()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError((folder / "moto.log").read_text())
        yield aws
    finally:
        server.terminate()
        server.wait(60)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the front says in AWS's place."""

    status: int
    document: dict[str, Any]

    def to_xml(self) -> bytes:
        """A refusal as the older of AWS's protocols says it, which STS speaks."""
        error = Element("ErrorResponse")
        inner = SubElement(error, "Error")
        SubElement(inner, "Code").text = self.document["__type"]
        SubElement(inner, "Message").text = self.document["message"]
        return tostring(error)


def refusal(code: str, message: str = "", *, status: int = 400) -> Reply:
    return Reply(status=status, document={"__type": code, "message": message})


def token(password: str, *, expires: float) -> Reply:
    """An ECR token; `expires` in seconds since 1970."""
    data = {
        "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
        "expiresAt": expires,
        "proxyEndpoint": "https://ecr.invalid",
    }
    return Reply(status=200, document={"authorizationData": [data]})


@dataclass(frozen=True, kw_only=True)
class AwsProxy:
    """Stands before an AWS. What is planned for an operation is said once each, in order; the rest is passed on.

    `asked` are the operations with the key that signed each, and the region that it was signed for.
    """

    aws: Aws
    planned: defaultdict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def plan(self, operation: str, *replies: Reply) -> None:
        self.planned[operation].extend(replies)

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _key, _region in self.asked]


@contextmanager
def serve_front(behind: Aws) -> Iterator[AwsProxy]:
    """Run a front before an AWS for the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            operation = operation or parse_qs(body.decode()).get("Action", [""])[0]
            scope = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
            front.asked.append((operation, scope[0], scope[2] if len(scope) > 2 else ""))
            if front.planned[operation]:
                reply = front.planned[operation].popleft()
                if "X-Amz-Target" in self.headers:
                    self.answer(reply.status, "application/x-amz-json-1.1", json.dumps(reply.document).encode())
                else:
                    self.answer(reply.status, "text/xml", reply.to_xml())
                return
            connection = http.client.HTTPConnection(behind.endpoint.removeprefix("http://"), timeout=30)
            connection.request("POST", self.path, body, dict(self.headers.items()))
            passed = connection.getresponse()
            self.answer(passed.status, passed.headers["Content-Type"], passed.read())
            connection.close()

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    front = AwsProxy(aws=Aws(endpoint=f"http://127.0.0.1:{server.server_port}"))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
