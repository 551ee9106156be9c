"""What `run`, `build` and `render` do: read the packaging, then package the model or write its build context."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from packager.cli.session import open_session
from packager.errors import UsageError
from packager.models.documents import Documents, read_documents, read_packaging_manifest
from packager.pipeline import PackagingInput, package, render_context
from packager.request import Overrides, find_integration_type, parse_argument
from packager.result import Outputs, default_termination_log
from packager.sources.stores.location import held_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.cli.options import BuildOptions, EngineOptions, InputOptions, LogOptions, ResultOptions
    from packager.cli.session import Session

log = logging.getLogger(__name__)


@contextmanager
def open_build_session(
    ctx: typer.Context, logs: LogOptions, results: ResultOptions, result_file: Path | None
) -> Iterator[tuple[Session, Outputs]]:
    """Open a session whose error is also written to the termination log."""
    outputs = Outputs(
        result_file=result_file,
        results_dir=results.results_dir,
        termination_log=results.termination_log or default_termination_log(),
    )
    with open_session(logs.log_format, verbose=logs.verbose, outputs=outputs, working=ctx) as session:
        yield session, outputs


def package_model(packaging: PackagingInput, options: BuildOptions, session: Session, outputs: Outputs) -> None:
    """Package a model, write the results and print the image by digest."""
    if options.check is not None:
        arguments = {**(packaging.overrides.arguments or {}), "check": "always" if options.check else "never"}
        packaging = replace(packaging, overrides=replace(packaging.overrides, arguments=arguments))
    context = session.pipeline_context(
        options.engine, platform=options.platform, refresh=options.refresh_environment, check=options.check
    )
    result = package(packaging, context)
    result = replace(result, model_check=session.redactor.clean(result.model_check))
    outputs.write(result)
    for name, value in result.to_dict().items():
        log.info("%s: %s", name, value)
    typer.echo(result.image_digest)


def write_context(session: Session, model: str, inputs: InputOptions, options: EngineOptions, context: Path) -> None:
    """Write the build context of a model into a new folder.

    Raises:
        UsageError: The folder exists.
    """
    if context.exists():
        raise UsageError(f"{context} exists already", hint="choose a new folder for --context")
    packaging = read_input(session, model, inputs, output=None)
    render_context(packaging, session.pipeline_context(options.engine, platform=options.platform), context)


def read_manifest(session: Session, args: list[str], application: str | None) -> PackagingInput:
    """Read the packaging manifest, and find its model: the one given, else the one that the manifest names.

    Raises:
        UsageError: The arguments are not `[MODEL] RESOURCE_FILE`.
        RequestError: The manifest is invalid.
    """
    *models, resource_file = args
    _check_args(models, resource_file)
    manifest = read_packaging_manifest(Path(resource_file))
    session.redactor.add(manifest.secrets())
    if models:
        model = session.locate(models[0], [manifest.model_holder] if manifest.model_holder else [])
    else:
        model = held_model(manifest)
        session.redactor.add(model.secrets())
    return PackagingInput(model=model, manifest=manifest, overrides=Overrides(integration_type=application))


def _check_args(models: list[str], resource_file: str) -> None:
    if len(models) > 1:
        raise UsageError(
            f"{len(models) + 1} arguments are given", hint="give MODEL and RESOURCE_FILE, or RESOURCE_FILE alone"
        )
    if not models and (Path(resource_file).is_dir() or resource_file.endswith(".zip") or "://" in resource_file):
        raise UsageError(
            "the only argument is a model, but RESOURCE_FILE is missing",
            hint="give MODEL and RESOURCE_FILE; with RESOURCE_FILE alone, the model is taken from its modelHolder",
        )


def read_input(session: Session, model: str, inputs: InputOptions, output: str | None) -> PackagingInput:
    """Read the packaging from the files and arguments of the command line.

    Raises:
        UsageError: MODEL is not a supported location.
        RequestError: A document or an argument is invalid.
    """
    documents = read_documents(inputs.files) if inputs.files else Documents()
    for connection in documents.connections.values():
        session.redactor.add(connection.spec.secrets())
    located = session.locate(model, documents.connections.values())
    manifest = documents.pick(inputs.packaging_id)
    packager = inputs.packager
    if packager is None and not manifest.model_packaging.spec.integration_name:
        packager = "docker-rest"
    application = find_integration_type(manifest, packager)
    values = dict(parse_argument(application, text) for text in inputs.arguments or ())
    if output is None and not manifest.targets:
        name = located.resolve().name if isinstance(located, Path) else located.name
        output = f"oci-archive:{name.removesuffix('.zip')}.oci.tar"
    overrides = Overrides(integration_type=application.name, arguments=values, output=output)
    return PackagingInput(model=located, manifest=manifest, overrides=overrides)
