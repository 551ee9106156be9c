"""The commands that package a model, or write what would be built: `run`, `build`, `render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from packager.cli.options import (
    BuildOptions,
    EngineOptions,
    InputOptions,
    LogOptions,
    Model,
    ResultOptions,
    RunArguments,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class RunCommand(TyperCommand):
    """Shows `[MODEL] RESOURCE_FILE` in the usage line; Typer has no optional argument before a required one."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401  (Typer keeps its type to itself)
        """Return the options and both arguments."""
        del ctx
        return [str(self.options_metavar), "[MODEL] RESOURCE_FILE"]


def make_run(application: str | None) -> Callable[..., None]:
    """Make the command `run`, for one packager or for the one that the packaging's integration names."""

    @with_options
    def run(
        ctx: typer.Context, args: RunArguments, options: BuildOptions, results: ResultOptions, logs: LogOptions
    ) -> None:
        """Build an image from MODEL and a packaging manifest (the entry point ODAHU calls).

        Without MODEL, the model is downloaded from the store that RESOURCE_FILE names.
        Writes result.json to the working directory. The last line on stdout is the image by digest.
        """
        from packager.cli.builds import open_build_session, package_model, read_manifest

        with open_build_session(ctx, logs, results, Path("result.json")) as (session, outputs):
            package_model(read_manifest(session, args, application), options, session, outputs)

    return run


@with_options
def build(
    ctx: typer.Context,
    model: Model,
    *,
    inputs: InputOptions,
    options: BuildOptions,
    output: Annotated[
        str | None,
        typer.Option(
            help="docker://HOST/PATH:TAG, oci:DIR, oci-archive:FILE or docker-archive:FILE. Default: the docker-push "
            "target, else an oci-archive in the working directory."
        ),
    ] = None,
    result_file: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    results: ResultOptions,
    logs: LogOptions,
) -> None:
    """Build an image from MODEL.

    The last line on stdout is the image by digest.
    """
    from packager.cli.builds import open_build_session, package_model, read_input

    with open_build_session(ctx, logs, results, result_file) as (session, outputs):
        package_model(read_input(session, model, inputs, output), options, session, outputs)


@with_options
def render(
    ctx: typer.Context,
    model: Model,
    context: Annotated[Path, typer.Option(help="Folder to write. It must not exist.")],
    inputs: InputOptions,
    options: EngineOptions,
    logs: LogOptions,
) -> None:
    """Write the build context and Dockerfile for MODEL without building.

    The last line on stdout is the path of the Dockerfile.
    """
    from packager.cli.builds import write_context
    from packager.cli.session import open_session

    with open_session(logs.log_format, verbose=logs.verbose, working=ctx) as session:
        write_context(session, model, inputs, options, context)
        typer.echo(context / "Dockerfile")
