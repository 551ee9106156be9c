"""A loopback HTTP server in front of a registry: counts what is sent, and does to requests what a test asks for."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.registry import Registry

_CHUNK = 1 << 16
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class FaultProxy:
    """What was seen, and what is to be done.

    Attributes:
        answers: Answers a request in the registry's place: (method, path) -> status and body, or None to pass it on.
        rewrites: Changes the path that is passed on.
        changes: Changes an answer: (method, path, headers, body) -> body.
        cuts: How many bytes of a PATCH are passed on before its connection is cut; each is used once.
        slow: Waits a moment at each piece of a body.
        stalled: While set, no piece of a body is passed on.
        reached: Set when a body has begun.
    """

    target: str
    host: str = ""
    answers: Callable[[str, str], tuple[int, bytes] | None] = lambda _method, _path: None
    rewrites: Callable[[str, str], str] = lambda _method, path: path
    changes: Callable[[str, str, dict[str, str], bytes], bytes] = lambda _method, _path, _headers, body: body
    cuts: list[int] = field(default_factory=list)
    slow: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, words: str) -> int:
        return sum(1 for each, path in self.asked if each == method and words in path)

    def forget(self) -> None:
        self.asked.clear()
        self.sent = 0
        self.reached.clear()

    def take(self, size: int) -> None:
        with self.lock:
            self.sent += size

    def next_cut(self) -> int | None:
        with self.lock:
            return self.cuts.pop(0) if self.cuts else None

    def hold(self) -> None:
        self.reached.set()
        if self.slow:
            time.sleep(0.02)
        while self.stalled.is_set():
            time.sleep(0.05)


@contextmanager
def serve_front(registry: Registry) -> Iterator[FaultProxy]:
    front = FaultProxy(registry.host)

    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"front": front}))
    front.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield front
    finally:
        front.stalled.clear()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no trouble of ours."""


class _CutError(Exception):
    pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: FaultProxy

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        front = self.front
        with front.lock:
            front.asked.append((self.command, self.path))
        front.take(len(self.requestline) + len(str(self.headers)))
        answer = front.answers(self.command, self.path)
        if answer is not None:
            for _ in self._body():
                pass
            self._answer(answer[0], {"Content-Type": "application/json"}, answer[1])
            return
        connection = http.client.HTTPConnection(front.target, timeout=60)
        try:
            self._pass_on(connection)
        except _CutError:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.close()

    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _pass_on(self, connection: http.client.HTTPConnection) -> None:
        path = self.front.rewrites(self.command, self.path)
        connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self.front.host)  # the registry writes its addresses with it
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        length = self.headers.get("Content-Length")
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif length is not None:
            connection.putheader("Content-Length", length)
        connection.endheaders()
        cut = self.front.next_cut() if self.command == "PATCH" else None
        passed = 0
        for data in self._body():
            self.front.hold()
            if cut is not None and passed + len(data) > cut:
                raise _CutError
            connection.send(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            passed += len(data)
        if chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP - {"content-length"}}
        body = self.front.changes(self.command, self.path, headers, answer.read())
        self._answer(answer.status, headers, body)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data = self.rfile.read(size)
                self.rfile.readline()
                self.front.take(len(data))
                yield data
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            data = self.rfile.read(min(left, _CHUNK))
            if not data:
                return
            left -= len(data)
            self.front.take(len(data))
            yield data

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
