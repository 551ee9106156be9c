"""A registry that takes uploads, living in a transport: it keeps the bytes that reached it, as the specification says.

Trouble is planned: `plan["PATCH"]` lists what happens to the first, second, ... such request: None for nothing, a
status, `Refused(code)` for an error code of the specification, `Cut(n)` for a connection that breaks after n bytes of
the body, `Lost()` for an answer that never comes. `statuses` are what it answers a success with, by method.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from packager.models.image import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = 's3cret "pass:word"'
BASIC = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
STATE = "st4te/t+ken"
QUOTED = quote(STATE, safe="")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor_of(data: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=digest_of(data), size=len(data))


@dataclass(frozen=True)
class Cut:
    after: int


@dataclass(frozen=True)
class Lost:
    pass


@dataclass(frozen=True)
class Refused:
    code: str
    status: int = 400
    message: str = ""
    detail: str = ""

    def body(self) -> bytes:
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return json.dumps({"errors": [error]}).encode()


class Unread(httpx.BaseTransport):
    """Stands for the network as `httpx.MockTransport` does, but leaves the reading of bodies to who answers."""

    def __init__(self, handler: Callable[[httpx.Request], httpx.Response]) -> None:
        self._handler = handler

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._handler(request)


@dataclass
class RequestContext:
    method: str
    path: str
    query: dict[str, str]
    headers: httpx.Headers
    body: bytes = b""


@dataclass
class UploadRegistry:
    plan: dict[str, list[Any]] = field(default_factory=dict)
    answers: dict[int, dict[str, str]] = field(default_factory=dict)
    token: str = ""
    mounts: bool = True
    takes_parts: bool = True
    keeps_parts: bool = True
    stored_as: str = ""
    location: str | None = None
    statuses: dict[str, int] = field(default_factory=dict)
    moves: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    open: dict[str, bytearray] = field(default_factory=dict)
    asked: list[RequestContext] = field(default_factory=list)
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    uploads: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = RequestContext(request.method, request.url.path, dict(request.url.params), request.headers)
        self.asked.append(asked)
        if request.url.host == "auth.io":
            return self.reply(200, b'{"token": "%s"}' % self.token.encode())
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.reply(401, WWW_Authenticate='Bearer realm="https://auth.io/t",service="r.io",scope="x:push"')
        number = self.counts[asked.method]
        self.counts[asked.method] += 1
        trouble = (self.plan.get(asked.method) or [None] * (number + 1))[number:][:1]
        return self.answer(request, asked, trouble[0] if trouble else None)

    def answer(self, request: httpx.Request, asked: RequestContext, trouble: Any) -> httpx.Response:
        if callable(trouble):
            trouble = trouble()
        if isinstance(trouble, int | Refused):
            for _chunk in self.body(request):
                pass  # a client reads no answer before it has sent everything
            if isinstance(trouble, Refused):
                return self.reply(trouble.status, trouble.body())
            return self.reply(trouble, b"the reason", **self.answers.get(trouble, {}))
        for chunk in self.body(request):
            room = len(chunk) if not isinstance(trouble, Cut) else max(0, trouble.after - len(asked.body))
            asked.body += chunk[:room]
            if room < len(chunk):
                if self.keeps_parts and asked.method == "PATCH":
                    self.open[asked.path] += asked.body
                raise httpx.WriteError("Connection reset by peer")
        answer: httpx.Response = getattr(self, asked.method.lower())(asked)
        if answer.is_success:
            answer.status_code = self.statuses.get(asked.method, answer.status_code)
        if isinstance(trouble, Lost):
            raise httpx.ReadError("Connection reset by peer")
        return answer

    def body(self, request: httpx.Request) -> Iterator[bytes]:
        assert isinstance(request.stream, httpx.SyncByteStream)
        yield from request.stream

    def head(self, asked: RequestContext) -> httpx.Response:
        return self.reply(200 if asked.path.rpartition("/")[2] in self.blobs else 404)

    def post(self, asked: RequestContext) -> httpx.Response:
        if self.mounts and asked.query.get("mount") in self.blobs:
            return self.reply(201, Docker_Content_Digest=self.stored_as or asked.query["mount"])
        if self.location is not None:
            return self.reply(202, Location=self.location)
        self.uploads += 1
        path = f"/v2/team/wine/blobs/uploads/{self.uploads}"
        self.open[path] = bytearray()
        return self.reply(202, Location=f"{path}?_state={QUOTED}", Range="0-0")

    def get(self, asked: RequestContext) -> httpx.Response:
        if "/manifests/" in asked.path:
            stored = self.manifests.get(asked.path.rpartition("/")[2])
            return self.reply(404) if stored is None else self.reply(200, stored)
        if asked.path not in self.open:
            return self.reply(404)
        size = len(self.open[asked.path])
        return self.reply(204, Location=f"{asked.path}?_state={QUOTED}&n={size}", Range=f"0-{max(0, size - 1)}")

    def patch(self, asked: RequestContext) -> httpx.Response:
        if not self.takes_parts:
            return self.reply(405)
        if asked.path not in self.open:
            return self.reply(404, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "gone"}]}')
        had = self.open[asked.path]
        if "Content-Range" in asked.headers:
            first, last = map(int, asked.headers["Content-Range"].split("-"))
            if first != len(had) or last - first + 1 != len(asked.body):
                return self.reply(416)
        had += asked.body
        answer = self.reply(202, Range=f"0-{len(had) - 1}")
        if self.moves:
            answer.headers["Location"] = f"{asked.path}?_state={QUOTED}&n={len(had)}"
        return answer

    def put(self, asked: RequestContext) -> httpx.Response:
        name = asked.path.rpartition("/")[2]
        if "/manifests/" in asked.path:
            self.manifests[name] = asked.body
            return self.reply(201, Docker_Content_Digest=self.stored_as or digest_of(asked.body))
        if asked.path not in self.open:
            return self.reply(404)
        if asked.query["_state"] != STATE:
            return self.reply(400, b"another state")
        data = bytes(self.open.pop(asked.path)) + asked.body
        if digest_of(data) != asked.query["digest"]:
            return self.reply(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "another digest"}]}')
        self.blobs[digest_of(data)] = data
        return self.reply(201, Docker_Content_Digest=self.stored_as or digest_of(data))

    def delete(self, asked: RequestContext) -> httpx.Response:
        return self.reply(404 if self.open.pop(asked.path, None) is None else 204)

    def reply(self, status: int, content: bytes = b"", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, headers=named, stream=httpx.ByteStream(content))

    def methods(self) -> list[str]:
        return [asked.method for asked in self.asked if asked.path != "/t"]

    def bodies(self) -> list[bytes]:
        return [asked.body for asked in self.asked if asked.method in ("PATCH", "PUT") and asked.body]
