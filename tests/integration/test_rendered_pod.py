"""`packager pack create` whose Job is run for real: its pod under podman, from the body that came over the wire."""

from __future__ import annotations

import base64
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from packager.cli import app
from tests.integration.api_server import ApiServer
from tests.integration.bases import plain_channel
from tests.integration.packaging import CONDA_FORGE, MODELS, zip_folder
from tests.integration.pod import job_image, push_base
from tests.integration.registry import PASSWORD
from tests.integration.rendered_pod import Kubelet
from tests.integration.storage_servers import KEY_ID, KEY_SECRET, REGION, serve_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from tests.integration.registry import Registry
    from tests.integration.storage_servers import S3

pytestmark = [
    pytest.mark.needs("buildah", "podman", "runc", "docker-registry", "htpasswd", "patchelf", "root"),
    pytest.mark.timeout(900),  # the first makes the Job image
]
RUNNING = {"running": {"startedAt": "2026-03-01T10:00:02Z"}}


@pytest.fixture(scope="session")
def image(storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return job_image({**os.environ, **storage}, tmp_path_factory.mktemp("rendered") / "placeholder")


class Place:
    """A cluster of one node that is this machine, and a packaging for it."""

    def __init__(
        self, folder: Path, server: ApiServer, image: str, registry: Registry, environ: dict[str, str]
    ) -> None:
        self.folder, self.server, self.registry = folder, server, registry
        self.models = folder / "models"
        self.models.mkdir()
        shutil.copytree(plain_channel(), self.models / "channel")
        self.kubelet = Kubelet(
            folder=folder,
            environ=environ,
            secrets=lambda name: server.objects["secrets", name]["data"],
            claims={"models": self.models},
        )
        server.scene = self.play
        self.image = image
        self.store: dict[str, str] = {}  # the spec of a connection, where the model isn't on the claim
        self.set_jobs("/kaniko/model", modelClaim="models")
        self.kubeconfig = server.kubeconfig(folder / "kubeconfig")
        self.connection = registry.connection("models").spec
        self.base = push_base("debian", registry, environ, folder / "base")

    def set_jobs(self, claim: str, environ: dict[str, str] | None = None, **more: str) -> None:
        """Say what all Jobs have; the claim, where it is mounted, brings the channel."""
        env = {"PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{claim}/channel", **(environ or {})}
        text = json.dumps({"image": self.image, "env": env, **more})
        self.server.put("configmaps", {"metadata": {"name": "packager-jobs"}, "data": {"settings.yaml": text}})

    def use_store(self, s3: S3, bucket: str) -> None:
        """Take models from a new bucket; the claim keeps the cache then."""
        s3.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.models.chmod(0o777)
        self.set_jobs("/kaniko/cache-packager", s3.environ, cacheClaim="models")
        keys = {"keyID": KEY_ID, "keySecret": KEY_SECRET}
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        self.store = {"type": "s3", "uri": f"s3://{bucket}/trained", "region": REGION, **encoded}

    def play(self, server: ApiServer, job: dict[str, Any]) -> None:
        """Do what a node does with a Job's pod."""
        server.wait_for("secrets")
        server.pod(job, phase="Running", state=RUNNING)
        name = f"{job['metadata']['name']}-pod1"
        code, message = self.kubelet.run(job, lambda line: server.say(name, line))
        server.ended(job, code, message)
        server.finish(job, *(("Failed", "PodFailurePolicy") if code else ("Complete",)))

    def put_model(self) -> Path:
        model = self.folder / "model"
        shutil.copytree(MODELS / "wine", model)
        (model / "odahuflow_model/conda.yaml").write_text(
            "name: wine\nchannels: [conda-forge]\ndependencies: [python]\n"
        )
        return model

    def create(self, *, password: str = PASSWORD, engine: str = "kaniko") -> Result:
        zip_folder(self.folder / "model", self.models / "wine.zip")
        spec = {"type": "docker", "uri": self.connection.uri, "username": self.connection.username}
        spec["password"] = base64.b64encode(password.encode()).decode()
        targets = [{"name": name, "connectionName": "registry"} for name in ("docker-push", "docker-pull")]
        arguments = {"imageName": "rendered-{{ Name }}:1", "dockerfileBaseImage": self.base}
        own = {"integrationName": "docker-rest", "artifactName": "wine.zip", "arguments": arguments, "targets": targets}
        documents = [{"id": "wine", "spec": own}, {"kind": "Connection", "id": "registry", "spec": spec}]
        if self.store:
            own["outputConnection"] = "models"
            documents.append({"kind": "Connection", "id": "models", "spec": self.store})
        file = self.folder / "pack.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        words = ["pack", "create", "-f", str(file), "--engine", engine, "--timeout", "200"]
        words += ["--kubeconfig", str(self.kubeconfig)]
        done = CliRunner().invoke(app, words)
        assert password not in done.output
        assert KEY_SECRET not in done.output
        return done

    def status(self) -> dict[str, Any]:
        words = ["pack", "get", "--id", "wine", "-o", "jsonpath=[0].status", "--kubeconfig", str(self.kubeconfig)]
        status: dict[str, Any] = json.loads(CliRunner().invoke(app, words).stdout)
        return status


@pytest.fixture
def place(tmp_path: Path, image: str, password_registry: Registry, storage: dict[str, str]) -> Iterator[Place]:
    with ApiServer() as server:
        yield Place(tmp_path, server, image, password_registry, storage)


def test_a_broken_archive_is_told_from_the_termination_log(place: Place) -> None:
    model = place.put_model()
    (model / "odahuflow.project.yaml").write_text("binaries: {type: ruby}\n")
    done = place.create()
    assert done.exit_code == 11, done.stderr
    assert "ruby" in done.stderr
    status = place.status()
    assert (status["state"], status["exitCode"], status["reason"]) == ("failed", 11, "manifest")
    assert "ruby" in status["message"]
    assert list((place.folder / "volumes/work").glob("packager-*")) == []


def test_a_wrong_password_is_told_from_the_termination_log(place: Place) -> None:
    place.put_model()
    done = place.create(password="wrong-password")
    assert done.exit_code == 31, done.stderr
    status = place.status()
    assert (status["state"], status["reason"], status["results"]) == ("failed", "registry-auth", [])
    assert "wrong-password" not in json.dumps(status)


@pytest.mark.parametrize("engine", ["oci", pytest.param("kaniko", marks=pytest.mark.needs("kaniko-executor"))])
def test_a_model_becomes_an_image_in_the_registry(place: Place, engine: str) -> None:
    place.put_model()
    done = place.create(engine=engine)
    assert done.exit_code == 0, done.stderr
    digest = place.registry.digest("models/rendered-wine", "1")
    assert done.stdout.strip() == f"{place.registry.host}/models/rendered-wine@{digest}"
    assert place.status()["results"][0] == {"name": "image", "value": f"{place.registry.host}/models/rendered-wine:1"}


@pytest.fixture
def s3() -> Iterator[S3]:
    with serve_s3() as running:
        yield running


def test_a_model_in_a_store_becomes_an_image_in_the_registry(place: Place, s3: S3) -> None:
    """The pod fetches it itself, with the connection that `outputConnection` names, from its mp.json."""
    place.use_store(s3, "rendered-models")
    archive = zip_folder(place.put_model(), place.folder / "stored.zip")
    s3.client.upload_file(str(archive), "rendered-models", "trained/wine.zip")
    done = place.create(engine="oci")
    assert done.exit_code == 0, done.stderr
    digest = place.registry.digest("models/rendered-wine", "1")
    assert done.stdout.strip() == f"{place.registry.host}/models/rendered-wine@{digest}"
    results = {each["name"]: each["value"] for each in place.status()["results"]}
    assert results["imageDigest"] == done.stdout.strip()
    job = json.dumps(place.server.objects["jobs", "wine"])
    assert KEY_SECRET not in job
    assert "/kaniko/model" not in job
    assert list((place.folder / "volumes/work").glob("packager-*")) == []


def test_a_model_that_the_store_has_not_is_told_from_the_termination_log(place: Place, s3: S3) -> None:
    place.use_store(s3, "rendered-nothing")
    place.put_model()
    done = place.create(engine="oci")
    assert done.exit_code == 10, done.stderr
    status = place.status()
    assert (status["state"], status["exitCode"], status["reason"]) == ("failed", 10, "artifact")
    assert "s3://rendered-nothing/trained/wine.zip" in status["message"]
