"""The status of a packaging, derived from its Job, its pods and their events by pure functions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from packager.kube.names import CONTAINER, RESULTS
from packager.kube.pod_diagnostics import Cause, event_cause, pod_cause, waiting_cause

SCHEDULING, RUNNING, SUCCEEDED, FAILED = "scheduling", "running", "succeeded", "failed"
FINAL = frozenset({SUCCEEDED, FAILED})
_BY_SIGNAL = frozenset({None, 0, 137, 143})


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The objects of a packaging at one moment.

    Attributes:
        job: The Job.
        pods: Its pods.
        events: Warnings about the Job and its newest pod; empty if they were not requested.
        job_version, pods_version: The resource versions from which a watch continues.
    """

    job: dict[str, Any]
    pods: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    job_version: str = ""
    pods_version: str = ""

    def with_events(self, events: list[dict[str, Any]]) -> Observation:
        """Return the observation with these events."""
        return replace(self, events=events)

    @property
    def newest_pod(self) -> dict[str, Any] | None:
        """The pod of the last attempt."""
        return max(self.pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


@dataclass(frozen=True, kw_only=True)
class Status:
    """The `status` of a packaging.

    Attributes:
        state: scheduling, running, succeeded or failed.
        pod_name: The pod of the last attempt.
        exit_code: The exit code of the last attempt that ended; None before.
        reason: A reason of Kubernetes (`OOMKilled`), or the code of an error of the packager (`registry-auth`).
        message: What happened.
        hint: What to do.
        results: The named results.
    """

    state: str
    pod_name: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    hint: str = ""
    results: dict[str, str] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the packaging has ended."""
        return self.state in FINAL

    def to_document(self) -> dict[str, Any]:
        """Return the status as in the platform's document."""
        message = f"{self.message}\nhint: {self.hint}" if self.hint else self.message
        results = [{"name": name, "value": value} for name, value in self.results.items()]
        values = {"state": self.state, "podName": self.pod_name, "reason": self.reason, "message": message}
        held = {name: value for name, value in values.items() if value}
        return held | ({} if self.exit_code is None else {"exitCode": self.exit_code}) | {"results": results}


def status_of(seen: Observation) -> Status:
    """Return the status of a packaging."""
    conditions = {
        condition["type"]: condition
        for condition in seen.job.get("status", {}).get("conditions") or ()
        if condition.get("status") == "True"
    }
    if "Complete" in conditions:
        return _succeeded(seen)
    if "Failed" in conditions:
        return _failed(seen, conditions["Failed"])
    if seen.job["spec"].get("suspend"):
        return Status(
            state=SCHEDULING,
            reason="Suspended",
            message="the Job is suspended",
            hint="a queue (Kueue) will start it, or a user suspended it",
        )
    return _active(seen)


def _succeeded(seen: Observation) -> Status:
    pods = [pod for pod in seen.pods if pod.get("status", {}).get("phase") == "Succeeded"]
    pod = pods[-1] if pods else None
    results = kept_results(seen.job) or (results_of(pod) if pod else {})
    if results:
        return Status(state=SUCCEEDED, pod_name=_name(pod), exit_code=0, results=results)
    return Status(
        state=SUCCEEDED,
        pod_name=_name(pod),
        exit_code=0,
        message="the image was pushed, but its pod and the results were deleted",
        hint="find the image in the registry; `create --wait` and `get` store the results while the pod exists",
    )


def _failed(seen: Observation, condition: dict[str, Any]) -> Status:
    reason, message = str(condition.get("reason", "")), str(condition.get("message", ""))
    pod = seen.newest_pod
    cause = pod_cause(pod) if pod else None
    if reason == "DeadlineExceeded":
        return _deadline_exceeded(seen, cause)
    if cause is None:
        before = event_cause(seen.events)
        return Status(
            state=FAILED,
            reason=before.reason if before else reason,
            message=before.message if before else message,
            hint=before.hint if before else "its pods were deleted; start it again with `packager pack edit`",
        )
    return _of_cause(FAILED, pod, cause)


def _deadline_exceeded(seen: Observation, cause: Cause | None) -> Status:
    """Return what kept a packaging from ending in time; the deadline itself ends a pod by a signal."""
    pod = seen.newest_pod
    ended_itself = cause if cause and cause.exit_code not in _BY_SIGNAL else None
    before = (waiting_cause(pod) if pod else None) or ended_itself or event_cause(seen.events)
    limit = seen.job["spec"].get("activeDeadlineSeconds")
    message = f"the packaging exceeded the Job's deadline of {limit} seconds"
    return Status(
        state=FAILED,
        pod_name=_name(pod),
        exit_code=cause.exit_code if cause else None,
        reason="DeadlineExceeded",
        message=f"{message}; before that: {before.reason}: {before.message}" if before else message,
        hint=before.hint if before else "raise activeDeadlineSeconds in the Job settings, or the resources",
    )


def _active(seen: Observation) -> Status:
    pod = seen.newest_pod
    if pod is None:
        cause = event_cause(seen.events)
        return _of_cause(SCHEDULING, None, cause) if cause else Status(state=SCHEDULING)
    phase = pod.get("status", {}).get("phase")
    if phase == "Failed":
        cause = pod_cause(pod)
        again = Cause(
            reason=cause.reason,
            message=f"an attempt failed, and Kubernetes may start another one: {cause.message}",
            exit_code=cause.exit_code,
            hint=cause.hint,
        )
        return _of_cause(SCHEDULING, pod, again)
    if phase in {"Running", "Succeeded"}:
        return Status(state=RUNNING, pod_name=_name(pod))
    cause_now = waiting_cause(pod) or event_cause(seen.events)
    return _of_cause(SCHEDULING, pod, cause_now) if cause_now else Status(state=SCHEDULING, pod_name=_name(pod))


def _of_cause(state: str, pod: dict[str, Any] | None, cause: Cause) -> Status:
    return Status(
        state=state,
        pod_name=_name(pod),
        exit_code=cause.exit_code,
        reason=cause.reason,
        message=cause.message,
        hint=cause.hint,
    )


def _name(pod: dict[str, Any] | None) -> str:
    return str(pod["metadata"]["name"]) if pod else ""


def results_of(pod: dict[str, Any]) -> dict[str, str]:
    """Read the results from a pod's termination message: a flat JSON object of strings (CONTRACT section 3)."""
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            return _strings((container.get("state", {}).get("terminated") or {}).get("message") or "")
    return {}


def kept_results(job: dict[str, Any]) -> dict[str, str]:
    """Read the results that are stored in the Job's annotation."""
    return _strings((job["metadata"].get("annotations") or {}).get(RESULTS, ""))


def _strings(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    return {str(name): item for name, item in value.items() if isinstance(item, str)}
