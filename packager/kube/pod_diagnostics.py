"""Why a pod doesn't start, or why it ended: each case in its own words, with what to do."""

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
    "Unschedulable": "lower spec.resources or workSize, or have nodes with room that the node selector and tolerations "
    "allow; a node that is being added may take it",
    "image": "check spec.image and the integration's defaultImage, and the imagePullSecrets in the settings of Jobs",
    "OOMKilled": "raise spec.resources.limits.memory",
    "Evicted": "raise workSize in the settings of Jobs when it was the packaging's own space, else start it again",
    "CreateContainerConfigError": "a Secret or ConfigMap that the settings of Jobs name is missing or wrong",
    "FailedMount": "check the claims and Secrets that the settings of Jobs name",
    "QuotaExceeded": "it starts when others have ended; else lower spec.resources, or have the quota raised",
    "AdmissionDenied": "the namespace's Pod Security level or a policy refuses the pod: use a namespace with the level "
    "'baseline' for kaniko; oci passes 'restricted'",
    "ServiceAccountMissing": "install the chart, or name a service account that exists in the settings of Jobs",
    "DisruptionTarget": "Kubernetes tries it again by itself; no attempt is counted",
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why something is as it is.

    Attributes:
        reason: A word of Kubernetes' or of ours.
        message: What was told about it, shortened.
        exit_code: Of the container, when it ended.
        hint: What to do.
    """

    reason: str
    message: str
    exit_code: int | None = None
    hint: str = ""


def waiting_cause(pod: Mapping[str, Any]) -> Cause | None:
    """Tell why a pod that has not started waits; None when it's just on its way."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in _IMAGE:
            message = f"the image {container.get('image', '')} can't be pulled: {sanitize(waiting.get('message'))}"
            return Cause(reason=reason, message=message, hint=_HINTS["image"])
        if reason not in {"", "ContainerCreating", "PodInitializing"}:
            hint = _HINTS["CreateContainerConfigError"]
            return Cause(reason=reason, message=sanitize(waiting.get("message")), hint=hint)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = f"no node can take it: {sanitize(condition.get('message'))}"
            return Cause(reason="Unschedulable", message=message, hint=_HINTS["Unschedulable"])
    return None


def pod_cause(pod: Mapping[str, Any]) -> Cause:
    """Tell why a pod failed."""
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
        message = f"it was evicted: {sanitize(status.get('message'))}"
        return Cause(reason="Evicted", message=message, exit_code=code, hint=_HINTS["Evicted"])
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            message = f"its node was lost or needed: {sanitize(condition.get('message'))}"
            reason = str(condition.get("reason", "DisruptionTarget"))
            return Cause(reason=reason, message=message, exit_code=code, hint=_HINTS["DisruptionTarget"])
    if terminated.get("reason") == "OOMKilled":
        message = "it was killed because it used more memory than its limit"
        return Cause(reason="OOMKilled", message=message, exit_code=code, hint=_HINTS["OOMKilled"])
    return _own_error(terminated) or Cause(
        reason=str(terminated.get("reason") or status.get("reason") or "Error"),
        message=sanitize(terminated.get("message") or status.get("message")) or f"it ended with exit code {code}",
        exit_code=code,
        hint="`packager pack logs` shows the rest",
    )


def _own_error(terminated: Mapping[str, Any]) -> Cause | None:
    """Read our own error from the termination log, `{"error": {"code", "message", "hint"}}`."""
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
_UNINTERESTING = re.compile(r"^(BackoffLimitExceeded|DeadlineExceeded|PodFailurePolicy|BackOff)$")


def event_cause(events: Iterable[Mapping[str, Any]]) -> Cause | None:
    """Tell a cause from the newest warning that says one: no pod allowed, no node, no image, no volume."""
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and not _UNINTERESTING.match(str(event.get("reason", "")))
    ]
    for event in sorted(warnings, key=_time, reverse=True):
        reason, message = str(event.get("reason", "")), sanitize(event.get("message"))
        if reason == "FailedCreate":
            word = next((name for part, name in _EVENTS if part in message), reason)
            return Cause(reason=word, message=message, hint=_HINTS.get(word, ""))
        if reason == "FailedScheduling":
            message = f"no node can take it: {message}"
            return Cause(reason="Unschedulable", message=message, hint=_HINTS["Unschedulable"])
        if reason in {"Failed", "InspectFailed"} and "image" in message.lower():
            return Cause(reason="ErrImagePull", message=message, hint=_HINTS["image"])
        return Cause(reason=reason, message=message, hint=_HINTS.get(reason, ""))
    return None


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", ""))
