"""Packagings that the service runs as Jobs, against an API server on the wire."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from packager.api.entities import NewIntegration, NewPackaging, PackagingStatus
from packager.api.executors.kubernetes import RUN, KubernetesExecutor
from packager.api.log_files import read_log
from packager.api.store import Store, open_store
from packager.api.store.encryption import make_key_file
from packager.api.supervisor import Supervisor, SupervisorConfig
from packager.kube.cluster import Access, connect
from packager.models.connection import Connection
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from packager.system.retries import RetryPolicy
from tests.integration.api_server import ApiServer, permissions
from tests.integration.packaging import ROOT
from tests.integration.packagings import Place, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs()

RESULTS = {"image": "gcr.io/project/wine:1.0", "imageDigest": "gcr.io/project/wine@sha256:" + "ab" * 32}
RUNNING = {"running": {"startedAt": "2026-03-01T10:00:02Z"}}
SPEC = {
    "integrationName": "docker-rest",
    "artifactName": "wine-1.0.zip",
    "outputConnection": "models",
    "targets": [{"name": "docker-push", "connectionName": "registry"}],
}
_FINAL = ("succeeded", "failed")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's threads look for proxies in the environment, which pytest changes while they do."""
    monkeypatch.setattr("kubernetes.client.configuration.getproxies", dict)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """A server on which the service has the role that its manifests give it, and nothing else."""
    documents = yaml.safe_load_all((ROOT / "manifests" / "api.yaml").read_text())
    role = next(each for each in documents if each and each["kind"] == "Role")
    with ApiServer() as running:
        running.allowed = permissions(role)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db", make_key_file(tmp_path / "key"))
    document = integration_document(INTEGRATION_TYPES["docker-rest"], "packager:test")
    opened.integrations.create(NewIntegration.model_validate(document))
    for connection_id, spec in (
        ("registry", {"type": "docker", "uri": "gcr.io/project", "username": "ann", "password": "pass-word"}),
        ("models", {"type": "s3", "uri": "s3://models", "keyID": "the-key-id", "keySecret": "the-key-secret"}),
    ):
        opened.connections.create(Connection.model_validate({"id": connection_id, "spec": spec}))
    yield opened
    opened.close()


def make_executor(server: ApiServer, folder: Path) -> KubernetesExecutor:
    folder.mkdir(exist_ok=True)
    access = Access(kubeconfig=server.kubeconfig(folder / "kubeconfig"))
    quick = RetryPolicy(attempts=4, sleep=lambda _seconds: None)
    return KubernetesExecutor(connect(access, {}, retries=quick), folder / "logs")


@pytest.fixture
def executor(tmp_path: Path, server: ApiServer) -> Iterator[KubernetesExecutor]:
    made = make_executor(server, tmp_path)
    yield made
    made.close()


@contextmanager
def supervisor(store: Store, executor: KubernetesExecutor, *, owner: str = "one") -> Iterator[Supervisor]:
    config = SupervisorConfig(owner=owner, lease=timedelta(seconds=2), pause=0.1)
    running = Supervisor(store.runs, executor, config)
    running.start()
    try:
        yield running
    finally:
        running.close()


def create(store: Store, **changes: Any) -> None:
    store.packagings.create(NewPackaging.model_validate({"id": "wine", "spec": {**SPEC, **changes}}))


def status_of(store: Store) -> PackagingStatus:
    return store.packagings.get("wine").status


def has_ended(store: Store) -> bool:
    return status_of(store).state in _FINAL


def runs(server: ApiServer, job: dict[str, Any], number: int = 1) -> None:
    server.pod(job, number)
    server.pod(job, number, phase="Running", state=RUNNING)
    server.say(f"wine-pod{number}", "reading the model")


def succeeds(server: ApiServer, job: dict[str, Any]) -> None:
    runs(server, job)
    server.say("wine-pod1", "pushed")
    server.ended(job, 0, RESULTS)
    server.finish(job, "Complete")


def test_ended_job_has_its_status_and_log_recorded(
    server: ApiServer, store: Store, executor: KubernetesExecutor
) -> None:
    server.scene = succeeds
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: has_ended(store))
    status = status_of(store)
    assert (status.state, status.pod_name, status.exit_code) == ("succeeded", "wine-pod1", 0)
    assert {each.name: each.value for each in status.results} == RESULTS
    (secret,) = server.names("secrets")
    assert server.objects["secrets", secret]["metadata"]["ownerReferences"][0]["name"] == "wine"
    server.remove("jobs", "wine")  # its time is over
    handle = store.runs.get("wine").handle or ""
    folder = executor.log(handle)
    assert folder is not None
    assert read_log(folder, 0, limit=1000).data == b"reading the model\npushed\n"
    with supervisor(store, executor):
        time.sleep(0.5)
    assert status_of(store) == status, "what has ended stays as it ended"


def test_failed_job_has_the_reason(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    def fails(server: ApiServer, job: dict[str, Any]) -> None:
        runs(server, job)
        error = {"code": "registry-auth", "message": "the registry refuses", "hint": "check the password"}
        server.ended(job, 31, {"error": error})
        server.finish(job, "Failed", "BackoffLimitExceeded")

    server.scene = fails
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: has_ended(store))
    status = status_of(store)
    assert (status.state, status.exit_code, status.reason) == ("failed", 31, "registry-auth")
    assert status.message == "the registry refuses\nhint: check the password"


def test_watch_reports_changes_at_once(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.longest_watch = 60
    executor.resync_seconds = 3600
    server.scene = runs
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: status_of(store).state == "running", 50)
        job = server.objects["jobs", "wine"]
        server.ended(job, 0, RESULTS)
        server.finish(job, "Complete")
        wait_until(lambda: has_ended(store), 50)


def test_watch_survives_unexpected_errors(
    server: ApiServer, store: Store, executor: KubernetesExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.api.executors.kubernetes._PAUSE_SECONDS", 0.05)
    notified: list[str] = []

    def on_change(packaging_id: str) -> None:
        notified.append(packaging_id)
        if len(notified) == 1:
            raise KeyError(packaging_id)

    server.scene = runs
    create(store)
    (claim,) = store.runs.claim("one", 1, timedelta(minutes=1))
    executor.start(claim)
    executor.watch(on_change)
    wait_until(lambda: len(notified) > 2)
    assert {*notified} == {"wine"}


def test_deletion_removes_the_job(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = runs
    create(store)
    with supervisor(store, executor) as running:
        wait_until(lambda: status_of(store).state == "running")
        executor.log(store.runs.get("wine").handle or "")
        store.packagings.delete("wine")
        running.wake()
        wait_until(lambda: not store.runs.orphans())
    assert server.names("jobs") == server.names("pods") == server.names("secrets") == []
    assert list(executor.runs()) == []


def test_edit_replaces_the_job(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = runs
    create(store)
    with supervisor(store, executor) as running:
        wait_until(lambda: status_of(store).state == "running")
        old = server.objects["jobs", "wine"]["metadata"]["uid"]
        server.scene = succeeds
        server.logs.clear()
        spec = {**SPEC, "artifactName": "wine-2.0.zip"}
        store.packagings.edit(NewPackaging.model_validate({"id": "wine", "spec": spec}))
        running.wake()
        wait_until(lambda: has_ended(store))
    assert server.objects["jobs", "wine"]["metadata"]["uid"] != old
    assert status_of(store).state == "succeeded"


def test_removed_job_has_failed(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = runs
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: status_of(store).state == "running")
        server.remove("jobs", "wine")
        wait_until(lambda: has_ended(store))
    assert "was removed from the cluster" in status_of(store).message
    assert len(server.requests("POST", "jobs")) == 1


def test_foreign_job_is_left_alone(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    labels = {"packager.odahu.org/entity": "packaging"}
    server.put("jobs", {"metadata": {"name": "wine", "labels": labels}, "spec": {"template": {"spec": {}}}})
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: has_ended(store))
    assert (status_of(store).state, status_of(store).reason) == ("failed", "exists")
    assert server.names("jobs") == ["wine"]


def test_job_refused_by_the_cluster_has_failed(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.refuse("POST", "jobs", 422, 'Job "wine" is invalid: spec: no', "Invalid")
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: has_ended(store))
    assert "spec: no" in status_of(store).message


def test_unreachable_cluster_is_retried(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = succeeds
    server.refuse("POST", "jobs", 500, "etcd has no leader")
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: "etcd" in status_of(store).message)
        assert status_of(store).state == "scheduling"
        server.refusals.clear()
        wait_until(lambda: has_ended(store))
    assert (status_of(store).state, status_of(store).message) == ("succeeded", "")


def test_interrupted_start_is_found_or_repeated(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    create(store)
    (claim,) = store.runs.claim("one", 1, timedelta(seconds=1))
    handle = executor.start(claim)  # killed before the handle was noted
    assert executor.start(claim) == handle
    assert executor.find("wine", claim.generation) == [handle]
    server.remove("secrets", server.names("secrets")[0])  # killed between the Job and its Secret
    again = executor.start(claim)
    assert again != handle
    assert len(server.names("jobs")) == len(server.names("secrets")) == 1
    assert server.objects["jobs", "wine"]["metadata"]["annotations"][RUN].startswith(f"{claim.generation}/")
    server.scene = succeeds
    with supervisor(store, executor):
        threading.Thread(target=succeeds, args=(server, server.objects["jobs", "wine"])).start()
        wait_until(lambda: has_ended(store))
    assert store.runs.get("wine").handle == again


def test_stop_does_not_wait_for_the_cluster(
    server: ApiServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    environ["KUBECONFIG"] = str(server.kubeconfig(tmp_path / "kubeconfig"))
    settings = {"EXECUTOR": "kubernetes", "STOP_SECONDS": "3"}
    settings |= {"DATABASE_URL": f"sqlite:///{tmp_path}/store.db", "KEY_FILE": str(tmp_path / "key")}
    place = Place(data=tmp_path / "data", models=tmp_path, environ=environ, settings=settings)
    server.scene = runs
    create(store)
    removed: list[str] = []
    try:
        service = place.start()
        wait_until(lambda: status_of(store).state == "running", 60)
        with monkeypatch.context() as patch:
            patch.setattr(server, "remove", lambda _plural, name: removed.append(name))  # its pod doesn't end
            store.packagings.delete("wine")
            wait_until(lambda: removed)
            began = time.monotonic()
            service.terminate()
            assert service.wait(60) == 0
            assert time.monotonic() - began < 15
        assert "is left to the next process" in place.log()
        assert "Traceback" not in place.log()
        place.start()
        wait_until(lambda: not store.runs.orphans(), 60)
        assert server.names("jobs") == server.names("pods") == []
    finally:
        place.close()


def test_replica_takes_over_without_a_second_start(
    server: ApiServer, store: Store, executor: KubernetesExecutor, tmp_path: Path
) -> None:
    server.scene = runs
    create(store)
    with supervisor(store, executor, owner="one"):
        wait_until(lambda: status_of(store).state == "running")
    other = make_executor(server, tmp_path / "other")
    with supervisor(store, other, owner="two"):
        wait_until(lambda: store.runs.get("wine").owner == "two")
        job = server.objects["jobs", "wine"]
        server.ended(job, 0, RESULTS)
        server.finish(job, "Complete")
        wait_until(lambda: has_ended(store))
    assert len(server.requests("POST", "jobs")) == 1


def test_log_is_downloaded_once_for_all_readers(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = runs
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: status_of(store).state == "running")
        handle = store.runs.get("wine").handle or ""
        folders = {executor.log(handle) for _ in range(20)}
        (folder,) = folders
        assert folder is not None
        wait_until(lambda: read_log(folder, 0, limit=1000).data == b"reading the model\n")
        server.say("wine-pod1", "building")
        wait_until(lambda: read_log(folder, 0, limit=1000).data.endswith(b"building\n"))
        assert len([each for each in server.requests("GET", "pods/log") if each.query.get("follow") == "true"]) <= 2
        server.say("wine-pod1", "pushed")
        job = server.objects["jobs", "wine"]
        server.ended(job, 0, RESULTS)
        server.finish(job, "Complete")
        wait_until(lambda: has_ended(store))
        assert read_log(folder, 0, limit=1000).data == b"reading the model\nbuilding\npushed\n"


def test_job_contains_no_secret(server: ApiServer, store: Store, executor: KubernetesExecutor) -> None:
    server.scene = succeeds
    create(store)
    with supervisor(store, executor):
        wait_until(lambda: has_ended(store))
    text = json.dumps(server.objects["jobs", "wine"]) + status_of(store).model_dump_json()
    assert not any(secret in text for secret in ("pass-word", "the-key-secret", "the-key-id"))
