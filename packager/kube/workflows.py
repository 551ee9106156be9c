"""Packaging as a pipeline step: an Argo WorkflowTemplate and Tekton Tasks, for both engines.

They read the mp.json from a Secret, whose name is a parameter, and return the results as outputs.
"""

from __future__ import annotations

from typing import Any, get_args

from packager.kube.job import (
    MANIFEST_FILE,
    PACKAGING_FOLDER,
    PROGRAM,
    RETRIED_CODES,
    WORK_FOLDER,
    container_resources,
    environment,
    security,
)
from packager.kube.job_settings import EngineOfJobs, JobSettings
from packager.kube.names import COMMON_LABELS, ENTITY

_RESULTS = {
    "image": "The image by tag.",
    "imageDigest": "The image by digest.",
    "modelCheck": "passed, or skipped: and why the model was not checked.",
}
_ARGO_RESULTS = WORK_FOLDER / "results"
_TEKTON_RESULTS = "/tekton/results"  # the folder of $(results.image.path); Kaniko leaves it alone because it is a mount
_SECRET = "manifest-secret"  # noqa: S105  (the name of a parameter)
_DESCRIPTION = "Secret with the packaging manifest in its key mp.json: packaging, integration, connections, store."


def argo_template(settings: JobSettings) -> dict[str, Any]:
    """Return the Argo WorkflowTemplate with one template per engine (argoproj.io/v1alpha1)."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "packager", "labels": dict(COMMON_LABELS)},
        "spec": {
            "entrypoint": "oci" if settings.engine == "auto" else settings.engine,
            "arguments": {"parameters": [{"name": _SECRET, "description": _DESCRIPTION}]},
            "templates": [_argo_step(settings, engine) for engine in get_args(EngineOfJobs)],
        },
    }


def _argo_step(settings: JobSettings, engine: EngineOfJobs) -> dict[str, Any]:
    contexts = security(engine)
    codes = ", ".join(str(code) for code in sorted(RETRIED_CODES))
    return {
        "name": engine,
        "inputs": {"parameters": [{"name": _SECRET}]},
        "outputs": {
            "parameters": [{"name": name, "valueFrom": {"path": str(_ARGO_RESULTS / name)}} for name in _RESULTS]
        },
        "metadata": {"labels": {ENTITY: "packaging"}},
        "activeDeadlineSeconds": settings.active_deadline_seconds,
        "retryStrategy": {
            "limit": settings.backoff_limit,
            "retryPolicy": "Always",
            "expression": f"lastRetry.status == 'Error' or asInt(lastRetry.exitCode) in [{codes}]",
        },
        "securityContext": contexts.pod,
        "volumes": _volumes(settings, f"{{{{inputs.parameters.{_SECRET}}}}}"),
        "container": {
            **_step(settings, engine, str(_ARGO_RESULTS)),
            "resources": container_resources(None, settings),
            "securityContext": contexts.container,
        },
    }


def tekton_tasks(settings: JobSettings) -> list[dict[str, Any]]:
    """Return the Tekton Tasks, one per engine (tekton.dev/v1)."""
    return [_tekton_task(settings, engine) for engine in get_args(EngineOfJobs)]


def _tekton_task(settings: JobSettings, engine: EngineOfJobs) -> dict[str, Any]:
    contexts = security(engine)
    own = {name: value for name, value in contexts.pod.items() if not name.startswith("fsGroup")}
    return {
        "apiVersion": "tekton.dev/v1",
        "kind": "Task",
        "metadata": {"name": f"packager-{engine}", "labels": dict(COMMON_LABELS)},
        "spec": {
            "description": "Packages a trained model into a container image and pushes it.",
            "params": [{"name": _SECRET, "type": "string", "description": _DESCRIPTION}],
            "results": [
                {"name": name, "type": "string", "description": description} for name, description in _RESULTS.items()
            ],
            "volumes": _volumes(settings, f"$(params.{_SECRET})"),
            "steps": [
                {
                    **_step(settings, engine, _TEKTON_RESULTS),
                    "name": "package",
                    "timeout": f"{settings.active_deadline_seconds}s",
                    "computeResources": container_resources(None, settings),
                    "securityContext": {**own, **contexts.container},
                }
            ],
        },
    }


def _step(settings: JobSettings, engine: EngineOfJobs, results: str) -> dict[str, Any]:
    return {
        "image": settings.image,
        "command": list(PROGRAM),
        "args": [str(MANIFEST_FILE), "--engine", engine, "--results-dir", results],
        "workingDir": str(WORK_FOLDER),
        "env": environment(settings),
        "volumeMounts": [
            {"name": "packaging", "mountPath": str(PACKAGING_FOLDER), "readOnly": True},
            {"name": "work", "mountPath": str(WORK_FOLDER)},
        ],
    }


def _volumes(settings: JobSettings, secret: str) -> list[dict[str, Any]]:
    # A Tekton step has no fsGroup, so the file is readable for every user of the pod.
    return [
        {"name": "packaging", "secret": {"secretName": secret, "defaultMode": 0o444}},
        {"name": "work", "emptyDir": {"sizeLimit": settings.work_size}},
    ]
