"""The Job of a packaging and the Secret that it reads: pure functions from a request to the bodies."""

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
from packager.kube.resources import container_resources

if TYPE_CHECKING:
    from packager.kube.job_settings import EngineOfJobs, JobSettings
    from packager.models.packaging import PackagingManifest

PACKAGING_FOLDER = PurePosixPath("/kaniko/packaging")
MANIFEST_FILE = PACKAGING_FOLDER / "mp.json"
# Below /kaniko, because that is where Kaniko leaves everything alone and no image has files.
WORK_FOLDER = PurePosixPath("/kaniko/work")
MODEL_FOLDER = PurePosixPath("/kaniko/model")
CACHE_FOLDER = PurePosixPath("/kaniko/cache-packager")
PROGRAM = ("packager", "run")
TERMINATION_LOG = "/dev/termination-log"
# What another try may mend: a store, a channel, an index or a registry that is down, and a pod that someone deleted.
RETRIED_CODES = frozenset({14, 16, 22, 23, 30, 32, 130, 143})
_FIRST_OF_OTHERS = 60  # from here on: codes of what talks to a cluster, of the service, and of signals
_OWN_CONDA = "dockerfileAddCondaInstallation"
_NO = ("false", "no", "off", "0", "f", "n")  # as pydantic reads a boolean
# What Kaniko needs to unpack a base image over its root and to run steps in it, measured; nothing more.
KANIKO_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL")
OCI_USER = 10001
_KILLED = 137  # by SIGKILL: for its memory; the node's own reasons come as a DisruptionTarget


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A packaging that is to run in a cluster.

    Attributes:
        manifest: The packaging with its integration, the connections of its targets, and the model's place.
        settings: What the platform says about its Jobs.
        namespace: Where it runs.
        attempt: A random word in the Secret's name; see `secret_name`.
    """

    manifest: PackagingManifest
    settings: JobSettings
    namespace: str
    attempt: str = ""

    @property
    def engine(self) -> EngineOfJobs:
        """The engine: the one that is set, else oci where no command has to run during the build."""
        if self.settings.engine != "auto":
            return self.settings.engine
        integration = self.manifest.packaging_integration
        defaults = integration.defaults() if integration else {}
        arguments = {**defaults, **self.manifest.model_packaging.spec.arguments}
        brings_conda = arguments.get(_OWN_CONDA)
        return "kaniko" if str(brings_conda).lower() in _NO else "oci"

    @property
    def packaging_id(self) -> str:
        """The packaging's id, which is the Job's name as well."""
        return self.manifest.model_packaging.id


def render_job(request: JobRequest) -> dict[str, Any]:
    """Return the Job that runs a packaging.

    Raises:
        RequestError: An id is none, the integration wants privileges, or nothing says where the model is.
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
    """Return the Secret with the mp.json, owned by the Job when its uid is known, so that both go together."""
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
    """Return the pod failure policy: Kubernetes' own doings don't count, what a user has to mend isn't tried again."""
    final = [code for code in exit_codes() if 0 < code < _FIRST_OF_OTHERS and code not in RETRIED_CODES]
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onPodConditions": [],  # the schemas of old versions want it beside the exit codes, too
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": sorted([*final, _KILLED])},
        },
    ]


def plain(model: BaseModel) -> dict[str, Any]:
    """Return an entity as a JSON object with its secrets in clear, as `mp.json` has them."""

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
        # The pod speaks to registries and stores, never to this cluster.
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
            + ("is missing" if integration is None else "wants to run privileged, which no packaging here does"),
            hint="`packager integration get` lists what there is; create it with `privileged: false`",
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
        # After a kill nobody has written it; the log's last lines say the most then.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    if settings.env_from_secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in settings.env_from_secrets]
    return container


def environment(settings: JobSettings) -> list[dict[str, str]]:
    """Return the container's environment: everything is written into the work volume."""
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
                f"{request.manifest.subject}: nothing says where the model archive is stored",
                hint="name a connection in spec.outputConnection, or set outputConnection or modelClaim for all Jobs",
            )
        return None
    name = PurePosixPath(request.manifest.model_packaging.spec.artifact_name)
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise RequestError(
            f"{request.manifest.subject}: the artifactName {str(name)!r} is no file below the volume of models",
            hint="write the archive's path in it, such as wine-1.0.zip",
        )
    return MODEL_FOLDER / name


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
