"""The resources of a packaging's container: `spec.resources`, else the Job settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from packager.models.resources import QUANTITY

if TYPE_CHECKING:
    from packager.kube.job_settings import JobSettings
    from packager.models.resources import Resources

_DISK = "ephemeral-storage"
Quantity = Annotated[str, Field(pattern=QUANTITY)]


class ContainerResources(BaseModel):
    """Resources of a container as Kubernetes writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


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
