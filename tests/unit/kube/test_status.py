"""From what is seen in a cluster to a packaging's status, where it takes more than one object to tell."""

from __future__ import annotations

from typing import Any

import pytest

from packager.errors import PackagerError, PackagingFailedError
from packager.kube.api_errors import ApiRequest, failure
from packager.kube.log_follower import timestamp_key
from packager.kube.names import JOBS, PODS
from packager.kube.packagings import document, owned_pods
from packager.kube.pod_diagnostics import event_cause
from packager.kube.status import Observation, Status, results_of, status_of


def job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "wine", "uid": "new"}, "spec": {"activeDeadlineSeconds": 60}, "status": status}


def pod(name: str, second: int, owner: str = "new", **status: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "creationTimestamp": f"2026-03-01T10:00:{second:02d}Z",
        "ownerReferences": [{"uid": owner}],
    }
    return {"metadata": metadata, "status": status}


def ended(code: int, message: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "message": message}}
    return {"phase": "Failed", "containerStatuses": [{"name": "packager", "state": state}]}


def event(reason: str, message: str, second: int, **more: Any) -> dict[str, Any]:
    moment = f"2026-03-01T10:00:{second:02d}Z"
    return {"metadata": {}, "type": "Warning", "reason": reason, "message": message, "lastTimestamp": moment, **more}


def test_status_is_that_of_the_last_attempt() -> None:
    pods = [pod("b", 9, **ended(32)), pod("a", 3, **ended(31))]
    status = status_of(Observation(job=job(), pods=pods))
    assert (status.state, status.pod_name, status.exit_code) == ("scheduling", "b", 32)


def test_pods_of_an_earlier_job_with_the_same_id_are_ignored() -> None:
    pods = [pod("old", 9, owner="old", phase="Running"), pod("new", 1, phase="Pending")]
    assert [each["metadata"]["name"] for each in owned_pods(job(), pods)] == ["new"]


def test_job_without_pods_is_scheduling() -> None:
    assert status_of(Observation(job=job())) == Status(state="scheduling")
    assert status_of(Observation(job=job(), pods=[pod("a", 1, phase="Pending")])).to_document() == {
        "state": "scheduling",
        "podName": "a",
        "results": [],
    }


def test_cause_is_the_newest_specific_warning() -> None:
    events = [
        event("FailedScheduling", "no memory", 1),
        event("BackOff", "Back-off", 9),
        event("FailedMount", "no claim", 5),
        event("Pulled", "fine", 10, type="Normal"),
    ]
    cause = event_cause(events)
    assert cause is not None
    assert (cause.reason, cause.message) == ("FailedMount", "no claim")
    assert event_cause(events[1:2]) is None


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1]", '{"image": 1}', '{"error": {"code": "x"}}', '"text"', '{"image": "a"', "null"]
)
def test_invalid_termination_message_gives_no_results(text: str) -> None:
    assert results_of(pod("a", 1, **ended(0, text))) == {}


def test_log_timestamps_with_any_number_of_digits_are_ordered() -> None:
    moments = ["2026-03-01T10:00:01Z", "2026-03-01T10:00:01.05Z", "2026-03-01T10:00:01.1Z", "2026-03-01T10:00:01.12Z"]
    turned = moments[::-1]
    assert sorted(turned, key=timestamp_key) == moments


@pytest.mark.parametrize(
    ("asked", "permission"),
    [
        (ApiRequest(method="GET", kind=JOBS, namespace="ml"), "list jobs.batch"),
        (ApiRequest(method="GET", kind=JOBS, namespace="ml", watch=True), "watch jobs.batch"),
        (ApiRequest(method="GET", kind=PODS, namespace="ml", name="a", part="log"), "get pods/log"),
        (ApiRequest(method="DELETE", kind=JOBS, namespace="ml", name="a"), "delete jobs.batch"),
        (ApiRequest(method="PATCH", kind=JOBS, namespace="ml", name="a"), "patch jobs.batch"),
    ],
)
def test_denied_request_names_its_permission_as_kubectl_does(asked: ApiRequest, permission: str) -> None:
    assert asked.permission == permission
    message = 'User "ann" cannot do resource "that" in API group ""'
    error = failure(asked, 403, {"message": message})
    assert error.exit_code == 61
    assert permission in error.message


@pytest.mark.parametrize(("own_code", "exit_code"), [(31, 31), (10, 10), (None, 65), (0, 65), (137, 65), (143, 65)])
def test_known_exit_code_of_a_packaging_becomes_that_of_the_command(own_code: int | None, exit_code: int) -> None:
    error: PackagerError = PackagingFailedError("failed", own_code=own_code)
    assert error.exit_code == exit_code
    assert error.rewritten(str).exit_code == exit_code


def test_job_with_a_damaged_document_is_still_shown() -> None:
    damaged = {"metadata": {"name": "wine", "annotations": {"packager.odahu.org/document": "{"}}}
    assert document(damaged, Status(state="failed"))["spec"] == {}
