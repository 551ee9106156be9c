"""What is generated of the manifests: the chart's integrations and values with their schema, Argo's and Tekton's steps.

`make manifests` writes them below manifests/; a test fails when they drift.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field

from packager import __version__
from packager.kube.chart_api import METADATA_ADDRESSES, ApiValues, Port, Section
from packager.kube.job_settings import JobSettings
from packager.kube.workflows import argo_template, tekton_tasks
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_NO_SUCH_SETTINGS = ("image", "serviceAccountName")  # the chart's own `image` and `serviceAccount` fill them
_WIDTH = 118


class IntegrationValues(Section):
    """One of the two packagers."""

    enabled: bool = Field(default=True, description="Install the integration.")
    image: str = Field(default="", description="The image of its Jobs; empty: `image` above.")
    targets: dict[str, str] = Field(
        default_factory=dict,
        description="Default connections by target, such as `docker-push: my-registry`, for packagings that name none.",
    )


class ServiceAccountValues(Section):
    """The service account of the packaging pods."""

    create: bool = Field(default=True, description="Create it.")
    name: str = Field(default="packager-job", min_length=1, description="Its name.")
    annotations: dict[str, str] = Field(
        default_factory=dict,
        description="For roles of clouds, such as `eks.amazonaws.com/role-arn: arn:aws:iam::...`.",
    )


class Subject(Section):
    """Who gets a role."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: str = Field(min_length=1)
    namespace: str = Field(default="", description="Of a service account; empty: the release's.")


class RbacValues(Section):
    """What people and programs may do."""

    create: bool = Field(default=True, description="Create the roles packager-user and packager-admin.")
    users: tuple[Subject, ...] = Field(
        default=(), description="Subjects that may package, such as `{kind: Group, name: data-scientists}`."
    )
    admins: tuple[Subject, ...] = Field(
        default=(), description="Subjects that may change connections and integrations besides."
    )


class NetworkPolicyValues(Section):
    """What packaging pods may speak to; nothing may speak to them."""

    enabled: bool = Field(default=True, description="Install it; it works where the cluster's network knows policies.")
    # Kubernetes takes an empty list for every port.
    ports: tuple[Port, ...] = Field(
        default=(443, 80, 5000), min_length=1, description="TCP ports of registries, channels, stores and proxies."
    )
    blocked: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] = Field(
        default=METADATA_ADDRESSES,
        description="Ranges that stay closed; by default the places where a node's cloud credentials can be had.",
    )


class ChartValues(Section):
    """The values of the chart `odahu-flow-packagers`."""

    image: str = Field(
        default=f"packager:{__version__}",
        min_length=1,
        description="The image of the packaging Jobs: what `make packager-image` makes, in a registry of yours.",
    )
    rest: IntegrationValues = Field(default=IntegrationValues(), description="docker-rest: images that serve HTTP.")
    cli: IntegrationValues = Field(default=IntegrationValues(), description="docker-cli: images that predict in batch.")
    jobs: JobSettings = Field(default=JobSettings(), description="How the packaging Jobs are made.")
    service_account: ServiceAccountValues = Field(
        default=ServiceAccountValues(),
        description="The service account of the packaging pods. It gets no permission in the cluster.",
    )
    rbac: RbacValues = Field(default=RbacValues(), description="Who may package.")
    network_policy: NetworkPolicyValues = Field(
        default=NetworkPolicyValues(), description="What the packaging pods may speak to; nothing may speak to them."
    )
    quota: dict[str, str] = Field(
        default_factory=dict,
        description="A ResourceQuota for the namespace, such as `{limits.memory: 64Gi, count/jobs.batch: '200'}`.",
    )
    api_url: str = Field(
        default="",
        pattern=r"^(https?://.+)?$",
        description="An ODAHU API, https://..., where the integrations are registered as well.",
    )
    api_token_secret: str = Field(
        default="", description="A Secret whose key `token` the API is spoken to with; empty: without a token."
    )
    api: ApiValues = Field(
        default=ApiValues(),
        description="The API service of the whole team, which makes these Jobs (docs/how-to/api-service.md).",
    )


def chart_files() -> dict[str, str]:
    """Return the generated files of the chart, by their path in it."""
    documents = {
        integration_type.name: integration_document(integration_type, "")
        for integration_type in INTEGRATION_TYPES.values()
    }
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
    """Return the steps for Argo and Tekton, by their path below manifests/."""
    settings = JobSettings(image=f"REGISTRY/packager:{__version__}")
    return {
        "argo/workflow-template.yaml": _documents([argo_template(settings)]),
        "tekton/task.yaml": _documents(tekton_tasks(settings)),
    }


def _documents(documents: list[dict[str, Any]]) -> str:
    header = "# Generated by `make manifests`. Put your registry in the place of REGISTRY.\n"
    return header + yaml.safe_dump_all(documents, sort_keys=False, width=_WIDTH)


def values_schema() -> dict[str, Any]:
    """Return the JSON schema of the chart's values, draft 2020-12."""
    schema = ChartValues.model_json_schema(by_alias=True)
    settings = schema["$defs"]["JobSettings"]["properties"]
    for name in _NO_SUCH_SETTINGS:
        del settings[name]
    # Helm hands every chart the values of its parents.
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
