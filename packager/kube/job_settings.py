"""The settings of packaging Jobs: the ConfigMap `packager-jobs`, or a file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from packager import __version__
from packager.errors import UsageError
from packager.models.documents import describe
from packager.models.resources import QUANTITY

EngineOfJobs = Literal["kaniko", "oci"]
Quantity = Annotated[str, Field(pattern=QUANTITY)]


class ContainerResources(BaseModel):
    """Resources of a container as Kubernetes writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class JobSettings(BaseModel):
    """Settings of packaging Jobs; a packaging's own image, resources and node selector override them."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    engine: Literal["auto", EngineOfJobs] = Field(
        default="auto",
        description="Build engine. kaniko runs as root with seven capabilities and supports every build; oci needs no "
        "privileges, but supports no RUN steps. auto: oci unless the packaging needs a RUN step.",
    )
    image: str = Field(
        default=f"packager:{__version__}", min_length=1, description="Image for integrations without one."
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        default="", description="Image pull policy. Empty: the default of Kubernetes."
    )
    image_pull_secrets: tuple[str, ...] = Field(default=(), description="Secrets for pulling the image.")
    service_account_name: str = Field(
        default="", description="Service account of the pods. It needs no permissions in the cluster."
    )
    resources: ContainerResources = Field(
        default=ContainerResources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "2", "memory": "4Gi"}),
        description="Resources of packagings without resources of their own.",
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu", description="Resource name for `gpu` in a packaging's resources."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Node selector of the pods.")
    tolerations: tuple[dict[str, Any], ...] = Field(default=(), description="Tolerations of the pods.")
    priority_class_name: str = Field(default="", description="Priority class of the pods.")
    active_deadline_seconds: int = Field(default=7200, ge=1, description="Time limit of a packaging, in seconds.")
    backoff_limit: int = Field(
        default=2,
        ge=0,
        le=20,
        description="Maximum number of retries after a retryable failure. A lost node or an eviction by Kubernetes "
        "does not count.",
    )
    ttl_seconds_after_finished: int = Field(
        default=604_800, ge=0, description="How long to keep the Job of a finished packaging, in seconds."
    )
    work_size: str = Field(
        default="20Gi",
        pattern=QUANTITY,
        description="Disk space on the node: twice the model, its environment and the layers.",
    )
    model_claim: str = Field(
        default="", description="PersistentVolumeClaim with the model archives, instead of outputConnection."
    )
    cache_claim: str = Field(
        default="", description="PersistentVolumeClaim (ReadWriteMany) that keeps downloaded packages between Jobs."
    )
    output_connection: str = Field(
        default="", description="Connection to the store of model archives, for packagings without one."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables, such as PACKAGER_... settings and HTTPS_PROXY."
    )
    env_from_secrets: tuple[str, ...] = Field(
        default=(), description="Secrets whose keys become environment variables."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Additional labels of the Jobs and their pods.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Additional annotations of the Jobs and their pods."
    )

    @classmethod
    def from_yaml(cls, text: str, where: str) -> JobSettings:
        """Read settings from YAML text; `where` names it in errors.

        Raises:
            UsageError: A key is unknown or a value is invalid; lists every problem.
        """
        try:
            return cls.model_validate(yaml.safe_load(text) or {})
        except yaml.YAMLError as error:
            raise UsageError(
                f"{where} is not valid YAML", hint="see values.schema.json of the chart, `jobs`"
            ) from error
        except ValidationError as error:
            problems = "\n".join(f"  - {line}" for line in describe(error))
            raise UsageError(
                f"{where} is invalid:\n{problems}", hint="see values.schema.json of the chart, `jobs`"
            ) from error
