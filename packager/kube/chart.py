"""Generates manifests: the chart's integrations, values and schema, and the steps for Argo and Tekton.

`make manifests` writes them to manifests/; a test fails if they differ.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from packager import __version__
from packager.kube.job_settings import ContainerResources, JobSettings
from packager.kube.workflows import argo_template, tekton_tasks
from packager.models.integrations import APPLICATIONS
from packager.models.integrations.schema import integration
from packager.models.resources import QUANTITY

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_NO_SUCH_SETTINGS = ("image", "serviceAccountName")  # set by the chart's own `image` and `serviceAccount`
_WIDTH = 118


METADATA_ADDRESSES = ("169.254.169.254/32", "fd00:ec2::254/128")
Port = Annotated[int, Field(ge=1, le=65535)]
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_FILLED = (
    "DATABASE_URL",
    "DATA_DIR",
    "EXECUTOR",
    "KEY",
    "KEY_FILE",
    "LISTEN",
    "NAMESPACE",
    "PACKAGER_IMAGE",
    "TOKENS_FILE",
)
_OIDC = ("OIDC_AUDIENCE", "OIDC_ISSUER", "OIDC_WRITE_CLAIM")
# Probes call a pod by its address.
_NO_SETTINGS = [f"PACKAGER_API_{name}" for name in (*_FILLED, *_OIDC, "ALLOWED_HOSTS")]


class Section(BaseModel):
    """A section of the chart's values: camelCase keys, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class KeyOfSecret(Section):
    """A key of a Secret in the release's namespace."""

    name: str = Field(default="", description="Name of the Secret. Empty: none.")
    key: str = Field(min_length=1, description="Key in the Secret.")


class OidcValues(Section):
    """The identity provider."""

    issuer: str = Field(default="", pattern=r"^(https://.+)?$", description="Issuer URL, https://...")
    audience: str = Field(default="", description="Required audience (`aud`) of tokens.")
    write_claim: str = Field(
        default="",
        description="CLAIM=VALUE that is required for changes, such as groups=packagers. Empty: everyone may change.",
    )


class PersistenceValues(Section):
    """The volume of the embedded database and of logs."""

    size: str = Field(default="10Gi", pattern=QUANTITY, description="Size of the volume.")
    storage_class: str = Field(default="", description="Storage class. Empty: the cluster's default.")
    existing_claim: str = Field(default="", description="Existing PersistentVolumeClaim to use instead.")


class ServiceValues(Section):
    """The Service of the pods."""

    port: Port = Field(default=80, description="Port of the Service; the pods listen on 8080.")
    annotations: dict[str, str] = Field(
        default={"prometheus.io/scrape": "true", "prometheus.io/path": "/metrics", "prometheus.io/port": "8080"},
        description="Annotations of the Service. Default: the usual ones for Prometheus.",
    )


class IngressValues(Section):
    """The Ingress."""

    enabled: bool = Field(default=False, description="Install it.")
    class_name: str = Field(default="", description="Ingress class. Empty: the cluster's default.")
    host: str = Field(default="", pattern=rf"^({_LABEL}(\.{_LABEL})*)?$", description="Host name.")
    tls_secret: str = Field(
        default="",
        description="Secret of type kubernetes.io/tls for that host. Empty: plain HTTP.",
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the Ingress.")


class ApiNetworkValues(Section):
    """The NetworkPolicy of the service's pods."""

    enabled: bool = Field(default=True, description="Install it.")
    ports: tuple[Port, ...] = Field(
        default=(443, 6443, 5432),
        min_length=1,
        description="TCP ports that the service connects to: the API server, the identity provider, PostgreSQL.",
    )
    blocked: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] = Field(
        default=METADATA_ADDRESSES, description="Blocked ranges."
    )


class ApiValues(Section):
    """The API service."""

    enabled: bool = Field(default=False, description="Install it.")
    image: str = Field(
        default=f"packager-api:{__version__}",
        min_length=1,
        description="Image of the service: built by `make api-image` and pushed to your registry. The image of the "
        "Jobs does not work: it contains neither a database nor a Kubernetes client.",
    )
    replicas: int = Field(default=1, ge=1, description="Number of replicas. More than one needs PostgreSQL.")
    database_url_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="url"),
        description="Secret with the URL of PostgreSQL, postgresql://USER:PASSWORD@HOST/NAME. Without it, the service "
        "uses SQLite on a volume.",
    )
    key_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="key"),
        description="Secret with the key that encrypts connections in the database; required with PostgreSQL. For "
        "SQLite, the service creates a key on its volume.",
    )
    tokens_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="tokens"),
        description="Secret with the token file of `packager api token --file`. This, `oidc`, or both are required.",
    )
    oidc: OidcValues = Field(default=OidcValues(), description="Tokens of an identity provider.")
    service: ServiceValues = Field(default=ServiceValues(), description="The Service packager-api.")
    ingress: IngressValues = Field(default=IngressValues(), description="Access from outside the cluster.")
    persistence: PersistenceValues = Field(
        default=PersistenceValues(),
        description="ReadWriteOnce volume for SQLite and the logs. With PostgreSQL each replica keeps its logs in an "
        "emptyDir of that size instead.",
    )
    resources: ContainerResources = Field(
        default=ContainerResources(requests={"cpu": "200m", "memory": "256Mi"}, limits={"cpu": "2", "memory": "1Gi"}),
        description="Of each replica.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": {"pattern": r"^[A-Za-z_]\w*$", "not": {"enum": [*_NO_SETTINGS]}}},
        description="Additional environment variables, such as PACKAGER_API_OUTPUT_CONNECTION, PACKAGER_CA_FILE or "
        "HTTPS_PROXY. Settings with a value of their own are refused, as is PACKAGER_API_ALLOWED_HOSTS: probes use a "
        "pod's address.",
    )
    network_policy: ApiNetworkValues = Field(
        default=ApiNetworkValues(), description="Egress of the service; ingress to its port is allowed for everyone."
    )


class IntegrationValues(Section):
    """A built-in integration."""

    enabled: bool = Field(default=True, description="Install the integration.")
    image: str = Field(default="", description="Image of its Jobs. Empty: `image` above.")
    targets: dict[str, str] = Field(
        default_factory=dict,
        description="Default connections by target, such as `docker-push: my-registry`, for packagings without one.",
    )


class ServiceAccountValues(Section):
    """The service account of the packaging pods."""

    create: bool = Field(default=True, description="Create the service account.")
    name: str = Field(default="packager-job", min_length=1, description="Name of the service account.")
    annotations: dict[str, str] = Field(
        default_factory=dict,
        description="Annotations, such as cloud roles: `eks.amazonaws.com/role-arn: arn:aws:iam::...`.",
    )


class Subject(Section):
    """The subject of a role binding."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: str = Field(min_length=1)
    namespace: str = Field(
        default="", description="Namespace of a service account. Empty: the namespace of the release."
    )


class RbacValues(Section):
    """Roles for users and programs."""

    create: bool = Field(default=True, description="Create the roles packager-user and packager-admin.")
    users: tuple[Subject, ...] = Field(
        default=(),
        description="Subjects with the role packager-user, which may run packagings, such as "
        "`{kind: Group, name: data-scientists}`.",
    )
    admins: tuple[Subject, ...] = Field(
        default=(),
        description="Subjects with the role packager-admin, which may also change connections and integrations.",
    )


class NetworkPolicyValues(Section):
    """Egress of the packaging pods; ingress is denied."""

    enabled: bool = Field(
        default=True, description="Install the NetworkPolicy. It needs a network plugin that supports policies."
    )
    # Kubernetes takes an empty list for every port.
    ports: tuple[Port, ...] = Field(
        default=(443, 80, 5000), min_length=1, description="TCP ports of registries, channels, stores and proxies."
    )
    blocked: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] = Field(
        default=METADATA_ADDRESSES,
        description="Blocked ranges. Default: the metadata services with a node's cloud credentials.",
    )


class ChartValues(Section):
    """The values of the chart `odahu-flow-packagers`."""

    image: str = Field(
        default=f"packager:{__version__}",
        min_length=1,
        description="Image of the packaging Jobs: built by `make packager-image` and pushed to your registry.",
    )
    rest: IntegrationValues = Field(default=IntegrationValues(), description="docker-rest: images that serve HTTP.")
    cli: IntegrationValues = Field(default=IntegrationValues(), description="docker-cli: images that predict in batch.")
    jobs: JobSettings = Field(default=JobSettings(), description="Settings of the packaging Jobs.")
    service_account: ServiceAccountValues = Field(
        default=ServiceAccountValues(),
        description="Service account of the packaging pods. It has no permissions in the cluster.",
    )
    rbac: RbacValues = Field(default=RbacValues(), description="Roles for running packagings.")
    network_policy: NetworkPolicyValues = Field(
        default=NetworkPolicyValues(), description="Egress of the packaging pods; ingress is denied."
    )
    quota: dict[str, str] = Field(
        default_factory=dict,
        description="ResourceQuota of the namespace, such as `{limits.memory: 64Gi, count/jobs.batch: '200'}`.",
    )
    api_url: str = Field(
        default="",
        pattern=r"^(https?://.+)?$",
        description="URL of an ODAHU API, https://..., at which the integrations are registered, too.",
    )
    api_token_secret: str = Field(
        default="", description="Secret with the API token in its key `token`. Empty: no token."
    )
    api: ApiValues = Field(
        default=ApiValues(),
        description="API service for a team, which creates these Jobs (docs/how-to/api-service.md).",
    )


def chart_files() -> dict[str, str]:
    """Return the generated files of the chart, by path in the chart."""
    documents = {application.name: integration(application, "") for application in APPLICATIONS.values()}
    for document in documents.values():
        del document["spec"]["defaultImage"]  # a value of the chart
    files = {
        f"integrations/{name}.yaml": yaml.safe_dump(document, sort_keys=False, width=_WIDTH)
        for name, document in documents.items()
    }
    return {
        **files,
        "values.yaml": values_text(),
        "values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
    }


def workflow_files() -> dict[str, str]:
    """Return the steps for Argo and Tekton, by path in manifests/."""
    settings = JobSettings(image=f"REGISTRY/packager:{__version__}")
    return {
        "argo/workflow-template.yaml": _documents([argo_template(settings)]),
        "tekton/task.yaml": _documents(tekton_tasks(settings)),
    }


def _documents(documents: list[dict[str, Any]]) -> str:
    header = "# Generated by `make manifests`. Replace REGISTRY with your registry.\n"
    return header + yaml.safe_dump_all(documents, sort_keys=False, width=_WIDTH)


def values_schema() -> dict[str, Any]:
    """Return the JSON schema of the chart's values, draft 2020-12."""
    schema = ChartValues.model_json_schema(by_alias=True)
    settings = schema["$defs"]["JobSettings"]["properties"]
    for name in _NO_SUCH_SETTINGS:
        del settings[name]
    # Helm passes the global values of a parent chart to every chart.
    schema["properties"]["global"] = {"type": "object"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def values_text() -> str:
    """Return values.yaml: every value with its meaning and default."""
    header = "# Generated by `make manifests` from packager/kube/chart.py; `helm show values` prints it.\n"
    return header + "\n".join(_value_lines(ChartValues(), "")) + "\n"


def _value_lines(model: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        if isinstance(model, JobSettings) and key in _NO_SUCH_SETTINGS:
            continue
        lines += _comment(field, indent)
        if isinstance(value, BaseModel) and type(value).model_config.get("alias_generator"):
            lines += [f"{indent}{key}:", *_value_lines(value, f"{indent}  ")]
        else:
            plain = value.model_dump() if isinstance(value, BaseModel) else value
            text = json.dumps(list(plain) if isinstance(plain, tuple) else plain)
            lines.append(f"{indent}{key}: {text}")
        if not indent:
            lines.append("")
    return lines if indent else lines[:-1]


def _comment(field: FieldInfo, indent: str) -> list[str]:
    words, lines = (field.description or "").split(), [""]
    for word in words:
        if len(indent) + len(lines[-1]) + len(word) > _WIDTH - 4:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"{indent}#{line}" for line in lines]
