"""The public client and SDK against the running service, on both databases."""

from __future__ import annotations

import base64
import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from packager.api.config import ApiSettings
from packager.api.server import open_listener
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from tests.integration.api_service import KEY, serve_api
from tests.integration.odahu_client import OdahuClient, client_environment
from tests.integration.postgres import serve_postgres
from tests.integration.test_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

# The client takes seconds to start, and is started a hundred times.
pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(900)]
# What a database could answer otherwise; the rest is the same from the routes on.
ON_BOTH = pytest.mark.parametrize("logged_in", ["sqlite", "postgresql"], indirect=True)
SECRET = base64.b64encode(b"s3cret-marker-of-the-client").decode()

REGISTRY = {
    "kind": "Connection",
    "id": "test-docker-registry",
    "spec": {
        "type": "docker",
        "uri": "localhost:1/project/odahuflow",
        "username": "ann",
        "password": SECRET,
        "webUILink": "http://localhost:1",
    },
}
STORE = {
    "kind": "Connection",
    "id": "models-output",
    "spec": {"type": "s3", "uri": "s3://models/output", "keyID": SECRET, "keySecret": SECRET, "region": "eu-west-1"},
}
PACKAGING = {
    "kind": "ModelPackaging",
    "id": "docker-rest-packager-example",
    "spec": {
        "integrationName": "docker-rest",
        "artifactName": "wine-model-123456789.zip",
        "targets": [{"connectionName": "test-docker-registry", "name": "docker-push"}],
        "arguments": {"imageName": "wine-test:prefix-{{ RandomUUID }}", "workers": 4},
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 1, "memory": "1Gi"}},
    },
}


@pytest.fixture(scope="module", params=["sqlite"])
def logged_in(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OdahuClient]:
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        settings = {"OUTPUT_CONNECTION": "models-output"}
        if request.param == "postgresql":
            server = stack.enter_context(serve_postgres())
            settings |= {"DATABASE_URL": server.new_database(), "KEY": KEY}
        service = stack.enter_context(serve_api(folder / "data", **settings))
        ours = OdahuClient(environment=client_environment(), home=folder, service=service)
        ours.run("login", "--url", service.url, "--token", service.token)
        yield ours


@pytest.fixture
def client(logged_in: OdahuClient) -> Iterator[OdahuClient]:
    yield logged_in
    with logged_in.service.client() as http:  # what a test that fails has left is no other's trouble
        for path in ("/api/v1/model/packaging", "/api/v1/packaging/integration", "/api/v1/connection"):
            for left in http.get(path).json():
                http.delete(f"{path}/{left['id']}")


def write(client: OdahuClient, name: str, *documents: dict[str, Any]) -> str:
    path: Path = client.home / name
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def shown(text: str) -> list[dict[str, Any]]:
    found = yaml.safe_load(text)
    assert isinstance(found, list)
    return found


def rows(table: str) -> int:
    """Return how many entities a table shows; its cells are broken into lines anywhere."""
    return sum(line.startswith("+--") for line in table.splitlines()) - 1


def test_response_does_not_wait_for_an_acknowledgement() -> None:
    with (
        open_listener(ApiSettings(listen="127.0.0.1:0")) as listener,
        socket.create_connection(listener.getsockname()) as ours,
        listener.accept()[0] as theirs,
    ):
        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert ours.fileno() > 0


def test_login_refuses_an_invalid_token(client: OdahuClient, tmp_path: Path) -> None:
    other = OdahuClient(environment=client.environment, home=tmp_path, service=client.service)
    assert "Credentials are not correct" in other.run("login", "--url", client.service.url, "--token", "x", code=1)
    other.run("login", "--url", client.service.url, "--token", client.service.read_only)
    file = write(client, "registry.yaml", REGISTRY)
    assert "read-only" in other.run("connection", "create", "-f", file, code=1)
    assert yaml.safe_load(other.run("connection", "get")) == []


@ON_BOTH
def test_client_manages_connections(client: OdahuClient) -> None:
    file = write(client, "registry.yaml", REGISTRY)
    [created] = shown(client.run("connection", "create", "-f", file))
    assert created["id"] == "test-docker-registry"
    assert created["spec"]["password"] == "*****"
    assert "already exists" in client.run("connection", "create", "-f", file, code=1)
    [decrypted] = shown(client.run("connection", "get", "--id", "test-docker-registry", "--decrypted"))
    assert decrypted["spec"]["password"] == SECRET
    masked = {**REGISTRY, "spec": {**created["spec"], "description": "ours"}}
    client.run("connection", "edit", "-f", write(client, "edited.yaml", masked))
    [decrypted] = shown(client.run("connection", "get", "--id", "test-docker-registry", "--decrypted"))
    assert (decrypted["spec"]["password"], decrypted["spec"]["description"]) == (SECRET, "ours")
    assert rows(client.run("connection", "get", "-o", "table")) == 1
    client.run("connection", "create", "-f", write(client, "vital.yaml", {**REGISTRY, "id": "vital"}))
    assert "Connection vital was deleted" in client.run("connection", "delete", "--id", "vital")
    assert "is not found" in client.run("connection", "delete", "--id", "vital", code=1)
    client.run("connection", "delete", "--id", "vital", "--ignore-not-found")
    client.run("connection", "delete", "--id", "test-docker-registry")


def test_client_manages_integrations(client: OdahuClient) -> None:
    document = integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1")
    file = write(client, "rest.yaml", document)
    [created] = shown(client.run("packaging-integration", "create", "-f", file))
    assert created["spec"]["schema"] == document["spec"]["schema"] | {
        "targets": [{**target, "default": ""} for target in document["spec"]["schema"]["targets"]]
    }
    assert "already exists" in client.run("packaging-integration", "create", "-f", file, code=1)
    document["spec"]["defaultImage"] = "packager:2"
    client.run("packaging-integration", "edit", "-f", write(client, "rest.yaml", document))
    image = client.run("packaging-integration", "get", "-o", "jsonpath=[*].spec.defaultImage")
    assert image.strip() == "packager:2"
    assert rows(client.run("packaging-integration", "get", "--id", "docker-rest", "-o", "table")) == 1
    client.run("packaging-integration", "delete", "--id", "docker-rest")
    assert "is not found" in client.run("packaging-integration", "get", "--id", "docker-rest", code=1)
    client.run("packaging-integration", "delete", "--id", "docker-rest", "--ignore-not-found")


def what_is_asked(entity: dict[str, Any]) -> dict[str, Any]:
    """A packaging without what changes while it runs."""
    return {name: value for name, value in entity.items() if name not in {"status", "updatedAt"}}


@ON_BOTH
def test_client_manages_packagings(client: OdahuClient) -> None:
    world = write(
        client, "world.yaml", REGISTRY, STORE, integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1")
    )
    assert "created resources: 3" in client.run("bulk", "apply", world)
    file = write(client, "pack.yaml", PACKAGING)
    assert "Start packing" in client.run("packaging", "create", "-f", file, "--no-wait")
    again = client.run("packaging", "create", "-f", file, "--no-wait", code=1)
    assert 'entity "docker-rest-packager-example" already exists' in again
    assert "already exists" in client.run("packaging", "create", "-f", file, "--no-wait", "--ignore-if-exists")
    as_json = json.loads(client.run("pack", "get", "--output-format", "json"))
    as_yaml = shown(client.run("pack", "get"))
    assert [*map(what_is_asked, as_json)] == [*map(what_is_asked, as_yaml)]
    [found] = as_json
    assert found["spec"]["arguments"]["workers"] == 4
    assert found["spec"]["arguments"]["port"] == 5000
    assert found["spec"]["outputConnection"] == "models-output"
    assert found["status"]["state"] in {"scheduling", "running", "failed"}
    assert found["createdAt"]
    name = ("--id", "docker-rest-packager-example")
    assert client.run("pack", "get", *name, "-o", "jsonpath=[*].spec.arguments.workers").strip() == "4"
    with client.service.client() as http:
        results = [{"name": "image", "value": "localhost:1/wine:1"}]
        assert http.put("/api/v1/model/packaging/docker-rest-packager-example/result", json=results).is_success
    value = client.run("pack", "get", *name, "-o", "jsonpath=$[0].status.results[0].value")
    assert value.strip() == "localhost:1/wine:1"
    second = {**PACKAGING, "id": "second", "spec": {**PACKAGING["spec"], "resources": None, "arguments": None}}  # type: ignore[dict-item]
    client.run("packaging", "create", "-f", write(client, "second.yaml", second), "--no-wait")
    assert rows(client.run("pack", "get", "-o", "table")) == 2
    client.run("packaging", "delete", "--id", "second")
    edited = {**PACKAGING, "spec": {**PACKAGING["spec"], "arguments": {"workers": 2}}}  # type: ignore[dict-item]
    assert "Rerun packing" in client.run("packaging", "edit", "-f", write(client, "pack.yaml", edited), "--no-wait")
    [found] = shown(client.run("pack", "get", *name))
    assert found["spec"]["arguments"]["workers"] == 2
    wrong = {**PACKAGING, "id": "wrong", "spec": {"integrationName": "docker-rest", "artifactName": ""}}
    output = client.run("packaging", "create", "-f", write(client, "wrong.yaml", wrong), "--no-wait", code=1)
    assert "artifactName is empty or missing" in output
    assert "target 'docker-push' is required" in output
    assert "docker-rest-packager-example was deleted" in client.run("packaging", "delete", "-f", file)
    assert "is not found" in client.run("packaging", "delete", *name, code=1)
    client.run("packaging", "delete", *name, "--ignore-not-found")
    assert "removed resources: 3" in client.run("bulk", "delete", world)


def test_client_applies_and_deletes_in_bulk(client: OdahuClient) -> None:
    everything = write(
        client,
        "all.yaml",
        REGISTRY,
        STORE,
        integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1"),
        PACKAGING,
    )
    assert "created resources: 4" in client.run("bulk", "apply", everything)
    assert "changed resources: 4" in client.run("bulk", "apply", everything)
    assert "removed resources: 4" in client.run("bulk", "delete", everything)
    assert "Operation completed" in client.run("bulk", "delete", everything)
    assert yaml.safe_load(client.run("packaging", "get")) == []


_SDK = """
import asyncio, json
from odahuflow.sdk.clients.api import EntityAlreadyExists, WrongHttpStatusCode
from odahuflow.sdk.clients.configuration import ConfigurationClient
from odahuflow.sdk.clients.connection import AsyncConnectionClient, ConnectionClient
from odahuflow.sdk.clients.packaging import AsyncModelPackagingClient, ModelPackagingClient
from odahuflow.sdk.clients.packaging_integration import AsyncPackagingIntegrationClient, PackagingIntegrationClient
from odahuflow.sdk.clients.user_info import AsyncUserInfoClient, UserInfoClient
from odahuflow.sdk.models import Connection, ModelPackaging, PackagingIntegration

connection, store, integration, packaging = json.loads(DOCUMENTS)
KINDS = [
    (ConnectionClient, AsyncConnectionClient, Connection, connection),
    (ConnectionClient, AsyncConnectionClient, Connection, store),
    (PackagingIntegrationClient, AsyncPackagingIntegrationClient, PackagingIntegration, integration),
    (ModelPackagingClient, AsyncModelPackagingClient, ModelPackaging, packaging),
]
for sync, _, model, document in KINDS:
    client, entity = sync(URL, TOKEN), model.from_dict(document)
    assert client.create(entity).id == entity.id
    try:
        client.create(entity)
    except EntityAlreadyExists as error:
        assert "already exists" in str(error)
    else:
        raise AssertionError("created twice")
    found = client.get(entity.id)
    assert client.edit(found).spec == found.spec
    assert entity.id in [each.id for each in client.get_all()]
for sync, _, model, document in reversed(KINDS):
    client = sync(URL, TOKEN)
    assert "was deleted" in str(client.delete(document["id"]))
    try:
        client.get(document["id"])
    except WrongHttpStatusCode as error:
        assert error.status_code == 404

async def together():
    for _, kind, model, document in KINDS:
        client, entity = kind(URL, TOKEN), model.from_dict(document)
        assert (await client.create(entity)).id == entity.id
        found = await client.get(entity.id)
        assert (await client.edit(found)).spec == found.spec
        assert entity.id in [each.id for each in await client.get_all()]
    for _, kind, model, document in reversed(KINDS):
        assert "was deleted" in str(await kind(URL, TOKEN).delete(document["id"]))
    assert (await AsyncUserInfoClient(URL, TOKEN).get()).username == "ann"

asyncio.run(together())
assert UserInfoClient(URL, TOKEN).get().username == "ann"
assert ConfigurationClient(URL, TOKEN).get().packaging.output_connection_id == "models-output"
print("seen")
"""


def test_sdk_manages_all_entities(client: OdahuClient) -> None:
    documents = [REGISTRY, STORE, integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1"), PACKAGING]
    own = {"URL": client.service.url, "TOKEN": client.service.token, "DOCUMENTS": json.dumps(documents)}
    head = "\n".join(f"{name} = {value!r}" for name, value in own.items())
    assert client.python(f"{head}\n{_SDK}").strip() == "seen"


@ON_BOTH
def test_no_secret_is_in_any_file_or_log(client: OdahuClient) -> None:
    marker = base64.b64decode(SECRET)
    with client.service.client() as http:
        http.post("/api/v1/connection", json={**REGISTRY, "id": "marked"})
        answers = [http.get(path).content for path in ("/api/v1/connection", "/api/v1/connection/marked", "/metrics")]
        http.delete("/api/v1/connection/marked")
    forms = (marker, SECRET.encode(), client.service.token.encode())

    def leaks(content: bytes) -> bool:
        return any(form in content for form in forms)

    def files() -> Iterator[Path]:
        # As `rglob` does, but what goes away meanwhile is passed over.
        return (Path(folder, name) for folder, _, names in os.walk(client.service.folder) for name in names)

    assert not any(map(leaks, answers))
    assert any(files())
    # A run of an earlier test that is still being stopped has its manifest.
    wait_for(lambda: not any(leaks(_read(path)) for path in files()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # since it was listed
        return b""
