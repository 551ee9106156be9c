"""The Job of a packaging and its Secret: pure functions from a request to manifests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from packager.errors import RequestError, exit_codes
from packager.kube.names import (
    ARTIFACT,
    COMMON_LABELS,
    CONTAINER,
    DOCUMENT,
    ENGINE,
    ENTITY,
    INTEGRATION_ID,
    JOBS,
    PACKAGING_ID,
    SECRETS,
    check_id,
    secret_name,
)

if TYPE_CHECKING:
    from packager.kube.job_settings import EngineOfJobs, JobSettings
    from packager.models.packaging import PackagingManifest
    from packager.models.resources import Resources

PACKAGING_FOLDER = PurePosixPath("/kaniko/packaging")
MANIFEST_FILE = PACKAGING_FOLDER / "mp.json"
# Kaniko leaves /kaniko alone, and no image has files there.
WORK_FOLDER = PurePosixPath("/kaniko/work")
MODEL_FOLDER = PurePosixPath("/kaniko/model")
CACHE_FOLDER = PurePosixPath("/kaniko/cache-packager")
PROGRAM = ("packager", "run")
TERMINATION_LOG = "/dev/termination-log"
# Failures that a retry may resolve: a store, channel, index or registry that is down, and a deleted pod.
RETRIED_CODES = frozenset({14, 16, 22, 23, 30, 32, 130, 143})
_FIRST_OTHER_CODE = 60  # codes from here on belong to cluster commands, the API service and signals
_ADDS_CONDA = "dockerfileAddCondaInstallation"
_FALSE = ("false", "no", "off", "0", "f", "n")  # as pydantic reads a boolean
# The minimum that Kaniko needs to unpack a base image over its root and to run steps in it, measured.
KANIKO_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL")
OCI_USER = 10001
_DISK = "ephemeral-storage"
_KILLED = 137  # by SIGKILL, for its memory; a disruption by the node is a DisruptionTarget condition


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A packaging to run in a cluster.

    Attributes:
        manifest: The packaging with its integration, the connections of its targets, and the location of the model.
        settings: The settings of packaging Jobs.
        namespace: The namespace of the Job.
        attempt: A random suffix of the Secret's name; see `secret_name`.
    """

    manifest: PackagingManifest
    settings: JobSettings
    namespace: str
    attempt: str = ""

    @property
    def engine(self) -> EngineOfJobs:
        """The engine of the settings, else oci if the build has no RUN step, else kaniko."""
        if self.settings.engine != "auto":
            return self.settings.engine
        integration = self.manifest.packaging_integration
        defaults = integration.defaults() if integration else {}
        arguments = {**defaults, **self.manifest.model_packaging.spec.arguments}
        adds_conda = arguments.get(_ADDS_CONDA)
        return "kaniko" if str(adds_conda).lower() in _FALSE else "oci"

    @property
    def packaging_id(self) -> str:
        """The ID of the packaging, which is also the name of the Job."""
        return self.manifest.model_packaging.id


def render_job(request: JobRequest) -> dict[str, Any]:
    """Return the Job that runs a packaging.

    Raises:
        RequestError: An ID is invalid, the integration is privileged, or the location of the model is unknown.
    """
    packaging_id = check_id(request.packaging_id, "packaging")
    settings = request.settings
    labels = {**settings.labels, **_labels(request)}
    annotations = {**settings.annotations, ARTIFACT: request.manifest.model_packaging.spec.artifact_name}
    template = {"metadata": {"labels": dict(labels), "annotations": dict(annotations)}, "spec": _pod_spec(request)}
    document = request.manifest.model_packaging.model_dump_json(by_alias=True, exclude_defaults=True)
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.name,
        "metadata": {
            "name": packaging_id,
            "namespace": request.namespace,
            "labels": labels,
            "annotations": {**annotations, DOCUMENT: document},
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": settings.backoff_limit,
            "activeDeadlineSeconds": settings.active_deadline_seconds,
            "ttlSecondsAfterFinished": settings.ttl_seconds_after_finished,
            "podFailurePolicy": {"rules": failure_rules()},
            "template": template,
        },
    }


def render_secret(request: JobRequest, *, job_uid: str = "") -> dict[str, Any]:
    """Return the Secret with the mp.json; with `job_uid`, the Job owns it, and both are deleted together."""
    packaging_id = check_id(request.packaging_id, "packaging")
    metadata: dict[str, Any] = {
        "name": _secret_name(request),
        "namespace": request.namespace,
        "labels": _labels(request),
    }
    if job_uid:
        owner = {"apiVersion": JOBS.api_version, "kind": JOBS.name, "name": packaging_id, "uid": job_uid}
        metadata["ownerReferences"] = [{**owner, "controller": True}]
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.name,
        "metadata": metadata,
        "type": "Opaque",
        "immutable": True,
        "stringData": {MANIFEST_FILE.name: json.dumps(plain(request.manifest))},
    }


def failure_rules() -> list[dict[str, Any]]:
    """Return the pod failure policy: disruptions do not count, and failures that a user must fix are final."""
    final = [code for code in exit_codes() if 0 < code < _FIRST_OTHER_CODE and code not in RETRIED_CODES]
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onPodConditions": [],  # required beside onExitCodes by the schemas of old versions
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": sorted([*final, _KILLED])},
        },
    ]


def plain(model: BaseModel) -> dict[str, Any]:
    """Return an entity as a JSON object with its secrets in plain text, as in `mp.json`."""

    def reveal(value: object) -> object:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, dict):
            return {key: reveal(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [reveal(item) for item in value]
        return value

    return {key: reveal(value) for key, value in model.model_dump(by_alias=True, exclude_none=True).items()}


def _labels(request: JobRequest) -> dict[str, str]:
    integration = request.manifest.model_packaging.spec.integration_name
    return {
        **COMMON_LABELS,
        ENTITY: "packaging",
        PACKAGING_ID: request.packaging_id,
        INTEGRATION_ID: check_id(integration, "integration"),
        ENGINE: request.engine,
    }


def _pod_spec(request: JobRequest) -> dict[str, Any]:
    settings, spec = request.settings, request.manifest.model_packaging.spec
    volumes: list[dict[str, Any]] = [
        {"name": "packaging", "secret": {"secretName": _secret_name(request), "defaultMode": 0o400}},
        {"name": "work", "emptyDir": {"sizeLimit": settings.work_size}},
    ]
    if _takes_model_from_claim(request):
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": settings.model_claim}})
    if settings.cache_claim:
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": settings.cache_claim}})
    optional = {
        "serviceAccountName": settings.service_account_name,
        "nodeSelector": {**settings.node_selector, **spec.node_selector},
        "tolerations": list(settings.tolerations),
        "priorityClassName": settings.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {
        "restartPolicy": "Never",
        # The pod connects to registries and stores, never to this cluster.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(request.engine).pod,
        **{name: value for name, value in optional.items() if value},
        "containers": [_container(request)],
        "volumes": volumes,
    }


def _container(request: JobRequest) -> dict[str, Any]:
    settings, integration = request.settings, request.manifest.packaging_integration
    if integration is None or integration.spec.privileged:
        raise RequestError(
            f"{request.manifest.subject}: its integration "
            + ("is missing" if integration is None else "is privileged, which is not supported"),
            hint="`packager integration get` lists the integrations; create one with `privileged: false`",
        )
    entrypoint = integration.spec.entrypoint
    image = request.manifest.model_packaging.spec.image or integration.spec.default_image or settings.image
    mounts: list[dict[str, Any]] = [
        {"name": "packaging", "mountPath": str(PACKAGING_FOLDER), "readOnly": True},
        {"name": "work", "mountPath": str(WORK_FOLDER)},
    ]
    if model := _model_in_claim(request):
        mounts.append({"name": "model", "mountPath": str(MODEL_FOLDER), "readOnly": True})
    if settings.cache_claim:
        mounts.append({"name": "cache", "mountPath": str(CACHE_FOLDER)})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "command": [entrypoint] if entrypoint else list(PROGRAM),
        "args": [*([str(model)] if model else []), str(MANIFEST_FILE), "--engine", request.engine],
        "workingDir": str(WORK_FOLDER),
        "env": environment(settings),
        "resources": container_resources(request.manifest.model_packaging.spec.resources, settings),
        "securityContext": security(request.engine).container,
        "terminationMessagePath": TERMINATION_LOG,
        # A killed program writes no termination log; then the last lines of its log are the best message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    if settings.env_from_secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in settings.env_from_secrets]
    return container


def container_resources(own: Resources | None, settings: JobSettings) -> dict[str, Any]:
    """Return the container's `resources`, with a request for the disk that the work volume may use.

    With a disk limit, Kubernetes sets the request to the limit; a request above it would be refused.
    """
    given = own.amounts() if own else {}
    chosen = {
        part: {settings.gpu_resource if name == "gpu" else name: value for name, value in given.get(part, {}).items()}
        for part in ("requests", "limits")
    }
    if not any(chosen.values()):
        chosen = settings.resources.model_dump()
    if _DISK not in chosen["limits"]:
        chosen["requests"] = {_DISK: settings.work_size, **chosen["requests"]}
    return {part: values for part, values in chosen.items() if values}


def environment(settings: JobSettings) -> list[dict[str, str]]:
    """Return the container's environment, in which all files are written to the work volume."""
    work = str(WORK_FOLDER)
    cache = CACHE_FOLDER if settings.cache_claim else WORK_FOLDER / "cache"
    own = {"HOME": work, "TMPDIR": work, "PACKAGER_WORK_DIR": work, "PACKAGER_CACHE_DIR": str(cache)}
    return [{"name": name, "value": value} for name, value in {**own, **settings.env}.items()]


def _secret_name(request: JobRequest) -> str:
    return secret_name(request.packaging_id, request.attempt)


def _takes_model_from_claim(request: JobRequest) -> bool:
    return bool(request.settings.model_claim) and request.manifest.model_holder is None


def _model_in_claim(request: JobRequest) -> PurePosixPath | None:
    if not _takes_model_from_claim(request):
        if request.manifest.model_holder is None:
            raise RequestError(
                f"{request.manifest.subject}: the location of the model archive is unknown",
                hint="name a connection in spec.outputConnection, or set outputConnection or modelClaim for all Jobs",
            )
        return None
    name = PurePosixPath(request.manifest.model_packaging.spec.artifact_name)
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise RequestError(
            f"{request.manifest.subject}: artifactName {str(name)!r} is not a relative path inside the model volume",
            hint="write the path of the archive in the volume, such as wine-1.0.zip",
        )
    return MODEL_FOLDER / name


@dataclass(frozen=True, kw_only=True)
class Security:
    """The two `securityContext`s of a pod with one container."""

    pod: dict[str, Any]
    container: dict[str, Any]


def security(engine: EngineOfJobs) -> Security:
    """Return the security contexts for an engine, with as few rights as it needs.

    kaniko complies with the Pod Security level "baseline", oci with "restricted"
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
        # fsGroup makes the Secret's file and the volumes readable for the user.
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
