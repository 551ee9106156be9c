"""The security contexts: as few rights as each engine can do with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.kube.job_settings import EngineOfJobs

# What Kaniko needs to unpack a base image over its root and to run steps in it, measured; nothing more.
KANIKO_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL")
OCI_USER = 10001


@dataclass(frozen=True, kw_only=True)
class Security:
    """The two `securityContext`s of a pod with one container."""

    pod: dict[str, Any]
    container: dict[str, Any]


def security(engine: EngineOfJobs) -> Security:
    """Return the contexts for an engine.

    kaniko passes the Pod Security level "baseline" of Kubernetes, oci the level "restricted", complete
    (kubernetes.io/docs/concepts/security/pod-security-standards).
    """
    seccomp = {"seccompProfile": {"type": "RuntimeDefault"}}
    if engine == "kaniko":
        return Security(
            pod={"runAsUser": 0, "runAsGroup": 0, **seccomp},
            container={
                "privileged": False,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": list(KANIKO_CAPABILITIES)},
            },
        )
    return Security(
        # fsGroup: the Secret's file and the volumes are readable for the user.
        pod={
            "runAsNonRoot": True,
            "runAsUser": OCI_USER,
            "runAsGroup": OCI_USER,
            "fsGroup": OCI_USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            **seccomp,
        },
        container={
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    )
