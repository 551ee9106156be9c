"""What the commands for a cluster share, and what those for connections and integrations do."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import typer

from packager.cli.printing import checked_format, print_entities
from packager.cli.session import open_session
from packager.errors import EntityExistsError, EntityNotFoundError, RequestError, ToolMissingError, UsageError
from packager.kube.entities import connection_document, integration_document
from packager.kube.entity_store import CONNECTIONS, INTEGRATIONS, EntityStore
from packager.logs.progress import LogFormat
from packager.models.connection import Connection
from packager.models.documents import Documents, read_documents
from packager.models.packaging import PackagingIntegration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from packager.cli.options import ClusterOptions
    from packager.cli.printing import Column
    from packager.cli.session import Session
    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_Entity = TypeVar("_Entity")
_Stored = TypeVar("_Stored", Connection, PackagingIntegration)


def connect_to(options: ClusterOptions) -> Cluster:
    """Connect to the cluster that the options select.

    Raises:
        ClusterUnreachableError: No cluster is configured.
        ToolMissingError: The Kubernetes client is not installed, as in the Job image.
    """
    try:
        from packager.kube.cluster import Access, connect  # 75 MB of memory
    except ModuleNotFoundError as error:
        raise ToolMissingError(
            f"the Kubernetes client is not installed ({error.name}); the Job image does not contain it",
            hint="run this command where odahu-packager is installed with all its dependencies",
        ) from error
    access = Access(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
    return connect(access, os.environ)


def read_entities(files: list[Path], kind: str) -> Documents:
    """Read documents, at least one of them of this kind.

    Raises:
        RequestError: The files hold none of this kind, or a document is invalid.
    """
    documents = read_documents(files, keep_mask=True)
    if not entities_of(documents, kind):
        raise RequestError(
            f"{', '.join(map(str, files))}: no {kind} found", hint=f"give a file with a `kind: {kind}` document"
        )
    return documents


def entities_of(documents: Documents, kind: str) -> dict[str, object]:
    """Return the documents of one kind, by ID."""
    by_kind: dict[str, Mapping[str, object]] = {
        "ModelPackaging": documents.packagings,
        "Connection": documents.connections,
        "PackagingIntegration": documents.integrations,
    }
    return dict(by_kind[kind])


def id_or_file(entity_id: str | None, file: Path | None, kind: str) -> str:
    """Return the given ID, or the ID of the only entity in the file.

    Raises:
        UsageError: Not exactly one of both is given, or the file holds several entities.
    """
    if (entity_id is None) == (file is None):
        raise UsageError("give either --id or --file")
    if entity_id is not None:
        return entity_id
    return next(iter(_only(entities_of(read_entities([file] if file else [], kind), kind), file, kind)))


def single(entities: Mapping[str, _Entity], file: Path, kind: str, entity_id: str | None) -> _Entity:
    """Return the entity with this ID, else the only one.

    Raises:
        UsageError: The file holds several entities, and none with this ID.
    """
    if entity_id is not None and entity_id in entities:
        return entities[entity_id]
    return next(iter(_only(entities, file, kind).values()))


def _only(entities: Mapping[str, _Entity], file: Path | None, kind: str) -> Mapping[str, _Entity]:
    if len(entities) != 1:
        raise UsageError(f"{file}: holds {len(entities)} documents of kind {kind}", hint="select one with --id")
    return entities


def create_new(create: Callable[[], object], *, ignore_if_exists: bool) -> bool:
    """Create an entity; return False if it exists already and that is ignored.

    Raises:
        EntityExistsError: The entity exists, and that is not ignored.
    """
    try:
        create()
    except EntityExistsError as error:
        if not ignore_if_exists:
            raise
        log.info("%s; it is left unchanged", error.message)
        return False
    return True


def delete_old(delete: Callable[[], None], subject: str, *, ignore_not_found: bool) -> None:
    """Delete an entity and print that it is deleted.

    Raises:
        EntityNotFoundError: The entity does not exist, and that is not ignored.
    """
    try:
        delete()
    except EntityNotFoundError as error:
        if not ignore_not_found:
            raise
        log.info("%s", error.message)
        return
    typer.echo(f"{subject} is deleted")


@dataclass(frozen=True, kw_only=True)
class EntityCommands(Generic[_Stored]):
    """The commands for one kind of stored entity.

    Attributes:
        kind: The kind of its documents.
        store: Where the cluster keeps it.
        pick: Selects the entities of this kind among documents.
        document: Makes the document to print; takes `decrypted` for secrets in base64 instead of the mask.
        columns: The columns of the table format.
    """

    kind: str
    store: EntityStore[_Stored]
    pick: Callable[[Documents], Mapping[str, _Stored]]
    document: Callable[..., dict[str, Any]]
    columns: Sequence[Column]

    def create(
        self, file: Path, entity_id: str | None, options: ClusterOptions, output: str, *, ignore_if_exists: bool
    ) -> None:
        """Create the entity of a file and print it."""
        with open_session(LogFormat.auto, verbose=options.verbose) as session:
            checked_format(output)
            new = self._read(session, file, entity_id)
            cluster = connect_to(options)
            if create_new(lambda: self.store.create(cluster, new), ignore_if_exists=ignore_if_exists):
                print_entities([self.document(new)], output, self.columns)

    def edit(self, file: Path, entity_id: str | None, options: ClusterOptions, output: str) -> None:
        """Replace an entity by that of a file and print it."""
        with open_session(LogFormat.auto, verbose=options.verbose) as session:
            checked_format(output)
            new = self._read(session, file, entity_id)
            self.store.edit(connect_to(options), new)
            print_entities([self.document(new)], output, self.columns)

    def get(self, entity_id: str | None, options: ClusterOptions, output: str, *, decrypted: bool = False) -> None:
        """Print one entity or all of them; `decrypted` shows the secrets of one in base64."""
        with open_session(LogFormat.auto, verbose=options.verbose):
            checked_format(output)
            if decrypted and entity_id is None:
                raise UsageError("--decrypted needs --id")
            cluster = connect_to(options)
            found = self.store.list_all(cluster) if entity_id is None else [self.store.get(cluster, entity_id)]
            print_entities((self.document(each, decrypted=decrypted) for each in found), output, self.columns)

    def delete(
        self, entity_id: str | None, file: Path | None, options: ClusterOptions, *, ignore_not_found: bool
    ) -> None:
        """Delete an entity, named by its ID or a file."""
        with open_session(LogFormat.auto, verbose=options.verbose):
            wanted = id_or_file(entity_id, file, self.kind)
            cluster = connect_to(options)
            delete_old(
                lambda: self.store.delete(cluster, wanted),
                f"{self.store.entity} {wanted}",
                ignore_not_found=ignore_not_found,
            )

    def _read(self, session: Session, file: Path, entity_id: str | None) -> _Stored:
        found = single(self.pick(read_entities([file], self.kind)), file, self.kind, entity_id)
        if isinstance(found, Connection):
            session.redactor.add(found.spec.secrets())
        return found.model_copy(update={"id": entity_id or found.id})


CONNECTION_COMMANDS = EntityCommands(
    kind="Connection",
    store=CONNECTIONS,
    pick=lambda documents: documents.connections,
    document=connection_document,
    columns=(
        ("ID", 40, "id"),
        ("TYPE", 10, "spec.type"),
        ("URI", 40, "spec.uri"),
        ("DESCRIPTION", 10, "spec.description"),
    ),
)
INTEGRATION_COMMANDS = EntityCommands(
    kind="PackagingIntegration",
    store=INTEGRATIONS,
    pick=lambda documents: documents.integrations,
    document=lambda integration, **_options: integration_document(integration),
    columns=(("ID", 40, "id"), ("ENTRY POINT", 24, "spec.entrypoint"), ("IMAGE", 40, "spec.defaultImage")),
)


def register(files: list[Path], api_url: str, token_file: Path | None, *, verbose: bool) -> None:
    """Register the integrations of the files with an ODAHU API."""
    from packager.kube.registration import register_integrations

    with open_session(LogFormat.auto, verbose=verbose) as session:
        token = ""
        if token_file is not None:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"cannot read {token_file}: {error}", hint="name a file in --token-file") from error
            session.redactor.add([token])
        found = read_entities(files, "PackagingIntegration").integrations.values()
        register_integrations([integration_document(each) for each in found], api_url, token)
