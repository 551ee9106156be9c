"""Stores on the loopback: a web server with faults on order, over TLS or not, and moto's S3."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

import boto3
import httpx
import trustme
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

BLOCK = 1 << 20
KEY_ID, KEY_SECRET = "AKIASTORAGETEST00000", "storage-test-secret-key-0123456789abcdef"
REGION = "eu-central-1"


@dataclass(kw_only=True)
class Thing:
    """An object: bytes, or `size` zeros that are made while they are sent."""

    body: bytes = b""
    size: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})

    def length(self) -> int:
        return len(self.body) or self.size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        zeros = bytes(BLOCK)
        while start < stop:
            amount = min(BLOCK, stop - start)
            yield self.body[start : start + amount] if self.body else zeros[:amount]
            start += amount


@dataclass(kw_only=True)
class Fault:
    """What happens to one GET in the object's place.

    Attributes:
        status: The answer, if it is none of the object.
        cut: After how many bytes of the body the connection is reset.
        stall: After how many bytes of the body nothing comes any more.
        then: Called after the answer, e.g. to change the object.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    stall: int | None = None
    then: Callable[[], None] | None = None


@dataclass(kw_only=True)
class RequestContext:
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]


class WebStore:
    """A web server whose objects, faults and requests the test holds."""

    def __init__(self, certificate: trustme.LeafCert | None = None) -> None:
        self.things: dict[str, Thing] = {}
        self.faults: list[Fault] = []
        self.asked: list[RequestContext] = []
        self.stalled, self.released = threading.Event(), threading.Event()
        handler = type("Handler", (_Handler,), {"shop": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            # The handshake is left to the connection's own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges(self, path: str) -> list[str]:
        """The Range of each GET of an object; empty text for the whole."""
        return [each.headers.get("range", "") for each in self.asked if (each.method, each.path) == ("GET", path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shop: ClassVar[WebStore]

    def log_message(self, *_args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # a client that went away, or doesn't trust the certificate
            super().handle()

    def do_GET(self) -> None:
        shop, path = self.shop, unquote(self.path.partition("?")[0])
        headers = {name.lower(): value for name, value in self.headers.items()}
        shop.asked.append(RequestContext(method=self.command, path=path, headers=headers))
        fault = shop.faults.pop(0) if shop.faults and self.command == "GET" else Fault()
        thing = shop.things.get(path)
        if fault.status or thing is None:
            self._refuse(fault.status or 404, fault.headers, fault.body)
        elif headers.get("if-match", thing.headers.get("ETag")) != thing.headers.get("ETag"):
            self._refuse(412, {}, b"")
        else:
            self._give(thing, headers.get("range", ""), fault)
        if fault.then:
            fault.then()

    do_HEAD = do_GET  # noqa: N815  (the base class's way to name it)

    def do_POST(self) -> None:
        """Stand for STS: the faults are the answers."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.shop.asked.append(RequestContext(method="POST", path=self.path, headers={}))
        fault = self.shop.faults.pop(0) if self.shop.faults else Fault(status=500)
        self._refuse(fault.status, fault.headers, fault.body)

    def _refuse(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _give(self, thing: Thing, wanted: str, fault: Fault) -> None:
        start, size = 0, thing.length()
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        headers = {"Last-Modified": "Sun, 02 Nov 2025 08:00:00 GMT", "Content-Length": str(size - start)}
        for name, value in {**headers, **thing.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        ends = [size, *(start + after for after in (fault.cut, fault.stall) if after is not None)]
        for block in thing.blocks(start, min(ends)):
            self.wfile.write(block)
        if fault.stall is not None:
            self.shop.stalled.set()
            self.shop.released.wait(120)
        if fault.cut is not None or fault.stall is not None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True)
class S3:
    """moto's server with its client."""

    url: str
    client: Any

    @property
    def environ(self) -> dict[str, str]:
        """What points the AWS clients at it."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": REGION}


@contextmanager
def serve_s3() -> Iterator[S3]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    # What it keeps is one for the whole process, and other tests of this process may have had it before.
    assert httpx.post(f"{url}/moto-api/reset", trust_env=False, timeout=60).is_success
    session = boto3.Session(aws_access_key_id=KEY_ID, aws_secret_access_key=KEY_SECRET, region_name=REGION)
    try:
        yield S3(url=url, client=session.client("s3", endpoint_url=url))
    finally:
        server.stop()


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority of the tests' own."""

    pem: Path
    certificate: trustme.LeafCert


def make_authority(folder: Path) -> Authority:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return Authority(pem=folder / "ca.pem", certificate=authority.issue_cert("127.0.0.1", "localhost"))
