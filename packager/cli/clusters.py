"""Options and helpers of the commands that talk to a cluster."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from packager.errors import EntityExistsError, EntityNotFoundError, RequestError, ToolMissingError, UsageError
from packager.models.documents import Documents, read_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_Entity = TypeVar("_Entity")
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Default: KUBECONFIG, ~/.kube/config, else the pod's service account."),
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: from the context, or the pod's own.")
]
IgnoreNotFound = Annotated[
    bool, typer.Option("--ignore-not-found/--not-ignore-not-found", help="Succeed if there is nothing to delete.")
]
IgnoreExists = Annotated[bool, typer.Option("--ignore-if-exists", help="Succeed if it already exists.")]
OptionalFile = Annotated[Path | None, typer.Option("--file", "-f", help="File that holds the entity.")]


def command_group(about: str) -> typer.Typer:
    """Create a command group."""
    return typer.Typer(help=about, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def create_new(create: Callable[[], object], *, ignore_if_exists: bool) -> bool:
    """Create an entity; False where there was one already, which is said and left as it is.

    Raises:
        EntityExistsError: There was one, and that is not to be ignored.
    """
    try:
        create()
    except EntityExistsError as error:
        if not ignore_if_exists:
            raise
        log.info("%s; it is left as it is", error.message)
        return False
    return True


def delete_old(delete: Callable[[], None], what: str, *, ignore_not_found: bool) -> None:
    """Delete an entity, and say so.

    Raises:
        EntityNotFoundError: There is none, and that is not to be ignored.
    """
    try:
        delete()
    except EntityNotFoundError as error:
        if not ignore_not_found:
            raise
        log.info("%s", error.message)
        return
    typer.echo(f"{what} is deleted")


def connect_to(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    """Find the cluster that the options mean.

    Raises:
        ClusterUnreachableError: None is configured.
        ToolMissingError: This is the Job image, which has no Kubernetes client.
    """
    try:
        from packager.kube.client import Access, connect  # noqa: PLC0415  (75 MB that only these commands need)
    except ModuleNotFoundError as error:
        raise ToolMissingError(
            f"the Kubernetes client is not installed here ({error.name}); the image of Jobs has none",
            hint="run this command where the packager is installed with all its requirements",
        ) from error
    return connect(Access(kubeconfig=kubeconfig, context=context, namespace=namespace), os.environ)


def read_entities(files: list[Path], kind: str) -> Documents:
    """Read documents of which one at least is of the kind.

    Raises:
        RequestError: There is none.
    """
    documents = read_documents(files, keep_mask=True)
    if not shelf_of(documents, kind):
        raise RequestError(
            f"{', '.join(map(str, files))}: no {kind} in it", hint=f"give a file with a `kind: {kind}` document"
        )
    return documents


def shelf_of(documents: Documents, kind: str) -> dict[str, object]:
    """Return the documents of one kind, by id."""
    shelves: dict[str, Mapping[str, object]] = {
        "ModelPackaging": documents.packagings,
        "Connection": documents.connections,
        "PackagingIntegration": documents.integrations,
    }
    return dict(shelves[kind])


def id_or_file(entity_id: str | None, file: Path | None, kind: str) -> str:
    """Return the id that is given, or the id of the one entity in the file.

    Raises:
        UsageError: Both are given, or none, or the file holds several.
    """
    if (entity_id is None) == (file is None):
        raise UsageError("give either --id or --file")
    if entity_id is not None:
        return entity_id
    return next(iter(_only(shelf_of(read_entities([file] if file else [], kind), kind), file, kind)))


def single(entities: Mapping[str, _Entity], file: Path, kind: str, entity_id: str | None) -> _Entity:
    """Return the entity of that id, else the only one.

    Raises:
        UsageError: There are several.
    """
    if entity_id is not None and entity_id in entities:
        return entities[entity_id]
    return next(iter(_only(entities, file, kind).values()))


def _only(entities: Mapping[str, _Entity], file: Path | None, kind: str) -> Mapping[str, _Entity]:
    if len(entities) != 1:
        raise UsageError(f"{file}: holds {len(entities)} of kind {kind}", hint="select one with --id")
    return entities
