"""What a supervisor holds of a packaging while it runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.errors import RequestError
from packager.models.packaging import ModelPackaging, PackagingIntegration, PackagingManifest, Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from packager.api import entities
    from packager.models.connection import Connection


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A packaging that is this owner's to run, as long as its lease is renewed.

    Attributes:
        id: The packaging's.
        generation: Counts up with each PUT, and is another one where a packaging was deleted and created anew.
        owner: Who claimed it.
        handle: What the executor gave when it was started before; None when it wasn't.
        entity: The packaging.
        integration: Its integration, as the packager reads it; None when it was deleted since.
        connections: All that it names and that exist, by id, with their secrets in clear.
    """

    id: str
    generation: int
    owner: str
    handle: str | None
    entity: entities.ModelPackaging
    integration: PackagingIntegration | None
    connections: Mapping[str, Connection]

    def manifest(self) -> PackagingManifest:
        """Return what `packager run` is given (`mp.json`).

        Raises:
            RequestError: What it names was deleted since; lists every problem.
        """
        spec = self.entity.spec
        names = {target.name: target.connection_name for target in spec.targets}
        problems = [] if self.integration else [f"the integration {spec.integration_name!r} was deleted"]
        wanted = [*names.values(), *([spec.output_connection] if spec.output_connection else [])]
        problems += [f"the connection {name!r} was deleted" for name in wanted if name not in self.connections]
        if problems:
            raise RequestError.from_problems(f"packaging {self.id!r}", problems, hint="create it anew and run it again")
        return PackagingManifest(
            model_packaging=ModelPackaging.model_validate(
                {"id": self.id, "spec": spec.model_dump(by_alias=True, exclude_none=True)}
            ),
            packaging_integration=self.integration,
            targets=tuple(Target(name=name, connection=self.connections[wanted]) for name, wanted in names.items()),
            model_holder=self.connections.get(spec.output_connection),
            training_zip_name=spec.artifact_name,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a packaging's run is, for whoever reads its log.

    Attributes:
        generation, owner, handle: As of a claim; no owner before it is claimed and after it has ended.
        state: The packaging's.
    """

    generation: int
    owner: str | None
    handle: str | None
    state: entities.State


@dataclass(frozen=True, kw_only=True)
class OrphanedRun:
    """A run whose packaging was deleted or edited: to be stopped, and what it left to be removed.

    Attributes:
        number: Of this note.
        packaging_id, generation, handle: Of the run; no handle when none was attached: it may have been starting.
        owner, lease_until: Who had claimed it till when; None when it had ended.
    """

    number: int
    packaging_id: str
    generation: int
    handle: str | None
    owner: str | None
    lease_until: datetime | None
