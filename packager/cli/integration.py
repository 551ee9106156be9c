"""`packager integration`: packaging integrations in a cluster, stored as labelled ConfigMaps."""

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
from packager.cli.session import open_session
from packager.errors import UsageError
from packager.kube.entities import integration_document
from packager.kube.entity_store import INTEGRATIONS
from packager.kube.registration import register as register_integrations
from packager.logs.console import LogFormat
from packager.models.packaging import PackagingIntegration

integration = command_group("Manage packaging integrations in a cluster.")
IntegrationFile = Annotated[
    Path, typer.Option("--file", "-f", help="File with one `kind: PackagingIntegration` document.")
]
NewId = Annotated[str | None, typer.Option("--id", "--pi-id", help="Override the integration ID of the file.")]
GivenId = Annotated[str | None, typer.Option("--id", "--pi-id", help="ID of the integration.")]
_COLUMNS = (("ID", 40, "id"), ("ENTRY POINT", 24, "spec.entrypoint"), ("IMAGE", 40, "spec.defaultImage"))


def _read(file: Path, integration_id: str | None) -> PackagingIntegration:
    found = single(
        read_entities([file], "PackagingIntegration").integrations, file, "PackagingIntegration", integration_id
    )
    return found.model_copy(update={"id": integration_id or found.id})


@integration.command()
def create(
    file: IntegrationFile,
    integration_id: NewId = None,
    ignore_if_exists: IgnoreExists = False,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Create an integration from a document. `packager integrations` prints those of docker-rest and docker-cli."""
    with open_session(LogFormat.auto, verbose=verbose):
        checked_format(output)
        new = _read(file, integration_id)
        cluster = connect_to(kubeconfig, context, namespace)
        if create_new(lambda: INTEGRATIONS.create(cluster, new), ignore_if_exists=ignore_if_exists):
            print_entities([integration_document(new)], output, _COLUMNS)


@integration.command()
def edit(
    file: IntegrationFile,
    integration_id: NewId = None,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Replace an integration."""
    with open_session(LogFormat.auto, verbose=verbose):
        checked_format(output)
        new = _read(file, integration_id)
        INTEGRATIONS.edit(connect_to(kubeconfig, context, namespace), new)
        print_entities([integration_document(new)], output, _COLUMNS)


@integration.command()
def get(
    integration_id: GivenId = None,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Show integrations."""
    with open_session(LogFormat.auto, verbose=verbose):
        checked_format(output)
        cluster = connect_to(kubeconfig, context, namespace)
        found = (
            INTEGRATIONS.list_all(cluster) if integration_id is None else [INTEGRATIONS.get(cluster, integration_id)]
        )
        print_entities((integration_document(each) for each in found), output, _COLUMNS)


@integration.command()
def delete(
    integration_id: GivenId = None,
    file: OptionalFile = None,
    ignore_not_found: IgnoreNotFound = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Delete an integration. Running packagings keep their copy."""
    with open_session(LogFormat.auto, verbose=verbose):
        wanted = id_or_file(integration_id, file, "PackagingIntegration")
        cluster = connect_to(kubeconfig, context, namespace)
        delete_old(
            lambda: INTEGRATIONS.delete(cluster, wanted), f"integration {wanted}", ignore_not_found=ignore_not_found
        )


@integration.command()
def register(
    files: Annotated[
        list[Path], typer.Option("--file", "-f", help="File or folder with `kind: PackagingIntegration` documents.")
    ],
    api_url: Annotated[str, typer.Option("--api-url", help="URL of the ODAHU API: https://HOST.")],
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the API token.")] = None,
    verbose: Verbose = False,
) -> None:
    """Register integrations with an ODAHU API, so that the platform starts the packager."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        token = ""
        if token_file is not None:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{token_file}: can't be read: {error}", hint="name a file in --token-file") from error
            session.redactor.add([token])
        found = read_entities(files, "PackagingIntegration").integrations.values()
        register_integrations([integration_document(each) for each in found], api_url, token)
