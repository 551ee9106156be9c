"""`packager connection`: registries and stores for packagings in a cluster, stored as labelled Secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from packager.cli.clusters import (
    Context,
    IgnoreExists,
    IgnoreNotFound,
    Kubeconfig,
    Namespace,
    OptionalFile,
    command_group,
    connect_to,
    create_new,
    delete_old,
    id_or_file,
    read_entities,
    single,
)
from packager.cli.options import Verbose
from packager.cli.output import OutputFormat, checked_format, print_entities
from packager.cli.session import Session, open_session
from packager.errors import UsageError
from packager.kube.entities import connection_document
from packager.kube.entity_store import CONNECTIONS
from packager.logs.console import LogFormat
from packager.models.connection import Connection

connection = command_group("Manage connections to registries and stores in a cluster.")
ConnectionFile = Annotated[Path, typer.Option("--file", "-f", help="File with one `kind: Connection` document.")]
NewId = Annotated[str | None, typer.Option("--id", "--conn-id", help="Override the connection ID of the file.")]
GivenId = Annotated[str | None, typer.Option("--id", "--conn-id", help="ID of the connection.")]
_COLUMNS = (
    ("ID", 40, "id"),
    ("TYPE", 10, "spec.type"),
    ("URI", 40, "spec.uri"),
    ("DESCRIPTION", 10, "spec.description"),
)


def _read(session: Session, file: Path, connection_id: str | None) -> Connection:
    found = single(read_entities([file], "Connection").connections, file, "Connection", connection_id)
    session.redactor.add(found.spec.secrets())
    return found.model_copy(update={"id": connection_id or found.id})


@connection.command()
def create(
    file: ConnectionFile,
    connection_id: NewId = None,
    ignore_if_exists: IgnoreExists = False,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Create a connection from a document. Secrets in it are base64."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        checked_format(output)
        new = _read(session, file, connection_id)
        cluster = connect_to(kubeconfig, context, namespace)
        if create_new(lambda: CONNECTIONS.create(cluster, new), ignore_if_exists=ignore_if_exists):
            print_entities([connection_document(new)], output, _COLUMNS)


@connection.command()
def edit(
    file: ConnectionFile,
    connection_id: NewId = None,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Replace a connection. A secret written as ***** keeps its current value."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        checked_format(output)
        new = _read(session, file, connection_id)
        CONNECTIONS.edit(connect_to(kubeconfig, context, namespace), new)
        print_entities([connection_document(new)], output, _COLUMNS)


@connection.command()
def get(
    connection_id: GivenId = None,
    decrypted: Annotated[
        bool, typer.Option("--decrypted", "-d", help="With --id: show the secrets in base64 instead of *****.")
    ] = False,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Show connections."""
    with open_session(LogFormat.auto, verbose=verbose):
        checked_format(output)
        if decrypted and connection_id is None:
            raise UsageError("--decrypted needs --id")
        cluster = connect_to(kubeconfig, context, namespace)
        found = CONNECTIONS.list_all(cluster) if connection_id is None else [CONNECTIONS.get(cluster, connection_id)]
        print_entities((connection_document(each, decrypted=decrypted) for each in found), output, _COLUMNS)


@connection.command()
def delete(
    connection_id: GivenId = None,
    file: OptionalFile = None,
    ignore_not_found: IgnoreNotFound = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Delete a connection. Running packagings keep their copy."""
    with open_session(LogFormat.auto, verbose=verbose):
        wanted = id_or_file(connection_id, file, "Connection")
        cluster = connect_to(kubeconfig, context, namespace)
        delete_old(
            lambda: CONNECTIONS.delete(cluster, wanted), f"connection {wanted}", ignore_not_found=ignore_not_found
        )
