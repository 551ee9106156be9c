"""`packager pack` where the cluster, the way to it or another person is in the way."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from packager.cli import app
from packager.errors import EntityNotFoundError
from packager.kube.cluster import Access, connect
from packager.kube.log_follower import Follower
from tests.integration.api_server import TOKEN, ApiServer
from tests.integration.packaging import ROOT
from tests.integration.test_cluster import RESULTS, RUNNING, ClusterHarness, many, role, succeeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = b"<html>Sign in to the portal</html>"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.allowed = role("packager-user") | role("packager-admin")
        yield running


@pytest.fixture
def harness(tmp_path: Path, server: ApiServer) -> ClusterHarness:
    return ClusterHarness(tmp_path, server)


def does_nothing(_server: ApiServer, _job: dict[str, Any]) -> None:
    """No controller does anything with the Job."""


# Answers of others


@pytest.mark.parametrize("way", ["GET", "watch"])
@pytest.mark.parametrize("page", [PAGE, b'{"type": "MODIF', b"[1]\n", b'{"type": "ADDED"}\n'])
def test_what_is_no_answer_of_an_api_server_is_asked_again(
    harness: ClusterHarness, server: ApiServer, way: str, page: bytes
) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        while server.pages:
            time.sleep(0.02)
        succeeds(server, job)

    server.pages = [(way, page)]
    server.scene = scene
    done = harness.create("--timeout", "60")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == RESULTS["imageDigest"]


def test_a_login_page_is_no_empty_list(harness: ClusterHarness, server: ApiServer) -> None:
    server.pages = [("GET", PAGE)] * 4
    done = harness.run("pack", "get")
    assert done.exit_code == 60
    assert done.stdout == ""
    assert "<html>Sign in to the portal</html>" in done.stderr


def test_a_job_whose_answer_was_lost_gets_its_secret(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    server.lost_answers = 1
    done = harness.create()
    assert done.exit_code == 0, done.stderr
    (name,) = server.names("secrets")
    (owner,) = server.objects["secrets", name]["metadata"]["ownerReferences"]
    assert owner["uid"] == server.objects["jobs", "wine"]["metadata"]["uid"]


def test_a_job_that_another_made_meanwhile_is_not_taken_for_ones_own(
    harness: ClusterHarness, server: ApiServer
) -> None:
    server.put("jobs", {"metadata": {"name": "wine"}, "spec": {}})
    server.refuse("POST", "jobs", 504, "request did not complete within requested timeout", "Timeout")
    assert harness.create().exit_code == 60
    assert server.names("secrets") == []


def test_failed_deletion_of_a_job_is_reported_beside_the_reason(harness: ClusterHarness, server: ApiServer) -> None:
    server.refuse("POST", "secrets", 403, 'admission webhook "w" denied the request: no such', "Forbidden")
    server.refuse("DELETE", "jobs", 500, "etcdserver: no leader", "InternalError")
    done = harness.create()
    assert done.exit_code == 60
    assert "packager pack delete --id wine" in done.stderr


def test_a_policy_that_says_cannot_is_no_missing_permission(harness: ClusterHarness, server: ApiServer) -> None:
    message = 'admission webhook "w" denied the request: an image tag cannot be latest'
    server.refuse("POST", "jobs", 403, message, "Forbidden")
    done = harness.create()
    assert done.exit_code == 60
    assert "Job 'wine'" in done.stderr


def test_the_role_that_has_a_permission_is_named(harness: ClusterHarness, server: ApiServer) -> None:
    assert harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry").exit_code == 0
    server.allowed = role("packager-user")
    done = harness.run("connection", "edit", "-f", str(harness.connections), "--id", "registry")
    assert done.exit_code == 61
    assert "packager-admin" in done.stderr


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (409, "the object has been modified", "Conflict"),
        (403, 'admission webhook "w" denied the request: Jobs stay as they are', "Forbidden"),
        (500, "etcdserver: no leader", "InternalError"),
        (422, "metadata.annotations: Too long", "Invalid"),
    ],
)
def test_results_are_printed_even_if_they_cannot_be_stored(
    harness: ClusterHarness, server: ApiServer, code: int, message: str, reason: str
) -> None:
    server.scene = succeeds
    server.refuse("PATCH", "jobs", code, message, reason)
    done = harness.create()
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == RESULTS["imageDigest"]
    assert "WARNING" in done.stderr
    assert harness.status()["results"][0]["value"] == RESULTS["image"]


# Waiting


def test_an_outage_of_the_api_server_is_waited_for(harness: ClusterHarness, server: ApiServer) -> None:
    def scene(server: ApiServer, job: dict[str, Any]) -> None:
        server.pod(job, phase="Running", state=RUNNING)
        server.say("wine-pod1", "reading the model")
        for plural in ("jobs", "pods"):
            server.refuse("GET", plural, 503, "the API server restarts", "ServiceUnavailable", times=9)
        server.say("wine-pod1", None)
        succeeds(server, job)

    server.scene = scene
    done = harness.create("--timeout", "90")
    assert done.exit_code == 0, done.stderr
    assert sum("still waiting" in line for line in done.stderr.splitlines()) == 1
    assert sum(each.times for each in server.refusals) == 0


def test_long_outage_is_reported_with_the_command_to_continue(harness: ClusterHarness, server: ApiServer) -> None:
    def scene(server: ApiServer, _job: dict[str, Any]) -> None:
        server.refuse("GET", "jobs", 503, "the API server restarts", "ServiceUnavailable")

    server.scene = scene
    done = harness.create("--timeout", "2")
    assert done.exit_code == 60
    assert "the API server restarts" in done.stderr
    assert "packager pack logs --id wine" in done.stderr


def test_packaging_that_is_replaced_while_followed_is_an_error(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = does_nothing
    assert harness.create("--no-wait").exit_code == 0
    told: list[str] = []

    def swap(_status: object) -> None:
        if not told:
            server.remove("jobs", "wine")
            server.scene = succeeds
            assert harness.create("--no-wait").exit_code == 0
        told.append("")

    cluster = connect(Access(kubeconfig=harness.kubeconfig), {})
    follower = Follower(cluster=cluster, packaging_id="wine", on_line=told.append, on_status=swap)
    with pytest.raises(EntityNotFoundError):
        follower.follow(30)


@pytest.mark.parametrize("words", ["unable to retrieve container logs for containerd://abc", "rpc error: gone"])
def test_message_of_a_node_instead_of_the_log_is_printed_once(
    harness: ClusterHarness, server: ApiServer, words: str
) -> None:
    server.scene = succeeds
    harness.create()
    server.logs["wine-pod1"] = [words, ""]
    done = harness.run("pack", "logs", "--id", "wine")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [words]


def test_missing_log_is_reported(harness: ClusterHarness, server: ApiServer) -> None:
    server.scene = succeeds
    harness.create()
    server.remove("pods", "wine-pod1")
    done = harness.run("pack", "logs", "--id", "wine")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "WARNING" in done.stderr


# Editing


@pytest.mark.parametrize(
    ("plural", "code", "message", "exit_code"),
    [
        ("jobs", 422, "quantities must match the regular expression", 12),
        ("jobs", 403, 'admission webhook "w" denied the request: no such registry', 60),
        ("secrets", 422, "data: Too long: may not be more than 1048576 bytes", 12),
    ],
)
def test_edit_leaves_the_old_one_when_the_cluster_refuses_the_new_one(
    harness: ClusterHarness, server: ApiServer, plural: str, code: int, message: str, exit_code: int
) -> None:
    server.scene = succeeds
    harness.create()
    server.refuse("POST", plural, code, message, "Invalid" if code == 422 else "Forbidden")
    done = harness.run("pack", "edit", "-f", str(harness.pack_file), "-f", str(harness.connections))
    assert done.exit_code == exit_code, done.stderr
    assert message in done.stderr
    assert harness.status()["results"][0]["value"] == RESULTS["image"]


@pytest.mark.parametrize(
    "message", ["exceeded quota: team, used: count/jobs.batch=1", 'admission webhook "w" does not support dry run']
)
def test_edit_is_not_kept_by_what_only_the_dry_run_meets(
    harness: ClusterHarness, server: ApiServer, message: str
) -> None:
    server.scene = succeeds
    harness.create()
    server.refuse("POST", "jobs", 403, message, "Forbidden", times=1)
    done = harness.run("pack", "edit", "-f", str(harness.pack_file), "-f", str(harness.connections))
    assert done.exit_code == 0, done.stderr
    assert len(server.requests("DELETE", "jobs")) == 1


def test_edit_waits_for_the_old_job_also_where_watches_end_at_once(
    harness: ClusterHarness, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.scene = succeeds
    harness.create()
    server.longest_watch = 0.0
    remove = server.remove
    monkeypatch.setattr(server, "remove", lambda *what: threading.Timer(2, remove, what).start())
    done = harness.run("pack", "edit", "-f", str(harness.pack_file), "-f", str(harness.connections), "--no-wait")
    assert done.exit_code == 0, done.stderr
    assert server.names("jobs") == ["wine"]


# Objects that are not what they are labelled as


def test_what_is_labelled_wrongly_does_not_hide_the_rest(harness: ClusterHarness, server: ApiServer) -> None:
    many(server, 1)
    labels = {"packager.odahu.org/entity": "packaging"}
    odd = {"name": "odd", "labels": labels, "annotations": {"packager.odahu.org/document": "[1]"}}
    server.put("jobs", {"metadata": odd, "spec": {}})
    assert harness.run("pack", "get", "-o", "jsonpath=[*].id").stdout.strip() == '["odd", "pack-000"]'
    assert harness.run("connection", "create", "-f", str(harness.connections), "--id", "registry").exit_code == 0
    labels = {"packager.odahu.org/entity": "connection", "packager.odahu.org/id": "broken"}
    server.put("secrets", {"metadata": {"name": "connection-broken", "labels": labels}, "data": {"type": "////"}})
    done = harness.run("connection", "get", "-o", "jsonpath=[*].id")
    assert (done.exit_code, done.stdout.strip()) == (0, "registry")
    assert "Secret 'connection-broken'" in done.stderr


@pytest.mark.parametrize(
    ("packaging_id", "pod", "told"),
    [("wine", "wine-2-abcde", False), ("wine", "wine-x2b4z", True), ("a" * 63, "a" * 58 + "x2b4z", True)],
)
def test_a_pod_that_is_gone_tells_of_its_own_packaging_alone(
    harness: ClusterHarness, server: ApiServer, packaging_id: str, pod: str, told: bool
) -> None:
    server.scene = does_nothing
    harness.create("--no-wait", "--id", packaging_id)
    gone = {"metadata": {"name": pod, "uid": "gone"}}
    server.warn("Pod", gone, "Failed", 'Failed to pull image "packager:1": manifest unknown')
    server.finish(server.objects["jobs", packaging_id], "Failed", "DeadlineExceeded", "too late")
    status = harness.run("pack", "get", "--id", packaging_id, "-o", "jsonpath=[0].status.message").stdout
    assert ("manifest unknown" in status) == told


# The way to the cluster


def without_current(config: dict[str, Any]) -> None:
    del config["current-context"]


def with_stale_current(config: dict[str, Any]) -> None:
    config["current-context"] = "gone"


@pytest.mark.parametrize("change", [without_current, with_stale_current])
def test_a_context_that_is_named_needs_no_current_one(
    harness: ClusterHarness, server: ApiServer, change: Callable[[dict[str, Any]], None]
) -> None:
    many(server, 1)
    config = yaml.safe_load(harness.kubeconfig.read_text())
    change(config)
    harness.kubeconfig.write_text(yaml.safe_dump(config))
    done = harness.run("pack", "get", "-o", "jsonpath=[*].id", "--context", "there")
    assert done.stdout.strip() == "pack-000", done.stderr
    assert harness.run("pack", "get").exit_code == 62


@pytest.mark.parametrize("content", [b"a: [b\n c: {", b"\xff\xfe", b"", b"- a\n", b"text\n"])
def test_invalid_kubeconfig_is_reported(harness: ClusterHarness, content: bytes) -> None:
    harness.kubeconfig.write_bytes(content)
    done = harness.run("pack", "get")
    assert done.exit_code == 62
    assert str(harness.kubeconfig) in done.stderr


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\N{CYRILLIC CAPITAL LETTER ZHE}"])
def test_a_token_that_can_not_be_sent_is_not_shown(harness: ClusterHarness, server: ApiServer, token: str) -> None:
    server.kubeconfig(harness.kubeconfig, token=token)
    done = harness.run("pack", "get", "--verbose")
    assert done.exit_code == 62
    assert TOKEN not in done.output


def test_a_server_with_a_password_is_refused_without_it(harness: ClusterHarness) -> None:
    text = harness.kubeconfig.read_text().replace("http://127", "http://ann:pass-word@127")
    harness.kubeconfig.write_text(text)
    done = harness.run("pack", "get")  # whose output is searched for the password
    assert done.exit_code == 62


def test_a_pod_has_no_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    done = CliRunner().invoke(app, ["pack", "get", "--context", "production"])
    assert done.exit_code == 62
    assert ".kube/config" in done.stderr


def test_what_can_be_no_namespace_is_asked_of_nobody(harness: ClusterHarness, server: ApiServer) -> None:
    done = harness.run("pack", "get", "-n", "../../x?y")
    assert done.exit_code == 2
    assert "'../../x?y'" in done.stderr
    assert server.asked == []


# The reader of the output


@pytest.mark.parametrize("words", [["pack", "get"], ["pack", "logs", "--id", "pack-000"]])
def test_a_reader_that_goes_is_no_bug(harness: ClusterHarness, server: ApiServer, words: list[str]) -> None:
    many(server, 200)
    server.logs["pack-000-pod1"] = [f"2026-03-01T10:02:00.{n + 100000}Z {'x' * 200}" for n in range(2000)] + [""]
    command = [sys.executable, "-m", "packager", *words, "--kubeconfig", str(harness.kubeconfig)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read() if running.stderr else ""
    assert running.returncode == 141
    assert "bug" not in errors
    assert "Broken pipe" not in errors


def test_an_output_that_is_full_or_closed_is_no_bug(harness: ClusterHarness) -> None:
    command = [sys.executable, "-m", "packager", "pack", "render"]
    command += ["-f", str(harness.pack_file), "-f", str(harness.connections)]
    with open("/dev/full", "w") as full:  # noqa: PTH123  (a device)
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 50
    assert "no space left" in done.stderr
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_what_a_packaging_may_know_is_in_its_secret_alone(harness: ClusterHarness, server: ApiServer) -> None:
    assert harness.create("--no-wait").exit_code == 0
    job = yaml.safe_dump(server.objects["jobs", "wine"])
    for secret in ("pass-word", "the-key-secret", "the-key-id"):
        assert secret not in job
        assert base64.b64encode(secret.encode()).decode() not in job
