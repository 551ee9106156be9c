"""The values that the repositories return: stored entities, runs and leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from packager.errors import RequestError
from packager.models.packaging import PackagingIntegration, PackagingManifest, Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from packager.api import entities
    from packager.models.connection import Connection

_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class StoredEntity(Generic[_Value]):
    """An entity with the times of its creation and of its last change."""

    value: _Value
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to run a packaging, for as long as its owner renews it.

    Attributes:
        id: ID of the packaging.
        generation: Increased by each PUT; also differs between a deleted packaging and a new one of the same ID.
        owner: Name of the service that holds the lease.
        handle: The executor's name of the run; None before the run was started.
        entity: The packaging.
        integration: Its integration; None if it was deleted since.
        connections: The existing connections that it names, by ID, with their secrets in clear.
    """

    id: str
    generation: int
    owner: str
    handle: str | None
    entity: entities.StoredPackaging
    integration: PackagingIntegration | None
    connections: Mapping[str, Connection]

    def manifest(self) -> PackagingManifest:
        """Return the manifest for `packager run` (`mp.json`).

        Raises:
            RequestError: A named entity was deleted since; lists every problem.
        """
        spec = self.entity.spec
        names = {target.name: target.connection_name for target in spec.targets}
        problems = [] if self.integration else [f"the integration {spec.integration_name!r} was deleted"]
        wanted = [*names.values(), *([spec.output_connection] if spec.output_connection else [])]
        problems += [f"the connection {name!r} was deleted" for name in wanted if name not in self.connections]
        if problems:
            hint = "create it again and edit the packaging to run it"
            raise RequestError.from_problems(f"packaging {self.id!r}", problems, hint=hint)
        return PackagingManifest(
            model_packaging=self.entity,
            packaging_integration=self.integration,
            targets=tuple(Target(name=name, connection=self.connections[wanted]) for name, wanted in names.items()),
            model_holder=self.connections.get(spec.output_connection),
            training_zip_name=spec.artifact_name,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run of a packaging, for readers of its log.

    Attributes:
        generation, owner, handle: As in the lease; the owner is None before the packaging is claimed and after its end.
        state: The packaging's.
    """

    generation: int
    owner: str | None
    handle: str | None
    state: entities.State


@dataclass(frozen=True, kw_only=True)
class OrphanedRun:
    """A run whose packaging was deleted or edited, to be stopped and cleaned up.

    Attributes:
        number: Key of this record.
        packaging_id, generation, handle: Of the run. Without a handle, the run may have been about to start.
        owner, lease_until: Its last lease; None if the run had ended.
    """

    number: int
    packaging_id: str
    generation: int
    handle: str | None
    owner: str | None
    lease_until: datetime | None
