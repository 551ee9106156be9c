"""Diagnoses why a pod does not start or why it failed, with a hint for each case."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.kube.names import CONTAINER
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_HINTS = {
    "Unschedulable": "lower spec.resources or workSize, or add nodes with enough free resources that match the node "
    "selector and tolerations; an autoscaler may be adding one",
    "image": "check spec.image and the integration's defaultImage, and imagePullSecrets in the Job settings",
    "OOMKilled": "raise spec.resources.limits.memory",
    "Evicted": "raise workSize in the Job settings if the packaging used too much disk space, else start it again",
    "CreateContainerConfigError": "a Secret or ConfigMap named in the Job settings is missing or invalid",
    "FailedMount": "check the volume claims and Secrets named in the Job settings",
    "QuotaExceeded": "it starts when other pods have ended; else lower spec.resources, or ask for a higher quota",
    "AdmissionDenied": "the namespace's Pod Security level or a policy rejects the pod: kaniko needs the level "
    "'baseline', oci complies with 'restricted'",
    "ServiceAccountMissing": "install the chart, or set an existing service account in the Job settings",
    "DisruptionTarget": "Kubernetes retries it; this does not count as an attempt",
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The cause of a pod's state.

    Attributes:
        reason: A reason of Kubernetes, or the code of an error of the packager.
        message: A description, shortened.
        exit_code: The exit code of the container, if it ended.
        hint: What to do.
    """

    reason: str
    message: str
    exit_code: int | None = None
    hint: str = ""


def waiting_cause(pod: Mapping[str, Any]) -> Cause | None:
    """Return why a pod does not start; None if it is starting normally."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in _IMAGE:
            message = f"cannot pull image {container.get('image', '')}: {sanitize(waiting.get('message'))}"
            return Cause(reason=reason, message=message, hint=_HINTS["image"])
        if reason not in {"", "ContainerCreating", "PodInitializing"}:
            hint = _HINTS["CreateContainerConfigError"]
            return Cause(reason=reason, message=sanitize(waiting.get("message")), hint=hint)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = f"no node has room for it: {sanitize(condition.get('message'))}"
            return Cause(reason="Unschedulable", message=message, hint=_HINTS["Unschedulable"])
    return None


def pod_cause(pod: Mapping[str, Any]) -> Cause:
    """Return why a pod failed."""
    status = pod.get("status", {})
    terminated = next(
        (
            container.get("state", {}).get("terminated") or {}
            for container in status.get("containerStatuses") or ()
            if container.get("name") == CONTAINER
        ),
        {},
    )
    code = terminated.get("exitCode")
    if status.get("reason") == "Evicted":
        message = f"the pod was evicted: {sanitize(status.get('message'))}"
        return Cause(reason="Evicted", message=message, exit_code=code, hint=_HINTS["Evicted"])
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            message = f"the pod's node was lost or drained: {sanitize(condition.get('message'))}"
            reason = str(condition.get("reason", "DisruptionTarget"))
            return Cause(reason=reason, message=message, exit_code=code, hint=_HINTS["DisruptionTarget"])
    if terminated.get("reason") == "OOMKilled":
        message = "the container exceeded its memory limit and was killed"
        return Cause(reason="OOMKilled", message=message, exit_code=code, hint=_HINTS["OOMKilled"])
    return _own_error(terminated) or Cause(
        reason=str(terminated.get("reason") or status.get("reason") or "Error"),
        message=sanitize(terminated.get("message") or status.get("message"))
        or f"the container exited with code {code}",
        exit_code=code,
        hint="`packager pack logs` shows the whole log",
    )


def _own_error(terminated: Mapping[str, Any]) -> Cause | None:
    """Read the packager's error from the termination log, `{"error": {"code", "message", "hint"}}`."""
    try:
        error = json.loads(str(terminated.get("message")))["error"]
        reason, message, hint = (str(error[name]) for name in ("code", "message", "hint"))
    except (ValueError, TypeError, KeyError):
        return None
    return Cause(reason=reason, message=message, exit_code=terminated.get("exitCode"), hint=hint)


_EVENTS = (
    ("exceeded quota", "QuotaExceeded"),
    ("must specify", "QuotaExceeded"),
    ("violates PodSecurity", "AdmissionDenied"),
    ("admission webhook", "AdmissionDenied"),
    ("ValidatingAdmissionPolicy", "AdmissionDenied"),
    ("error looking up service account", "ServiceAccountMissing"),
)
_UNSPECIFIC = re.compile(r"^(BackoffLimitExceeded|DeadlineExceeded|PodFailurePolicy|BackOff)$")


def event_cause(events: Iterable[Mapping[str, Any]]) -> Cause | None:
    """Return the cause in the newest specific warning: pod rejected, no node, no image, no volume."""
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and not _UNSPECIFIC.match(str(event.get("reason", "")))
    ]
    for event in sorted(warnings, key=_time, reverse=True):
        reason, message = str(event.get("reason", "")), sanitize(event.get("message"))
        if reason == "FailedCreate":
            word = next((name for part, name in _EVENTS if part in message), reason)
            return Cause(reason=word, message=message, hint=_HINTS.get(word, ""))
        if reason == "FailedScheduling":
            message = f"no node has room for it: {message}"
            return Cause(reason="Unschedulable", message=message, hint=_HINTS["Unschedulable"])
        if reason in {"Failed", "InspectFailed"} and "image" in message.lower():
            return Cause(reason="ErrImagePull", message=message, hint=_HINTS["image"])
        return Cause(reason=reason, message=message, hint=_HINTS.get(reason, ""))
    return None


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", ""))
