"""`packager pack`: packagings in a Kubernetes cluster, with the ODAHU client's names and options."""

from __future__ import annotations

from typing import Annotated

import typer

from packager.cli.options import (
    ClusterOptions,
    EntityFile,
    IgnoreExists,
    IgnoreNotFound,
    Namespace,
    OutputFormat,
    PackagingOptions,
    TextFormat,
    TextOutput,
    Verbose,
    command_group,
    with_options,
)

pack = command_group("Manage packagings in a Kubernetes cluster. Each one runs as a Job.")
PackagingId = Annotated[str | None, typer.Option("--id", "--pack-id", help="ID of the packaging.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the log until the packaging ends, then print the results.")
]
Timeout = Annotated[
    int, typer.Option("--timeout", min=1, help="Maximum time to wait, in seconds. The packaging continues afterwards.")
]


@pack.command()
@with_options
def create(
    *,
    packaging: PackagingOptions,
    wait: Wait = True,
    timeout: Timeout = 3600,
    ignore_if_exists: IgnoreExists = False,
    cluster: ClusterOptions,
) -> None:
    """Start a packaging in the cluster.

    With --wait its log goes to standard error; the last line on standard output is the image by digest. It exits with
    the packaging's own exit code.
    """
    from packager.cli import packagings

    packagings.create(packaging, cluster, timeout if wait else None, ignore_if_exists=ignore_if_exists)


@pack.command()
@with_options
def edit(packaging: PackagingOptions, cluster: ClusterOptions, wait: Wait = True, timeout: Timeout = 3600) -> None:
    """Run a packaging again from its changed file. The previous results are discarded."""
    from packager.cli import packagings

    packagings.edit(packaging, cluster, timeout if wait else None)


@pack.command()
@with_options
def get(
    *,
    packaging_id: PackagingId = None,
    output: OutputFormat = "yaml",
    cluster: ClusterOptions,
) -> None:
    """Show packagings with their status and results."""
    from packager.cli import packagings

    packagings.get(packaging_id, cluster, output)


@pack.command()
@with_options
def logs(
    *,
    packaging_id: PackagingId = None,
    file: EntityFile = None,
    follow: Annotated[
        bool, typer.Option("--follow/--not-follow", help="Follow the log until the packaging ends.")
    ] = True,
    timeout: Timeout = 3600,
    cluster: ClusterOptions,
) -> None:
    """Print the log of a packaging, all attempts included."""
    from packager.cli import packagings

    packagings.print_log(packaging_id, file, cluster, timeout if follow else None)


@pack.command()
@with_options
def delete(
    *,
    packaging_id: PackagingId = None,
    file: EntityFile = None,
    ignore_not_found: IgnoreNotFound = False,
    cluster: ClusterOptions,
) -> None:
    """Delete a packaging with its pods and credentials. Its image stays in the registry."""
    from packager.cli import packagings

    packagings.delete(packaging_id, file, cluster, ignore_not_found=ignore_not_found)


@pack.command()
@with_options
def render(
    packaging: PackagingOptions,
    namespace: Namespace = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Print the credentials instead of *****.")
    ] = False,
    output: TextOutput = TextFormat.yaml,
    verbose: Verbose = False,
) -> None:
    """Print the Job and Secret that `create` would send, without contacting a cluster."""
    from packager.cli import packagings

    packagings.render(packaging, namespace, output, with_secrets=with_secrets, verbose=verbose)
