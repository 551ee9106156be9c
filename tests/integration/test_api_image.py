"""From the public client to an image that predicts, through the service with its own executor."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from tests.integration.api_service import serve_api
from tests.integration.bases import make_base, user_environ
from tests.integration.odahu_client import OdahuClient, client_environment
from tests.integration.packaging import PackagingHarness, wait_until_serving, zip_folder
from tests.integration.registry import free_port
from tests.integration.test_api_client import shown, write
from tests.integration.test_packaging import ask, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.registry import Registry

pytestmark = [
    pytest.mark.needs("buildah", "podman", "runc", "docker-registry", "htpasswd", "mmdebstrap", "root", "index"),
    pytest.mark.timeout(900),
]
NAME = ("--id", "wine")


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str]) -> PackagingHarness:
    made = PackagingHarness(folder=tmp_path, environ=user_environ(storage), base=make_base("base", storage))
    made.put_model()
    (tmp_path / "models").mkdir()
    zip_folder(made.model, tmp_path / "models" / "wine.zip")
    return made


@pytest.fixture
def client(tmp_path: Path, harness: PackagingHarness) -> Iterator[OdahuClient]:
    settings = {"MODELS_DIR": str(tmp_path / "models"), "ENGINE": "buildah"}
    with serve_api(tmp_path / "data", harness.environ, **settings) as service:
        home = tmp_path / "home"
        home.mkdir()
        ours = OdahuClient(environment=client_environment(), home=home, service=service)
        ours.run("login", "--url", service.url, "--token", service.token)
        yield ours


def packaging(harness: PackagingHarness, port: int, artifact: str) -> dict[str, Any]:
    arguments = {"dockerfileBaseImage": harness.base, "imageName": "wine:1", "port": port}
    spec = {
        "integrationName": "docker-rest",
        "artifactName": artifact,
        "targets": [{"connectionName": "registry", "name": "docker-push"}],
        "arguments": arguments,
    }
    return {"kind": "ModelPackaging", "id": "wine", "spec": spec}


def test_packaged_model_predicts(client: OdahuClient, harness: PackagingHarness, password_registry: Registry) -> None:
    uri = f"{password_registry.host}/api"
    password = base64.b64encode(password_registry.password.encode()).decode()
    login = {"username": password_registry.username, "password": password}
    registry = {"kind": "Connection", "id": "registry", "spec": {"type": "docker", "uri": uri, **login}}
    rest = integration_document(INTEGRATION_TYPES["docker-rest"], "packager:test")
    port = free_port()
    missing = write(client, "missing.yaml", registry, rest, packaging(harness, port, "other.zip"))
    assert "created resources: 3" in client.run("bulk", "apply", missing)

    # The client waits for the end and follows the log till then; a failure has its reason.
    sound = write(client, "wine.yaml", packaging(harness, port, "wine.zip"))
    output = client.run("packaging", "edit", "-f", sound, "--timeout", "600", timeout=700)
    assert "Model wine was packed" in output
    [entity] = shown(client.run("packaging", "get", *NAME))
    results = {each["name"]: each["value"] for each in entity["status"]["results"]}
    digest = password_registry.digest("api/wine", "1")
    assert results["imageDigest"] == f"{uri}/wine@{digest}"
    value = client.run("packaging", "get", *NAME, "-o", "jsonpath=[*].status.results[*].value")
    assert json.loads(value) == [f"{uri}/wine:1", results["imageDigest"], results["modelCheck"]]
    assert results["modelCheck"] == "passed" or results["modelCheck"].startswith("skipped: ")

    logs = client.run("packaging", "logs", *NAME)
    assert str(digest) in logs
    assert client.run("packaging", "logs", *NAME, "--follow") == logs
    for secret in (password_registry.password, password):
        assert secret not in logs + output + client.service.log.read_text()

    with image(harness, password_registry, results["imageDigest"], "--read-only") as run, run() as served:
        wait_until_serving(port, served)
        body = json.dumps({"columns": ["features"] * 3, "data": [[1, 2, 3]]}).encode()
        answer = ask(f"http://127.0.0.1:{port}/api/model/invoke", body)
        assert answer == {"prediction": [[1.375]], "columns": ["predictions"]}
        run.stop()
        assert served.wait(30) == 0

    failing = packaging(harness, port, "wine.zip")
    failing["spec"]["arguments"]["dockerfileBaseImage"] = f"{password_registry.host}/no/base:1"
    output = client.run("packaging", "edit", "-f", write(client, "failing.yaml", failing), timeout=700, code=1)
    [entity] = shown(client.run("packaging", "get", *NAME))
    assert entity["status"]["state"] == "failed"
    assert entity["status"]["reason"] == "image-not-found"
    client.run("packaging", "delete", *NAME)
