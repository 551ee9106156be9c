"""Resolves a packaging: finds its integration, its connections and the location of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from packager.errors import RequestError
from packager.models.integrations import APPLICATIONS
from packager.models.integrations.schema import integration as integration_document
from packager.models.manifest import ModelSection
from packager.models.packaging import PackagingIntegration, PackagingManifest, Target
from packager.request import make_request
from packager.sources.stores.location import held_model

if TYPE_CHECKING:
    from packager.kube.job_settings import JobSettings
    from packager.models.connection import Connection
    from packager.models.documents import Documents
    from packager.models.packaging import ModelPackaging


# The name and version of the model are unknown before its archive is read.
ANY_MODEL = ModelSection(name="model", version="1", work_dir=".", entrypoint="model")


class EntitySource(Protocol):
    """Looks up entities.

    Attributes:
        place: Where it looks, for messages.
    """

    place: str

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return an integration, or None."""

    def connection(self, connection_id: str) -> Connection | None:
        """Return a connection with its secrets, or None."""


class FileEntities:
    """The entities of files, and the built-in integrations where the files have none."""

    place = "the files"

    def __init__(self, documents: Documents, settings: JobSettings) -> None:
        """Take the documents that were read, and the settings with the image of Jobs."""
        self._documents = documents
        self._settings = settings

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return the integration of the files, else the built-in one."""
        application = APPLICATIONS.get(integration_id)
        own = integration_document(application, self._settings.image) if application else None
        found = self._documents.integrations.get(integration_id)
        return found or (PackagingIntegration.model_validate(own) if own else None)

    def connection(self, connection_id: str) -> Connection | None:
        """Return the connection of the files, or None."""
        return self._documents.connections.get(connection_id)


def resolve(packaging: ModelPackaging, store: EntitySource, settings: JobSettings) -> PackagingManifest:
    """Find everything that a packaging refers to, and validate it as the Job will.

    Raises:
        RequestError: Something is missing or invalid; lists every problem.
    """
    spec = packaging.spec
    subject = f"packaging {packaging.id!r}"
    integration = store.integration(spec.integration_name)
    if integration is None:
        raise RequestError(
            f"{subject}: its integration {spec.integration_name!r} is not in {store.place}",
            hint="`packager integration get` lists the cluster's, `packager integrations` prints the built-in ones",
        )
    names = {schema.name: schema.default for schema in integration.spec.integration_schema.targets if schema.default}
    names |= {target.name: target.connection_name for target in spec.targets}
    problems = [] if spec.artifact_name else ["spec.artifactName is empty: write the name of the model archive"]
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


def _target(name: str, connection_id: str, store: EntitySource, problems: list[str]) -> Target | None:
    connection = store.connection(connection_id) if connection_id else None
    if connection is None:
        problems.append(f"target {name!r} names the connection {connection_id!r}, which is not in {store.place}")
        return None
    return Target(name=name, connection=connection)
