"""Servers on this machine that stand before a registry: one that is flaky, one that lets a user only read, a proxy."""

from __future__ import annotations

import base64
import http.client
import json
import select
import socket
import socketserver
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.registry import Registry

    Judge = Callable[[BaseHTTPRequestHandler], str]  # "passed on", "reset", "denied" or a status

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
_PIECE = 1 << 16
READER = ("reader", "may-only-read")


@dataclass
class FailingProxy:
    """What came by: the host to ask, the requests, and what was made of each."""

    host: str = ""
    seen: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, and what was done

    def count(self, what: str) -> int:
        return sum(1 for _, _, done in self.seen if done == what)


@dataclass
class Flaky:
    """Lets every `nth` request fail, in turn with 429, with 503 and with a reset connection."""

    every: int = 3
    number: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _handler: BaseHTTPRequestHandler) -> str:
        with self.lock:
            self.number += 1
            if self.number % self.every:
                return "passed on"
            return ("429", "503", "reset")[self.number // self.every % 3 - 1]


@dataclass
class HalfWritten:
    """Answers to the first manifest what docker-registry says while another client sends one of its blobs."""

    was_sent: bool = False

    def __call__(self, handler: BaseHTTPRequestHandler) -> str:
        if self.was_sent or handler.command != "PUT" or "/manifests/" not in handler.path:
            return "passed on"
        self.was_sent = True
        return "half-written"


def read_body(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """Give a request's body as it comes.

    Raises:
        ConnectionAbortedError: The client has gone before its end.
    """
    if handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
        while line := handler.rfile.readline():
            size = int(line.split(b";")[0], 16)
            piece = handler.rfile.read(size)
            handler.rfile.readline()
            if not size:
                return
            yield piece
        raise ConnectionAbortedError
    left = int(handler.headers.get("Content-Length") or 0)
    while left:
        piece = handler.rfile.read1(min(_PIECE, left))
        if not piece:
            raise ConnectionAbortedError
        left -= len(piece)
        yield piece


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def may_only_read(handler: BaseHTTPRequestHandler) -> str:
    """Refuse the reader's writing."""
    is_reader = handler.headers.get("Authorization") == _basic(*READER)
    return "denied" if is_reader and handler.command not in ("GET", "HEAD") else "passed on"


@contextmanager
def serve_front(registry: Registry, judge: Judge) -> Iterator[FailingProxy]:
    """Pass requests on to a registry in plain HTTP, but for those that are judged otherwise."""
    front = FailingProxy()
    with serving(Server(partial(_Passing, registry, judge, front))) as port:
        front.host = f"127.0.0.1:{port}"
        yield front


@contextmanager
def serve_proxy(names: dict[str, str]) -> Iterator[FailingProxy]:
    """Serve CONNECT to the names in the table, each at the place where it really is."""
    front = FailingProxy()
    with serving(Server(partial(_Proxy, names, front))) as port:
        front.host = f"127.0.0.1:{port}"
        yield front


class Server(ThreadingHTTPServer):
    """Listens on a free loopback port."""

    daemon_threads = True

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_arguments: object) -> None:
        """Write nothing when a client has gone."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, registry: Registry, judge: Judge, front: FailingProxy, *rest: Any) -> None:
        self.registry, self.judge, self.front = registry, judge, front
        super().__init__(*rest)

    def handle_any(self) -> None:
        done = self.judge(self)
        self.front.seen.append((self.command, self.path.partition("?")[0], done))
        if done == "passed on":
            self.pass_on()
        elif done == "reset":
            self.reset()
        elif done == "denied":
            self.refuse(403, "DENIED")
        elif done == "half-written":
            self.refuse(400, "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN")
        else:
            self.answer(int(done), b"", **({"Retry-After": "0"} if done == "429" else {}))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815  (the names it looks for)

    def refuse(self, status: int, *codes: str) -> None:
        errors = [{"code": code, "message": "as planned"} for code in codes]
        self.answer(status, json.dumps({"errors": errors}).encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.close_connection = True  # the request's body may not have been read
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        while select.select([self.connection], [], [], 1)[0] and self.connection.recv(_PIECE):
            pass  # else closing would reset the connection before the answer is read

    def reset(self) -> None:
        self.close_connection = True
        if self.command == "PATCH":
            self.rfile.read1(1000)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def pass_on(self) -> None:
        connection = http.client.HTTPConnection(self.registry.host, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, self.translated(value))
            body = read_body(self) if self.command in ("POST", "PATCH", "PUT") else None
            if body is not None:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(body, encode_chunked=body is not None)
            self.hand_back(connection.getresponse())
        finally:
            connection.close()

    def translated(self, value: str) -> str:
        """The reader is known to us and not to the registry."""
        reader = _basic(*READER)
        return _basic(self.registry.username, self.registry.password) if value == reader else value

    def hand_back(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        data = answer.read()
        length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Write nothing: the tests look at what was seen."""


class _Proxy(BaseHTTPRequestHandler):
    def __init__(self, names: dict[str, str], front: FailingProxy, *rest: Any) -> None:
        self.names, self.front = names, front
        super().__init__(*rest)

    def do_CONNECT(self) -> None:
        target = self.names.get(self.path)
        self.front.seen.append(("CONNECT", self.path, "passed on" if target else "refused"))
        self.close_connection = True
        if target is None:
            self.send_error(403)
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            pipes = {self.connection: there, there: self.connection}
            while True:
                for side in select.select(list(pipes), [], [])[0]:
                    data = side.recv(_PIECE)
                    if not data:
                        return
                    pipes[side].sendall(data)

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve for the block, which is given the port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
