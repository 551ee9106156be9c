"""What a platform says about its packaging Jobs: the ConfigMap `packager-jobs`, or a file."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from packager import __version__
from packager.errors import UsageError
from packager.kube.resources import ContainerResources
from packager.models.documents import describe
from packager.models.resources import QUANTITY

EngineOfJobs = Literal["kaniko", "oci"]


class JobSettings(BaseModel):
    """How packaging Jobs are made; a packaging's own image, resources and node selector come first."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    engine: Literal["auto", EngineOfJobs] = Field(
        default="auto",
        description="kaniko runs as root with seven capabilities and can do everything; oci needs no rights at all and "
        "no RUN steps. auto takes oci where the packaging needs no RUN step.",
    )
    image: str = Field(
        default=f"packager:{__version__}", min_length=1, description="The image, where no integration names one."
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        default="", description="When nodes pull the image; empty: as Kubernetes does."
    )
    image_pull_secrets: tuple[str, ...] = Field(
        default=(), description="Names of the Secrets that nodes pull the image with."
    )
    service_account_name: str = Field(
        default="", description="The pods' service account; it needs no permission in the cluster."
    )
    resources: ContainerResources = Field(
        default=ContainerResources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "2", "memory": "4Gi"}),
        description="For packagings that name none.",
    )
    gpu_resource: str = Field(default="nvidia.com/gpu", description="What `gpu` in a packaging's resources means.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes for the pods.")
    tolerations: tuple[dict[str, Any], ...] = Field(default=(), description="Taints of nodes that the pods bear.")
    priority_class_name: str = Field(default="", description="The pods' priority class.")
    active_deadline_seconds: int = Field(default=7200, ge=1, description="After these seconds a packaging is ended.")
    backoff_limit: int = Field(
        default=2,
        ge=0,
        le=20,
        description="How often a packaging is tried again after a failure that another try may mend. A lost node or an "
        "eviction by Kubernetes doesn't count.",
    )
    ttl_seconds_after_finished: int = Field(
        default=604_800, ge=0, description="How long a finished packaging can still be seen; then its Job is removed."
    )
    work_size: str = Field(
        default="20Gi",
        pattern=QUANTITY,
        description="Space on the node for the model, twice, its environment and the layers.",
    )
    model_claim: str = Field(
        default="", description="A PersistentVolumeClaim with the model archives, in the place of outputConnection."
    )
    cache_claim: str = Field(
        default="", description="A PersistentVolumeClaim that keeps downloaded packages between Jobs (ReadWriteMany)."
    )
    output_connection: str = Field(
        default="", description="The connection that archives are fetched through where a packaging names none."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables: PACKAGER_... settings, HTTPS_PROXY and the like."
    )
    env_from_secrets: tuple[str, ...] = Field(
        default=(), description="Names of Secrets whose keys become environment variables."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Further labels of the Jobs and their pods.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Further annotations of the Jobs and their pods."
    )

    @classmethod
    def from_yaml(cls, text: str, where: str) -> JobSettings:
        """Read settings from YAML text; `where` names it in errors.

        Raises:
            UsageError: A key is unknown or a value is wrong; lists every problem.
        """
        try:
            return cls.model_validate(yaml.safe_load(text) or {})
        except yaml.YAMLError as error:
            raise UsageError(f"{where} is no YAML", hint="see values.schema.json of the chart, `jobs`") from error
        except ValidationError as error:
            problems = "\n".join(f"  - {line}" for line in describe(error))
            raise UsageError(
                f"{where} is wrong:\n{problems}", hint="see values.schema.json of the chart, `jobs`"
            ) from error
