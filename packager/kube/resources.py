"""What a packaging's container may use: its own `spec.resources`, else the settings of Jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.kube.job_settings import JobSettings

# kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity, without what no amount needs: a sign.
QUANTITY = r"^\d+(\.\d+)?(n|u|m|k|[MGTPE]|[KMGTPE]i|[eE][+-]?\d+)?$"
_NAME = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_PARTS = ("requests", "limits")
_DISK = "ephemeral-storage"
Quantity = Annotated[str, Field(pattern=QUANTITY)]


class Resources(BaseModel):
    """Quantities of a container, as Kubernetes writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


def resource_problems(own: Mapping[str, Any]) -> list[str]:
    """Tell what is wrong with a packaging's `spec.resources`; an API server would tell one thing at a time."""
    problems = []
    for part in _PARTS:
        given = own.get(part)
        if given is None:
            continue
        if not isinstance(given, dict):
            problems.append(f"spec.resources.{part}: write names with quantities, such as memory: 4Gi")
            continue
        problems += [
            f"spec.resources.{part}.{name}: {value!r} is no quantity; write for example 2, 500m or 4Gi"
            for name, value in given.items()
            if value is not None and not _is_quantity(value)
        ]
        problems += [
            f"spec.resources.{part}: {name!r} is no name of a resource"
            for name in given
            if not _NAME.fullmatch(str(name))
        ]
    return problems


def container_resources(own: Mapping[str, Any], settings: JobSettings) -> dict[str, Any]:
    """Return the container's `resources`, with a request for the room that the work volume may take.

    Where a limit for that is given, the request is left to Kubernetes, which makes it the same: it may not be above.
    """
    chosen: dict[str, dict[str, str]] = {
        part: {
            settings.gpu_resource if name == "gpu" else name: str(value)
            for name, value in given.items()
            if value is not None
        }
        for part in _PARTS
        if isinstance(given := own.get(part), dict)
    }
    if not any(chosen.values()):
        chosen = settings.resources.model_dump()
    if _DISK not in chosen.get("limits", {}):
        chosen["requests"] = {_DISK: settings.work_size, **chosen.get("requests", {})}
    return {part: values for part, values in chosen.items() if values}


def _is_quantity(value: object) -> bool:
    is_plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return is_plain and re.fullmatch(QUANTITY, str(value)) is not None
