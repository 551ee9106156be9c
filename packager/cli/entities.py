"""`packager connection` and `packager integration`: what packagings in a cluster refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from packager.cli.options import (
    ClusterOptions,
    EntityFile,
    IgnoreExists,
    IgnoreNotFound,
    OutputFormat,
    Verbose,
    command_group,
    with_options,
)

connection = command_group("Manage connections to registries and stores in a cluster.")
integration = command_group("Manage packaging integrations in a cluster.")

ConnectionFile = Annotated[Path, typer.Option("--file", "-f", help="File with one `kind: Connection` document.")]
ConnectionId = Annotated[str | None, typer.Option("--id", "--conn-id", help="ID of the connection.")]
NewConnectionId = Annotated[
    str | None, typer.Option("--id", "--conn-id", help="Override the connection ID of the file.")
]
IntegrationFile = Annotated[
    Path, typer.Option("--file", "-f", help="File with one `kind: PackagingIntegration` document.")
]
IntegrationId = Annotated[str | None, typer.Option("--id", "--pi-id", help="ID of the integration.")]
NewIntegrationId = Annotated[
    str | None, typer.Option("--id", "--pi-id", help="Override the integration ID of the file.")
]


@connection.command("create")
@with_options
def create_connection(
    *,
    file: ConnectionFile,
    connection_id: NewConnectionId = None,
    ignore_if_exists: IgnoreExists = False,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Create a connection from a document. Secrets in it are base64."""
    from packager.cli.clusters import CONNECTION_COMMANDS

    CONNECTION_COMMANDS.create(file, connection_id, cluster, output, ignore_if_exists=ignore_if_exists)


@connection.command("edit")
@with_options
def edit_connection(
    *,
    file: ConnectionFile,
    connection_id: NewConnectionId = None,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Replace a connection. A secret written as ***** keeps its current value."""
    from packager.cli.clusters import CONNECTION_COMMANDS

    CONNECTION_COMMANDS.edit(file, connection_id, cluster, output)


@connection.command("get")
@with_options
def get_connections(
    *,
    connection_id: ConnectionId = None,
    decrypted: Annotated[
        bool, typer.Option("--decrypted", "-d", help="With --id: show the secrets in base64 instead of *****.")
    ] = False,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Show connections."""
    from packager.cli.clusters import CONNECTION_COMMANDS

    CONNECTION_COMMANDS.get(connection_id, cluster, output, decrypted=decrypted)


@connection.command("delete")
@with_options
def delete_connection(
    *,
    connection_id: ConnectionId = None,
    file: EntityFile = None,
    ignore_not_found: IgnoreNotFound = False,
    cluster: ClusterOptions,
) -> None:
    """Delete a connection. Running packagings keep their copy."""
    from packager.cli.clusters import CONNECTION_COMMANDS

    CONNECTION_COMMANDS.delete(connection_id, file, cluster, ignore_not_found=ignore_not_found)


@integration.command("create")
@with_options
def create_integration(
    *,
    file: IntegrationFile,
    integration_id: NewIntegrationId = None,
    ignore_if_exists: IgnoreExists = False,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Create an integration from a document. `packager integrations` prints those of docker-rest and docker-cli."""
    from packager.cli.clusters import INTEGRATION_COMMANDS

    INTEGRATION_COMMANDS.create(file, integration_id, cluster, output, ignore_if_exists=ignore_if_exists)


@integration.command("edit")
@with_options
def edit_integration(
    *,
    file: IntegrationFile,
    integration_id: NewIntegrationId = None,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Replace an integration."""
    from packager.cli.clusters import INTEGRATION_COMMANDS

    INTEGRATION_COMMANDS.edit(file, integration_id, cluster, output)


@integration.command("get")
@with_options
def get_integrations(
    *,
    integration_id: IntegrationId = None,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Show integrations."""
    from packager.cli.clusters import INTEGRATION_COMMANDS

    INTEGRATION_COMMANDS.get(integration_id, cluster, output)


@integration.command("delete")
@with_options
def delete_integration(
    *,
    integration_id: IntegrationId = None,
    file: EntityFile = None,
    ignore_not_found: IgnoreNotFound = False,
    cluster: ClusterOptions,
) -> None:
    """Delete an integration. Running packagings keep their copy."""
    from packager.cli.clusters import INTEGRATION_COMMANDS

    INTEGRATION_COMMANDS.delete(integration_id, file, cluster, ignore_not_found=ignore_not_found)


@integration.command("register")
def register_integrations(
    files: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="File or folder with `kind: PackagingIntegration` documents. Repeatable.",
        ),
    ],
    api_url: Annotated[str, typer.Option("--api-url", help="URL of the ODAHU API: https://HOST.")],
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the API token.")] = None,
    verbose: Verbose = False,
) -> None:
    """Register integrations with an ODAHU API, so that the platform starts the packager."""
    from packager.cli.clusters import register

    register(files, api_url, token_file, verbose=verbose)
