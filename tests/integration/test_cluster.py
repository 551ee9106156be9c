"""`packager pack` against an API server on the wire, which plays every way that a packaging goes."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes.config import incluster_config
from typer.testing import CliRunner

from packager.cli import app
from packager.kube import client, packagings
from packager.kube.cluster import Access, Cluster, connect
from packager.kube.names import JOBS
from tests.integration.api_server import TOKEN, ApiServer, Permission, permissions
from tests.integration.packaging import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

    from packager.kube.names import Kind

    Scene = Callable[[ApiServer, dict[str, Any]], None]

RESULTS = {"image": "gcr.io/project/wine:1.0", "imageDigest": "gcr.io/project/wine@sha256:" + "ab" * 32}
PACKAGING = """
id: wine
spec:
  integrationName: docker-rest
  artifactName: wine-1.0.zip
  outputConnection: models
  targets: [{name: docker-push, connectionName: registry}]
"""
CONNECTIONS = """
kind: Connection
id: registry
spec: {type: docker, uri: gcr.io/project, username: ann, password: cGFzcy13b3Jk, description: ours}
---
kind: Connection
id: models
spec: {type: s3, uri: "s3://models", keyID: dGhlLWtleS1pZA==, keySecret: dGhlLWtleS1zZWNyZXQ=}
"""
SECRETS = ("pass-word", "the-key-secret", "cGFzcy13b3Jk")
RUNNING = {"running": {"startedAt": "2026-03-01T10:00:02Z"}}


class ClusterHarness:
    """A folder with a kubeconfig and documents, and the commands in it."""

    def __init__(self, folder: Path, server: ApiServer) -> None:
        self.folder = folder
        self.server = server
        self.kubeconfig = server.kubeconfig(folder / "kubeconfig")
        self.pack_file = folder / "pack.yaml"
        self.pack_file.write_text(PACKAGING)
        self.connections = folder / "connections.yaml"
        self.connections.write_text(CONNECTIONS)

    def run(self, *words: str) -> Result:
        done = CliRunner().invoke(app, [*words, "--kubeconfig", str(self.kubeconfig)])
        assert not any(secret in done.output for secret in SECRETS)
        return done

    def create(self, *words: str) -> Result:
        return self.run("pack", "create", "-f", str(self.pack_file), "-f", str(self.connections), *words)

    def status(self) -> dict[str, Any]:
        done = self.run("pack", "get", "--id", "wine", "-o", "json")
        assert done.exit_code == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)[0]["status"]
        return status


def role(name: str) -> set[Permission]:
    """What a role of the chart allows."""
    documents = yaml.safe_load_all((ROOT / "manifests" / "packagers.yaml").read_text())
    found = [each for each in documents if each and each["kind"] == "Role" and each["metadata"]["name"] == name]
    return permissions(found[0])


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """A server on which everyone has the chart's two roles, and nothing else."""
    with ApiServer() as running:
        running.allowed = role("packager-user") | role("packager-admin")
        yield running


@pytest.fixture
def harness(tmp_path: Path, server: ApiServer) -> ClusterHarness:
    return ClusterHarness(tmp_path, server)


def succeeds(server: ApiServer, job: dict[str, Any]) -> None:
    server.pod(job)
    server.pod(job, phase="Running", state=RUNNING)
    for line in ("reading the model", "building", "pushed"):
        server.say("wine-pod1", line)
    server.ended(job, 0, RESULTS)
    server.finish(job, "Complete")


def fails(code: int, message: Any = "", reason: str = "BackoffLimitExceeded", **more: Any) -> Scene:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.pod(job, phase="Running", state=RUNNING)
        server.say("wine-pod1", "reading the model")
        server.ended(job, code, message, **more)
        server.finish(job, "Failed", reason, "the Job has failed")

    return scene


# The whole of it


def test_packaging_is_created_followed_and_its_image_printed(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    done = harness.create()
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [RESULTS["imageDigest"]]
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in {"reading the model", "building", "pushed"}] == [
        *("reading the model", "building", "pushed"),
    ]
    assert harness.status() == {
        "state": "succeeded",
        "podName": "wine-pod1",
        "exitCode": 0,
        "results": [{"name": name, "value": value} for name, value in RESULTS.items()],
    }
    job, (name,) = server.objects["jobs", "wine"], server.names("secrets")
    secret = server.objects["secrets", name]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    manifest = json.loads(base64.b64decode(secret["data"]["mp.json"]))
    assert manifest["targets"][0]["connection"]["spec"]["password"] == "pass-word"
    assert manifest["trainingZipName"] == "wine-1.0.zip"
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["secret"]["secretName"] == name


def test_results_outlive_their_pod(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    assert harness.create().exit_code == 0
    server.remove("pods", "wine-pod1")
    assert [each["value"] for each in harness.status()["results"]] == [*RESULTS.values()]


def test_results_of_a_deleted_pod_are_reported_as_lost(harness: ClusterHarness, server: ApiServer) -> None:
    assert harness.create("--no-wait").exit_code == 0
    server.finish(server.objects["jobs", "wine"], "Complete")
    status = harness.status()
    assert (status["state"], status["results"]) == ("succeeded", [])
    assert "`get`" in status["message"]


def test_who_may_not_write_the_results_still_sees_them(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    server.refuse("PATCH", "jobs", 403, 'User "ann" cannot patch resource "jobs"', "Forbidden")
    assert harness.create().stdout.strip() == RESULTS["imageDigest"]
    assert harness.status()["state"] == "succeeded"


# Every way to fail


def pulls_no_image(server: ApiServer, job: dict[str, Any]) -> None:
    server.pod(job, state={"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}})
    pod = server.objects["pods", "wine-pod1"]
    server.warn("Pod", pod, "Failed", 'Failed to pull image "packager:0.1.0": manifest unknown')
    server.remove("pods", "wine-pod1")  # as the Job's controller does with pods at the deadline
    server.finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")


def is_evicted(server: ApiServer, job: dict[str, Any]) -> None:
    server.pod(job, phase="Failed", reason="Evicted", message="Usage of EmptyDir volume 'work' exceeds the limit 20Gi")
    server.finish(job, "Failed", "BackoffLimitExceeded")


def loses_its_node_too_often(server: ApiServer, job: dict[str, Any]) -> None:
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node is down"}
    server.pod(job, phase="Failed", conditions=[lost])
    server.finish(job, "Failed", "BackoffLimitExceeded")


def own(code: str, message: str, hint: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": hint}}


FAILURES: dict[str, tuple[Scene, int, str, tuple[str, ...]]] = {
    "the image can't be pulled": (
        pulls_no_image,
        65,
        "DeadlineExceeded",
        ("7200 seconds", "ErrImagePull", "manifest unknown", "imagePullSecrets"),
    ),
    "killed for its memory": (
        fails(137, "", "PodFailurePolicy", terminated_reason="OOMKilled"),
        65,
        "OOMKilled",
        ("spec.resources.limits.memory",),
    ),
    "over the deadline": (
        fails(143, own("interrupted", "interrupted by SIGTERM", ""), "DeadlineExceeded"),
        65,
        "DeadlineExceeded",
        ("7200 seconds", "activeDeadlineSeconds"),
    ),
    "evicted": (is_evicted, 65, "Evicted", ("Usage of EmptyDir", "workSize")),
    "its node lost": (loses_its_node_too_often, 65, "DeletionByTaintManager", ("node is down",)),
    "a registry's refusal": (
        fails(31, own("registry-auth", "gcr.io refused the credentials", "check the connection"), "PodFailurePolicy"),
        31,
        "registry-auth",
        ("gcr.io refused the credentials", "hint: check the connection"),
    ),
    "a broken archive": (
        fails(10, own("artifact", "wine-1.0.zip is no zip", "train it again"), "PodFailurePolicy"),
        10,
        "artifact",
        ("wine-1.0.zip is no zip", "hint: train it again"),
    ),
    "killed without a word": (
        fails(139, "the last lines of the log", "BackoffLimitExceeded"),
        65,
        "Error",
        ("the last lines of the log", "packager pack logs"),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_has_its_exit_code_reason_and_hint(harness: ClusterHarness, server: ApiServer, name: str) -> None:
    server.scene, code, reason, details = FAILURES[name]
    done = harness.create()
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    for detail in details:
        assert detail in done.stderr
    status = harness.status()
    assert (status["state"], status["reason"], status["results"]) == ("failed", reason, [])
    assert any(detail in status["message"] for detail in details)


def waits_for_a_node(server: ApiServer, job: dict[str, Any]) -> None:
    message = "0/3 nodes are available: 3 Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    server.pod(job, conditions=[condition])


def waits_for_an_image(server: ApiServer, job: dict[str, Any]) -> None:
    server.pod(job, state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})


def waits_for_a_claim(server: ApiServer, job: dict[str, Any]) -> None:
    pod = server.pod(job, state={"waiting": {"reason": "ContainerCreating"}})
    server.warn("Pod", pod, "FailedMount", 'MountVolume.SetUp failed: secret "packaging-wine" not found')


def lacks_a_secret(server: ApiServer, job: dict[str, Any]) -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "channels" not found'}
    server.pod(job, state={"waiting": waiting})


def no_pod(message: str) -> Scene:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.warn("Job", job, "FailedCreate", f"Error creating: {message}")

    return scene


WAITS: dict[str, tuple[Scene, str, str]] = {
    "no node": (waits_for_a_node, "Unschedulable", "3 Insufficient memory"),
    "no image": (waits_for_an_image, "ImagePullBackOff", "packager:0.1.0"),
    "no volume": (waits_for_a_claim, "FailedMount", "MountVolume.SetUp failed"),
    "no secret": (lacks_a_secret, "CreateContainerConfigError", 'secret "channels" not found'),
    "no quota": (
        no_pod('pods "wine-pod1" is forbidden: exceeded quota: team, requested: limits.memory=4Gi'),
        "QuotaExceeded",
        "spec.resources",
    ),
    "no admission": (
        no_pod('pods "wine-pod1" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation'),
        "AdmissionDenied",
        "'restricted'",
    ),
    "a webhook": (
        no_pod('admission webhook "policy.example" denied the request: no such registry'),
        "AdmissionDenied",
        "no such registry",
    ),
    "no account": (
        no_pod('pods "wine-" is forbidden: error looking up service account ml/packager-job: not found'),
        "ServiceAccountMissing",
        "service account",
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_cause_of_a_delayed_start_is_logged_while_it_waits(
    harness: ClusterHarness, server: ApiServer, name: str
) -> None:
    server.scene, reason, detail = WAITS[name]
    done = harness.create("--timeout", "2")
    assert done.exit_code == 66, done.stderr
    assert f"scheduling: {reason}: " in done.stderr
    assert detail in done.stderr
    assert harness.status()["state"] == "scheduling"
    assert harness.status()["reason"] == reason


def test_a_suspended_job_waits_for_its_queue(harness: ClusterHarness, server: ApiServer) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.put("jobs", {**job, "spec": {**job["spec"], "suspend": True}})

    server.scene = scene
    assert harness.create("--timeout", "1").exit_code == 66
    assert harness.status()["reason"] == "Suspended"


def test_another_attempt_is_followed_to_its_end(harness: ClusterHarness, server: ApiServer) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.pod(job, phase="Running", state=RUNNING)
        server.say("wine-pod1", "the first attempt")
        server.ended(job, 32, own("registry-unreachable", "gcr.io can't be reached", "wait"))
        server.pod(job, 2, phase="Running", state=RUNNING)
        server.say("wine-pod2", "the second attempt")
        server.ended(job, 0, RESULTS, 2)
        server.finish(job, "Complete")

    server.scene = scene
    done = harness.create()
    assert done.exit_code == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("the ")] == [
        *("the first attempt", "the second attempt"),
    ]
    assert harness.run("pack", "logs", "--id", "wine").stdout.splitlines() == [
        "the first attempt",
        "the second attempt",
    ]


# Refusals


REFUSALS = {
    "the quota": (
        ("POST", "jobs", 403, 'jobs.batch "wine" is forbidden: exceeded quota: team', "Forbidden"),
        (60, "exceeded quota: team"),
    ),
    "a policy": (
        ("POST", "jobs", 403, 'admission webhook "policy.example" denied the request: no label', "Forbidden"),
        (60, "no label"),
    ),
    "a permission": (
        ("POST", "jobs", 403, 'User "ann" cannot create resource "jobs" in API group "batch"', "Forbidden"),
        (61, "kubectl auth can-i create jobs.batch -n ml"),
    ),
    "a permission to see": (
        ("GET", "pods", 403, 'User "ann" cannot list resource "pods" in API group ""', "Forbidden"),
        (61, "kubectl auth can-i list pods -n ml"),
    ),
    "a permission to read logs": (
        ("GET", "pods/log", 403, 'User "ann" cannot get resource "pods/log" in API group ""', "Forbidden"),
        (61, "kubectl auth can-i get pods/log -n ml"),
    ),
    "the server's illness": (("POST", "jobs", 500, "etcdserver: no leader", "InternalError"), (60, "no leader")),
    "another entity": (("POST", "jobs", 409, 'jobs "wine" already exists', "AlreadyExists"), (64, "pack edit")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_rejection_has_its_exit_code_and_hint(harness: ClusterHarness, server: ApiServer, name: str) -> None:
    refused, (code, detail) = REFUSALS[name]
    server.scene = succeeds
    server.refuse(*refused)
    done = harness.create()
    assert done.exit_code == code, done.stderr
    assert detail in done.stderr
    if refused[0] == "POST":
        assert server.names("jobs") == server.names("secrets") == []


def test_invalid_fields_found_by_the_server_are_listed(harness: ClusterHarness, server: ApiServer) -> None:
    causes = [
        {"field": "spec.template.spec.containers[0].resources.requests", "message": "must be less than cpu limit"},
        {"field": "spec.template.spec.tolerations[0].effect", "message": "Unsupported value"},
    ]
    server.refuse("POST", "jobs", 422, "Job.batch is invalid", "Invalid", extra={"details": {"causes": causes}})
    done = harness.create()
    assert done.exit_code == 12
    for cause in causes:
        assert f"{cause['field']}: {cause['message']}" in done.stderr


@pytest.mark.parametrize("code", [403, 500])
def test_job_is_deleted_again_if_its_secret_is_rejected(harness: ClusterHarness, server: ApiServer, code: int) -> None:
    server.refuse("POST", "secrets", code, 'User "ann" cannot create resource "secrets"', "Forbidden")
    done = harness.create()
    assert done.exit_code == (61 if code == 403 else 60)
    assert server.names("jobs") == server.names("secrets") == []
    assert len(server.requests("DELETE", "jobs")) == 1


def test_busy_server_is_retried(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    server.refuse("POST", "jobs", 429, "too many requests", "TooManyRequests", times=1)
    server.refuse("GET", "pods", 503, "apiserver not ready", "ServiceUnavailable", times=1)
    assert harness.create().stdout.strip() == RESULTS["imageDigest"]
    assert len(server.requests("POST", "jobs")) == 2


def test_unknown_user_is_asked_to_log_in(harness: ClusterHarness, server: ApiServer) -> None:
    server.kubeconfig(harness.kubeconfig, token="another")
    done = harness.create()
    assert done.exit_code == 61
    assert "kubectl auth whoami" in done.stderr
    assert "another" not in done.stderr


def test_unreachable_cluster_is_reported(harness: ClusterHarness) -> None:
    done = harness.run("pack", "get", "--context", "nowhere")
    assert done.exit_code == 62
    assert "http://127.0.0.1:9" in done.stderr


@pytest.mark.parametrize("words", [["--context", "none"], ["--kubeconfig", "/nowhere/config"]])
def test_missing_context_or_kubeconfig_is_reported(harness: ClusterHarness, words: list[str]) -> None:
    done = CliRunner().invoke(app, ["pack", "get", "--kubeconfig", str(harness.kubeconfig), *words])
    assert done.exit_code == 62
    assert words[1] in done.stderr or words[0] in done.stderr


def test_missing_namespace_is_reported(harness: ClusterHarness) -> None:
    done = harness.create("-n", "nowhere")
    assert done.exit_code == 60
    assert "'nowhere'" in done.stderr


# Watching


@pytest.mark.parametrize("trouble", ["cuts", "expiries"])
def test_a_watch_or_log_that_breaks_is_resumed(harness: ClusterHarness, server: ApiServer, trouble: str) -> None:
    setattr(server, trouble, 4)

    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        while getattr(server, trouble) > (2 if trouble == "cuts" else 0):  # two are kept for the log
            time.sleep(0.02)
        succeeds(server, job)

    server.scene = scene
    done = harness.create("--timeout", "60")
    assert done.exit_code == 0, done.stderr
    assert getattr(server, trouble) == 0
    lines = [line for line in done.stderr.splitlines() if line in {"reading the model", "building", "pushed"}]
    assert lines == ["reading the model", "building", "pushed"]


def test_a_watch_that_ends_by_itself_is_begun_again(harness: ClusterHarness, server: ApiServer) -> None:
    server.longest_watch = 0.1

    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.pod(job)
        while len([each for each in list(server.asked) if each.query.get("watch")]) < 4:
            time.sleep(0.02)
        succeeds(server, job)

    server.scene = scene
    assert harness.create().exit_code == 0
    watches = [each for each in server.asked if each.query.get("watch")]
    assert all(int(each.query["resourceVersion"]) > 0 for each in watches)


def test_packaging_deleted_while_followed_is_reported(harness: ClusterHarness, server: ApiServer) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.pod(job, phase="Running", state=RUNNING)
        server.say("wine-pod1", None)
        server.remove("jobs", "wine")

    server.scene = scene
    assert harness.create().exit_code == 63


# Many


def many(server: ApiServer, count: int) -> None:
    for number in range(count):
        name = f"pack-{number:03d}"
        labels = {"packager.odahu.org/entity": "packaging", "packager.odahu.org/packaging": name}
        spec = {"template": {"spec": {"containers": [{"image": "packager:1"}]}}}
        document = {"id": name, "spec": {"integrationName": "docker-rest"}}
        annotations = {"packager.odahu.org/document": json.dumps(document)}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        job = server.put("jobs", {"metadata": metadata, "spec": spec})
        server.ended(job, 0, {"image": f"gcr.io/{name}:1"})
        server.finish(job, "Complete")


def test_two_hundred_packagings_are_listed_a_page_at_a_time(harness: ClusterHarness, server: ApiServer) -> None:
    many(server, 200)
    server.list_expiries = 1
    done = harness.run("pack", "get", "-o", "table")
    assert done.exit_code == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) == 201
    assert rows[200].split() == ["pack-199", "succeeded", "docker-rest", rows[200].split()[3], "gcr.io/pack-199:1"]
    lists = [each.query for each in server.requests("GET", "jobs")]
    assert {each["limit"] for each in lists} == {"50"}
    assert [each.get("continue") for each in lists] == [None, "50", "50", "100", "150"]
    assert len(server.requests("GET", "pods")) == 4


@pytest.mark.parametrize("output", ["json", "yaml", "jsonpath=[*].id"])
def test_a_list_is_one_document_in_every_format(harness: ClusterHarness, server: ApiServer, output: str) -> None:
    many(server, 60)
    text = harness.run("pack", "get", "-o", output).stdout
    entities = yaml.safe_load(text) if output == "yaml" else json.loads(text)
    names = entities if output.startswith("jsonpath") else [each["id"] for each in entities]
    assert names == [f"pack-{number:03d}" for number in range(60)]


@pytest.mark.parametrize("output", ["json", "yaml", "table", "jsonpath=[*].id"])
def test_nothing_is_an_empty_list(harness: ClusterHarness, output: str) -> None:
    text = harness.run("pack", "get", "-o", output).stdout
    assert text.splitlines()[1:] == []
    assert output == "table" or yaml.safe_load(text) == []


def test_the_documents_own_expressions_work(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    harness.create()
    value = harness.run("pack", "get", "--id", "wine", "-o", "jsonpath=$[0].status.results[0].value")
    assert value.stdout.strip() == RESULTS["image"]
    assert harness.run("pack", "get", "-o", "jsonpath=[*].spec.artifactName").stdout.strip() == "wine-1.0.zip"


@pytest.mark.parametrize("output", ["xml", "jsonpath", "jsonpath=[*", "table=x"])
def test_unknown_output_format_is_refused(harness: ClusterHarness, output: str) -> None:
    assert harness.run("pack", "get", "-o", output).exit_code == 2


def test_a_list_holds_one_page_at_a_time(harness: ClusterHarness, server: ApiServer) -> None:
    many(server, 200)
    cluster = connect(Access(kubeconfig=harness.kubeconfig), {})
    listed = packagings.list_all(cluster)
    for number in range(200):
        next(listed)
        assert len(server.requests("GET", "jobs")) == len(server.requests("GET", "pods")) == number // 50 + 1


# As a process


def process(harness: ClusterHarness, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "packager", *words, "--kubeconfig", str(harness.kubeconfig)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("during", ["the log", "the wait for a node"])
def test_who_stops_waiting_leaves_the_packaging_running(
    harness: ClusterHarness, server: ApiServer, during: str
) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        if during == "the log":
            server.pod(job, phase="Running", state=RUNNING)
            server.say("wine-pod1", "reading the model")
        else:
            waits_for_a_node(server, job)

    server.scene = scene
    with process(harness, "pack", "create", "-f", str(harness.pack_file), "-f", str(harness.connections)) as running:
        seen = ""
        while ("reading the model" if during == "the log" else "Unschedulable") not in seen:
            seen += str(running.stderr and running.stderr.readline())
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert "packager pack logs --id wine" in err
    assert server.names("jobs") == ["wine"]
    assert len(server.names("secrets")) == 1


@pytest.mark.parametrize("moment", ["before_job_answer", "before_secret"])
def test_a_stop_before_the_secret_is_made_takes_the_job_back(
    harness: ClusterHarness, server: ApiServer, moment: str
) -> None:
    reached, held = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        held.wait()

    setattr(server, moment, hold)
    with process(
        harness, "pack", "create", "--no-wait", "-f", str(harness.pack_file), "-f", str(harness.connections)
    ) as running:
        try:
            assert reached.wait(60)
            assert server.names("jobs") == ["wine"]
            running.send_signal(signal.SIGTERM)
            output = running.communicate(timeout=60)[1]
        finally:
            held.set()
    assert running.returncode == 143, output
    assert server.names("jobs") == []


def test_an_unforeseen_error_once_the_job_is_made_takes_it_back(
    harness: ClusterHarness, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, made = Cluster.create, []

    def fail(cluster: Cluster, kind: Kind, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        answer = create(cluster, kind, body, dry_run=dry_run)
        if kind is JOBS:
            made.append(answer)
            raise RuntimeError("unforeseen")
        return answer

    monkeypatch.setattr(Cluster, "create", fail)
    done = harness.run("pack", "create", "--no-wait", "-f", str(harness.pack_file), "-f", str(harness.connections))
    assert (done.exit_code, len(made)) == (1, 1), done.stderr
    assert server.names("jobs") == []


def test_a_job_that_the_cluster_makes_after_the_stop_is_taken_back(harness: ClusterHarness, server: ApiServer) -> None:
    reached, held = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        held.wait()

    server.before_job = hold
    with process(
        harness, "pack", "create", "--no-wait", "-f", str(harness.pack_file), "-f", str(harness.connections)
    ) as running:
        try:
            assert reached.wait(60)
            before = len(server.requests("GET", "jobs"))
            running.send_signal(signal.SIGTERM)
            while len(server.requests("GET", "jobs")) == before and running.poll() is None:
                time.sleep(0.01)
        finally:
            held.set()
        output = running.communicate(timeout=60)[1]
    assert running.returncode == 143, output
    assert server.names("jobs") == []


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_that_commands_need(option: str) -> None:
    heavy = ("pydantic", "httpx", "yaml", "jinja2", "rich", "kubernetes", "packager.settings", "packager.pipeline")
    program = "import sys\nfrom packager.cli import app\n"
    program += f"try: app([{option!r}])\nfinally: print({{*{heavy!r}}} & {{*sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_commands_without_a_cluster_import_no_kubernetes_client() -> None:
    program = "import sys, packager.cli.builds, packager.cli.packagings; print({'kubernetes'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_missing_kubernetes_client_is_reported(harness: ClusterHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packager.kube.cluster", None)  # as in the Job image: the import fails
    done = harness.run("pack", "get")
    assert done.exit_code == 43


@pytest.mark.needs("openssl")
def test_a_pod_finds_its_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its service account's token, certificate and namespace, where there is no kubeconfig."""
    key, certificate, account = tmp_path / "key", tmp_path / "ca.crt", tmp_path / "account"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=api"]
    words += ["-keyout", str(key), "-out", str(certificate), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("ml\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    monkeypatch.setattr(client, "_OWN_NAMESPACE", account / "namespace")
    with ApiServer(tls=(certificate, key)) as server:
        many(server, 1)
        monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        done = CliRunner().invoke(app, ["pack", "get", "-o", "jsonpath=[*].id"])
        assert done.stdout.strip() == "pack-000", done.stderr
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")  # which doesn't know the certificate
        done = CliRunner().invoke(app, ["pack", "get", "--kubeconfig", str(kubeconfig)])
        assert done.exit_code == 62
        assert "certificate verify failed" in done.stderr


# Change and removal


def test_edit_runs_it_again_in_the_old_ones_place(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    assert harness.create().exit_code == 0
    old = server.objects["jobs", "wine"]["metadata"]["uid"]
    words = [
        "pack",
        "edit",
        "-f",
        str(harness.pack_file),
        "-f",
        str(harness.connections),
        "--artifact-name",
        "wine-2.0.zip",
    ]
    done = harness.run(*words)
    assert done.exit_code == 0, done.stderr
    job = server.objects["jobs", "wine"]
    assert job["metadata"]["uid"] != old
    assert job["metadata"]["annotations"]["packager.odahu.org/artifact"] == "wine-2.0.zip"
    assert len(server.names("secrets")) == 1
    (deleted,) = server.requests("DELETE", "jobs")
    assert deleted.body["preconditions"] == {"uid": old}


def test_edit_leaves_the_old_one_when_the_new_one_is_wrong(harness: ClusterHarness, server: ApiServer) -> None:
    harness.create("--no-wait")
    harness.pack_file.write_text(PACKAGING.replace("connectionName: registry", "connectionName: nowhere"))
    done = harness.run("pack", "edit", "-f", str(harness.pack_file), "-f", str(harness.connections))
    assert done.exit_code == 12
    assert server.names("jobs") == ["wine"]
    assert harness.run("pack", "edit", "-f", str(harness.pack_file), "--id", "new").exit_code == 12


def test_delete_takes_the_job_its_pods_and_its_secret(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    harness.create()
    done = harness.run("pack", "delete", "-f", str(harness.pack_file))
    assert done.exit_code == 0, done.stderr
    assert not server.names("jobs") + server.names("pods") + server.names("secrets")
    assert harness.run("pack", "delete", "--id", "wine").exit_code == 63
    assert harness.run("pack", "delete", "--id", "wine", "--ignore-not-found").exit_code == 0
    assert harness.run("pack", "delete").exit_code == 2


def test_another_job_of_that_name_is_none_of_ours(harness: ClusterHarness, server: ApiServer) -> None:
    server.put("jobs", {"metadata": {"name": "wine"}, "spec": {}})
    assert harness.create("--no-wait").exit_code == 64
    for words in (["get"], ["logs"], ["delete"]):
        assert harness.run("pack", *words, "--id", "wine").exit_code == 63
    assert harness.create("--no-wait", "--ignore-if-exists").exit_code == 0
    assert server.names("jobs") == ["wine"]


def test_the_settings_of_jobs_are_the_clusters(harness: ClusterHarness, server: ApiServer) -> None:
    text = "engine: oci\nactiveDeadlineSeconds: 60\n"
    server.put("configmaps", {"metadata": {"name": "packager-jobs"}, "data": {"settings.yaml": text}})
    harness.create("--no-wait")
    spec = server.objects["jobs", "wine"]["spec"]
    assert spec["activeDeadlineSeconds"] == 60
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    server.put("configmaps", {"metadata": {"name": "packager-jobs"}, "data": {"settings.yaml": "speed: 3"}})
    assert harness.create("--id", "other", "--no-wait").exit_code == 2


# The entities that packagings name


def test_a_packaging_names_what_is_in_the_cluster(harness: ClusterHarness, server: ApiServer) -> None:
    for name in ("registry", "models"):
        done = harness.run("connection", "create", "-f", str(harness.connections), "--id", name)
        assert done.exit_code == 0, done.stderr
    integration = harness.folder / "integration.yaml"
    printed = CliRunner().invoke(app, ["integrations", "--default-image", "registry.example/packager:7"]).stdout
    integration.write_text(printed)
    assert harness.run("integration", "create", "-f", str(integration), "--id", "docker-rest").exit_code == 0
    server.scene = succeeds
    done = harness.run("pack", "create", "-f", str(harness.pack_file))
    assert done.exit_code == 0, done.stderr
    container = server.objects["jobs", "wine"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/packager:7"


def test_connections_are_shown_without_their_secrets(harness: ClusterHarness, server: ApiServer) -> None:
    harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry")
    assert server.objects["secrets", "connection-registry"]["data"]["password"] == "cGFzcy13b3Jk"
    (shown,) = yaml.safe_load(harness.run("connection", "get").stdout)
    assert shown == {
        "kind": "Connection",
        "id": "registry",
        "spec": {
            "type": "docker",
            "uri": "gcr.io/project",
            "username": "ann",
            "password": "*****",
            "description": "ours",
        },
    }
    words = ["connection", "get", "--id", "registry", "--decrypted", "-o", "jsonpath=[0].spec.password"]
    done = CliRunner().invoke(app, [*words, "--kubeconfig", str(harness.kubeconfig)])
    assert done.stdout.strip() == "cGFzcy13b3Jk"
    assert harness.run("connection", "get", "--decrypted").exit_code == 2


def test_a_masked_secret_that_comes_back_stays_as_it_was(harness: ClusterHarness, server: ApiServer) -> None:
    harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry")
    (shown,) = yaml.safe_load(harness.run("connection", "get", "--id", "registry").stdout)
    shown["spec"]["uri"] = "gcr.io/other"
    file = harness.folder / "edited.yaml"
    file.write_text(yaml.safe_dump(shown))
    assert harness.run("connection", "edit", "-f", str(file)).exit_code == 0
    data = server.objects["secrets", "connection-registry"]["data"]
    assert base64.b64decode(data["uri"]) == b"gcr.io/other"
    assert data["password"] == "cGFzcy13b3Jk"
    done = harness.run("connection", "create", "-f", str(file), "--id", "new")
    assert done.exit_code == 12
    assert "password" in done.stderr
    assert harness.run("pack", "create", "-f", str(harness.pack_file), "-f", str(file)).exit_code == 12


def test_an_edit_that_crosses_another_is_refused(harness: ClusterHarness, server: ApiServer) -> None:
    harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry")
    server.refuse("PUT", "secrets", 409, "the object has been modified", "Conflict")
    done = harness.run("connection", "edit", "-f", str(harness.connections), "--id", "registry")
    assert done.exit_code == 60


def test_what_is_vital_is_not_deleted(harness: ClusterHarness, server: ApiServer) -> None:
    harness.connections.write_text(CONNECTIONS.replace("description: ours", "vital: true"))
    harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry")
    assert harness.run("connection", "delete", "--id", "registry").exit_code == 12
    assert server.names("secrets") == ["connection-registry"]


@pytest.mark.parametrize("kind", ["connection", "integration"])
def test_the_verbs_are_the_same_for_both(harness: ClusterHarness, kind: str) -> None:
    file = harness.connections
    if kind == "integration":
        file = harness.folder / "integrations.yaml"
        file.write_text(CliRunner().invoke(app, ["integrations"]).stdout)
    known = "registry" if kind == "connection" else "docker-cli"
    words = ["-f", str(file), "--id", known]
    assert harness.run(kind, "create", *words, "-o", "json").exit_code == 0
    assert harness.run(kind, "create", *words).exit_code == 64
    assert harness.run(kind, "create", *words, "--ignore-if-exists").exit_code == 0
    assert harness.run(kind, "edit", *words, "-o", "jsonpath=[0].id").stdout.strip() == known
    assert known in harness.run(kind, "get", "-o", "table").stdout
    assert harness.run(kind, "delete", "--id", known).exit_code == 0
    for verb in (["edit", *words], ["get", "--id", known], ["delete", "--id", known]):
        assert harness.run(kind, *verb).exit_code == 63
    assert harness.run(kind, "delete", "--id", known, "--ignore-not-found").exit_code == 0
    assert harness.run(kind, "delete", "-f", str(file)).exit_code == 2  # it holds two
    assert harness.run(kind, "create", "-f", str(harness.pack_file)).exit_code == 12


def test_invalid_connection_secret_is_reported(harness: ClusterHarness, server: ApiServer) -> None:
    labels = {"packager.odahu.org/entity": "connection", "packager.odahu.org/id": "registry"}
    server.put("secrets", {"metadata": {"name": "connection-registry", "labels": labels}, "data": {"uri": "eA=="}})
    done = harness.run("connection", "get", "--id", "registry")
    assert done.exit_code == 60
    assert "spec.type: field required" in done.stderr


# What the roles of the chart are for


def succeeds_once_watched(plural: str, begins: Scene) -> Scene:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        def watches() -> int:
            return sum(each.plural == plural and "watch" in each.query for each in list(server.asked))

        before = watches()
        begins(server, job)
        while watches() == before:
            time.sleep(0.02)
        succeeds(server, job)

    return scene


def test_a_user_needs_the_users_role_and_all_of_it(harness: ClusterHarness, server: ApiServer) -> None:
    for name in ("registry", "models"):
        assert harness.run("connection", "create", "-f", str(harness.connections), "--id", name).exit_code == 0
    server.allowed = role("packager-user")
    server.used.clear()
    file = str(harness.pack_file)
    server.scene = succeeds_once_watched("pods", waits_for_a_node)
    assert harness.run("pack", "create", "-f", file).exit_code == 0
    server.scene = succeeds_once_watched("jobs", no_pod("exceeded quota"))
    assert harness.run("pack", "edit", "-f", file).exit_code == 0
    for words in (["get"], ["get", "--id", "wine"], ["logs", "--id", "wine"], ["delete", "--id", "wine"]):
        assert harness.run("pack", *words).exit_code == 0
    assert server.used == role("packager-user")


def test_an_admin_needs_the_admins_role_and_all_of_it(harness: ClusterHarness, server: ApiServer) -> None:
    server.allowed = role("packager-admin")
    integrations = harness.folder / "integrations.yaml"
    integrations.write_text(CliRunner().invoke(app, ["integrations"]).stdout)
    for kind, file, name in (
        ("connection", harness.connections, "models"),
        ("integration", integrations, "docker-cli"),
    ):
        for verb in ("create", "edit"):
            assert harness.run(kind, verb, "-f", str(file), "--id", name).exit_code == 0
        for words in (["get"], ["get", "--id", name], ["delete", "--id", name]):
            assert harness.run(kind, *words).exit_code == 0
    assert server.used == role("packager-admin")
