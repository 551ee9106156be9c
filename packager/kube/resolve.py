"""A packaging with everything that it names: its integration, its connections, and where its model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from packager.errors import RequestError
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from packager.models.manifest import ModelSection
from packager.models.packaging import PackagingIntegration, PackagingManifest, Target
from packager.request import make_request
from packager.sources.stores.location import held_model

if TYPE_CHECKING:
    from packager.kube.job_settings import JobSettings
    from packager.models.connection import Connection
    from packager.models.documents import Documents
    from packager.models.packaging import ModelPackaging


# The model's own names are not known before its archive is read.
ANY_MODEL = ModelSection(name="model", version="1", work_dir=".", entrypoint="model")


class EntityStore(Protocol):
    """Where entities are looked up."""

    place: str

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return an integration, or None."""

    def connection(self, connection_id: str) -> Connection | None:
        """Return a connection with its secrets, or None."""


class FileShelf:
    """The entities of a person's files, and the packagers' own integrations where the files have none."""

    place = "the files"

    def __init__(self, documents: Documents, settings: JobSettings) -> None:
        """Take what was read, and the settings that name the image of Jobs."""
        self._documents = documents
        self._settings = settings

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return the files' integration, else the documented one."""
        application = INTEGRATION_TYPES.get(integration_id)
        own = integration_document(application, self._settings.image) if application else None
        found = self._documents.integrations.get(integration_id)
        return found or (PackagingIntegration.model_validate(own) if own else None)

    def connection(self, connection_id: str) -> Connection | None:
        """Return the files' connection."""
        return self._documents.connections.get(connection_id)


def resolve(packaging: ModelPackaging, store: EntityStore, settings: JobSettings) -> PackagingManifest:
    """Find all that a packaging names, and check it as the Job will, so that nothing wrong ever starts.

    Raises:
        RequestError: Something is nowhere, or is wrong; lists every problem.
    """
    spec = packaging.spec
    subject = f"packaging {packaging.id!r}"
    integration = store.integration(spec.integration_name)
    if integration is None:
        raise RequestError(
            f"{subject}: its integration {spec.integration_name!r} is not in {store.place}",
            hint="`packager integration get` lists the cluster's, `packager integrations` prints our own",
        )
    names = {schema.name: schema.default for schema in integration.spec.integration_schema.targets if schema.default}
    names |= {target.name: target.connection_name for target in spec.targets}
    problems = [] if spec.artifact_name else ["spec.artifactName is empty: name the model's archive"]
    problems += [f"spec.{problem}" for problem in spec.resources.problems()] if spec.resources else []
    targets = [_target(name, connection, store, problems) for name, connection in names.items()]
    holder_name = spec.output_connection or ("" if settings.model_claim else settings.output_connection)
    holder = store.connection(holder_name) if holder_name else None
    if holder_name and holder is None:
        problems.append(f"the connection {holder_name!r}, where its model is stored, is not in {store.place}")
    if problems:
        lacks = [problem for problem in problems if store.place in problem]
        hint = "create connections with `packager connection create`" if lacks else ""
        raise RequestError.from_problems(subject, problems, hint=hint)
    manifest = PackagingManifest(
        model_packaging=packaging,
        packaging_integration=integration,
        targets=tuple(target for target in targets if target),
        model_holder=holder,
        training_zip_name=spec.artifact_name,
    )
    make_request(manifest, ANY_MODEL)
    if holder is not None:
        held_model(manifest)
    return manifest


def _target(name: str, connection_id: str, store: EntityStore, problems: list[str]) -> Target | None:
    connection = store.connection(connection_id) if connection_id else None
    if connection is None:
        problems.append(f"target {name!r} names the connection {connection_id!r}, which is not in {store.place}")
        return None
    return Target(name=name, connection=connection)
