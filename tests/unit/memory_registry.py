"""A registry in memory, on the other side of httpx's transport: real requests and answers, no socket."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from packager.registry.access import RegistryAccess
from packager.registry.credentials import Credential
from packager.registry.docker_config import DockerConfig
from packager.registry.keychain import Keychain

HOST = "r.io"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def reply(status: int, content: bytes = b"", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(content))


@dataclass
class MemoryRegistry:
    """Keeps blobs by repository, and manifests by repository and name; keeps what it was asked.

    Attributes:
        mounts: Whether it takes blobs over from other repositories.
    """

    mounts: bool = True
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = request.read() if request.method in {"PUT", "PATCH"} else b""
        with self.lock:
            self.asked.append((request.method, request.url.path))
            found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.*)", request.url.path)
            if found is None:
                return reply(200)
            path, kind, name = found.groups()
            if kind == "manifests":
                return self._manifest(request, path, name, body)
            if name.startswith("uploads/"):
                return self._upload(request, path, name.removeprefix("uploads/"), body)
            data = self.blobs.get((path, name))
            return reply(404) if data is None else reply(200, data, Content_Length=str(len(data)))

    def _manifest(self, request: httpx.Request, path: str, name: str, body: bytes) -> httpx.Response:
        if request.method == "PUT":
            for key in (name, digest_of(body)):
                self.manifests[path, key] = (request.headers["Content-Type"], body)
            return reply(201, Docker_Content_Digest=digest_of(body))
        media_type, data = self.manifests.get((path, name), ("", b""))
        return reply(200, data, Content_Type=media_type) if data else reply(404)

    def _upload(self, request: httpx.Request, path: str, number: str, body: bytes) -> httpx.Response:
        parameters = request.url.params
        if request.method == "POST":
            data = self.blobs.get((parameters.get("from", ""), parameters.get("mount", "")))
            if data is not None and self.mounts:
                self.blobs[path, parameters["mount"]] = data
                return reply(201)
            number = str(len(self.asked))
            self.uploads[number] = b""
        elif request.method == "DELETE":
            return reply(204 if self.uploads.pop(number, None) is not None else 404)
        else:
            self.uploads[number] += body
        if request.method == "PUT":
            data = self.uploads.pop(number)
            if digest_of(data) != parameters["digest"]:
                return reply(400)
            self.blobs[path, parameters["digest"]] = data
            return reply(201)
        return reply(202, Location=f"/v2/{path}/blobs/uploads/{number}")

    def put(self, path: str, data: bytes) -> str:
        self.blobs[path, digest_of(data)] = data
        return digest_of(data)

    def put_manifest(self, path: str, name: str, document: Any) -> str:
        data = json.dumps(document).encode()
        for key in (name, digest_of(data)):
            self.manifests[path, key] = (document.get("mediaType", ""), data)
        return digest_of(data)


def serve(patch: pytest.MonkeyPatch, registry: MemoryRegistry) -> None:
    """Let every request of the test go to the registry."""

    class Client(httpx.Client):
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "transport": httpx.MockTransport(registry)})

    patch.setattr(httpx, "Client", Client)


def anonymous_access() -> RegistryAccess:
    return RegistryAccess(insecure_hosts=frozenset({HOST}))


def keychain_of(*logins: Credential) -> Keychain:
    return Keychain(user=DockerConfig().with_logins(logins))
