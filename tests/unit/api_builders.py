"""A service in memory of the test: a database in a folder, an application that is asked without a socket."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx

from packager.api.application import create_app
from packager.api.config import ApiSettings
from packager.api.identity import identity_from
from packager.api.identity.tokens import add_token
from packager.api.service import Service
from packager.api.store import Store, open_store
from packager.api.store.encryption import SecretCipher
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
DOCKER_REST = integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1")


class NoNetwork(httpx.BaseTransport):
    """A transport that reaches nothing."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"asked for {request.url}")

    def close(self) -> None:
        pass


def make_store(folder: Path, key: str = KEY) -> Store:
    return open_store(f"sqlite:///{folder / 'packager.db'}", SecretCipher([key], "the test's key"))


def make_service(folder: Path, transport: httpx.BaseTransport | None = None, **settings: Any) -> Service:
    made = ApiSettings.model_validate({"data_dir": folder, "output_connection": "store", **settings})
    identity = identity_from(made, transport or NoNetwork())
    return Service(settings=made, store=make_store(folder), identity=identity)


class InProcess(httpx.BaseTransport):
    """Asks an application without a socket, from its start to its end."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._loop.run_until_complete(self._stack.enter_async_context(app.router.lifespan_context(app)))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._loop.run_until_complete(self._ask(request, request.read()))

    async def _ask(self, request: httpx.Request, body: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False, client=("192.0.2.7", 1234))
        asked = httpx.Request(request.method, request.url, headers=request.headers.raw, content=body)
        answer = await transport.handle_async_request(asked)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

    def close(self) -> None:
        self._loop.run_until_complete(self._stack.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def make_client(service: Service, token: str = "") -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(transport=InProcess(create_app(service)), base_url="http://localhost", headers=headers)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def connection(connection_id: str = "registry", **spec: Any) -> dict[str, Any]:
    return {"id": connection_id, "spec": {"type": "docker", "uri": "localhost:5000/models", **spec}}


def store_connection() -> dict[str, Any]:
    return connection("store", type="s3", uri="s3://models/trained", keyID=encoded("key-id"), keySecret=encoded("hush"))


def packaging(packaging_id: str = "wine", **spec: Any) -> dict[str, Any]:
    own = {
        "integrationName": "docker-rest",
        "artifactName": "wine-1.zip",
        "targets": [{"name": "docker-push", "connectionName": "registry"}],
    }
    return {"id": packaging_id, "spec": {**own, **spec}}


def furnish(client: httpx.Client) -> httpx.Client:
    """Create what a packaging needs."""
    assert client.post("/api/v1/packaging/integration", json=DOCKER_REST).status_code == 201
    for each in (connection(), store_connection()):
        assert client.post("/api/v1/connection", json=each).status_code == 201
    return client


def token_file(folder: Path) -> tuple[Path, str, str]:
    """Return a token file with a token that may write and one that may not."""
    path = folder / f"tokens-{os.urandom(4).hex()}"
    return path, add_token(path, "ann", may_write=True), add_token(path, "ben", may_write=False)
