"""The commands that package a model, or write what would be built."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from packager.cli.options import (
    Arguments,
    Check,
    EngineOption,
    Files,
    Format,
    Model,
    Packager,
    PackagingId,
    PlatformOption,
    Refresh,
    ResultsDir,
    RunWords,
    TerminationLog,
    Verbose,
)
from packager.cli.session import open_session
from packager.engines.selection import EngineName
from packager.errors import UsageError
from packager.logs.console import LogFormat
from packager.models.documents import Documents, read_documents, read_packaging_manifest
from packager.pipeline import Job, package, render_context
from packager.request import Overrides, find_integration_type, parse_argument
from packager.result import Outputs, default_termination_log
from packager.sources.stores.location import held_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.cli.session import Session
    from packager.pipeline import Tools

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How the image is to be made, where the command line says so."""

    engine: EngineName
    platform: str | None = None
    refresh: bool = False
    check: bool | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what the options say as the packager's arguments."""
        return {} if self.check is None else {"check": "always" if self.check else "never"}

    def tools(self, session: Session) -> Tools:
        """Set up what the pipeline works with."""
        return session.tools(self.engine, platform=self.platform, refresh=self.refresh, check=self.check)


def _package(job: Job, choices: Choices, session: Session, outputs: Outputs) -> None:
    overrides = replace(job.overrides, arguments={**(job.overrides.arguments or {}), **choices.arguments()})
    result = package(replace(job, overrides=overrides), choices.tools(session))
    result = replace(result, model_check=session.redactor.clean(result.model_check))
    outputs.write(result)
    for name, value in result.to_dict().items():
        log.info("%s: %s", name, value)
    typer.echo(result.image_digest)


def _run(
    words: list[str],
    integration_type: str | None,
    outputs: Outputs,
    *,
    choices: Choices,
    log_format: LogFormat,
    verbose: bool,
) -> None:
    with open_session(log_format, verbose=verbose, outputs=outputs) as session:
        *before, resource_file = words
        _check_words(before, resource_file)
        manifest = read_packaging_manifest(Path(resource_file))
        session.redactor.add(manifest.secrets())
        if before:
            model = session.locate(before[0], [manifest.model_holder] if manifest.model_holder else [])
        else:
            model = held_model(manifest)
            session.redactor.add(model.secrets())
        job = Job(model=model, manifest=manifest, overrides=Overrides(integration_type=integration_type))
        _package(job, choices, session, outputs)


def _check_words(before: list[str], resource_file: str) -> None:
    if len(before) > 1:
        raise UsageError(
            f"{len(before) + 1} arguments are given", hint="give MODEL and RESOURCE_FILE, or RESOURCE_FILE alone"
        )
    if not before and (Path(resource_file).is_dir() or resource_file.endswith(".zip") or "://" in resource_file):
        raise UsageError(
            "the only argument is a model, but RESOURCE_FILE is missing",
            hint="give MODEL and RESOURCE_FILE; with RESOURCE_FILE alone, the model is taken from its modelHolder",
        )


class RunCommand(TyperCommand):
    """Shows `[MODEL] RESOURCE_FILE` in the usage line; Typer has no optional argument before a required one."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401  (Typer keeps its type to itself)
        """Return the options and both arguments."""
        del ctx
        return [str(self.options_metavar), "[MODEL] RESOURCE_FILE"]


def make_run(integration_type: str | None) -> Callable[..., None]:
    """Make the command `run`, for one packager or for the one that the packaging's integration names."""

    def run(
        words: RunWords,
        engine: EngineOption = EngineName.auto,
        platform: PlatformOption = None,
        refresh_environment: Refresh = False,
        check: Check = None,
        results_dir: ResultsDir = None,
        termination_log: TerminationLog = None,
        log_format: Format = LogFormat.auto,
        verbose: Verbose = False,
    ) -> None:
        """Build an image from MODEL and a packaging manifest (the entry point ODAHU calls).

        Without MODEL, the model is downloaded from the store that RESOURCE_FILE names.
        Writes result.json to the working directory. The last line on stdout is the image by digest.
        """
        outputs = Outputs(
            result_file=Path("result.json"),
            results_dir=results_dir,
            termination_log=termination_log or default_termination_log(),
        )
        choices = Choices(engine=engine, platform=platform, refresh=refresh_environment, check=check)
        _run(words, integration_type, outputs, choices=choices, log_format=log_format, verbose=verbose)

    return run


def build(
    model: Model,
    packager: Packager = None,
    files: Files = None,
    packaging_id: PackagingId = None,
    arguments: Arguments = None,
    engine: EngineOption = EngineName.auto,
    platform: PlatformOption = None,
    refresh_environment: Refresh = False,
    check: Check = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="docker://HOST/PATH:TAG, oci:DIR, oci-archive:FILE or docker-archive:FILE. Default: the docker-push "
            "target, else an oci-archive in the working directory."
        ),
    ] = None,
    result_file: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    results_dir: ResultsDir = None,
    termination_log: TerminationLog = None,
    log_format: Format = LogFormat.auto,
    verbose: Verbose = False,
) -> None:
    """Build an image from MODEL.

    The last line on stdout is the image by digest.
    """
    outputs = Outputs(
        result_file=result_file, results_dir=results_dir, termination_log=termination_log or default_termination_log()
    )
    with open_session(log_format, verbose=verbose, outputs=outputs) as session:
        job = _make_job(session, model, packager, files, packaging_id, arguments, output)
        choices = Choices(engine=engine, platform=platform, refresh=refresh_environment, check=check)
        _package(job, choices, session, outputs)


def render(
    model: Model,
    context: Annotated[Path, typer.Option(help="Folder to write. It must not exist.")],
    packager: Packager = None,
    files: Files = None,
    packaging_id: PackagingId = None,
    arguments: Arguments = None,
    engine: EngineOption = EngineName.auto,
    platform: PlatformOption = None,
    log_format: Format = LogFormat.auto,
    verbose: Verbose = False,
) -> None:
    """Write the build context and Dockerfile for MODEL without building.

    The last line on stdout is the path of the Dockerfile.
    """
    with open_session(log_format, verbose=verbose) as session:
        if context.exists():
            raise UsageError(f"{context} exists already", hint="name a new folder for --context")
        job = _make_job(session, model, packager, files, packaging_id, arguments, output=None)
        render_context(job, session.tools(engine, platform=platform), context)
        typer.echo(context / "Dockerfile")


def _make_job(
    session: Session,
    model: str,
    packager: str | None,
    files: list[Path] | None,
    packaging_id: str | None,
    arguments: list[str] | None,
    output: str | None,
) -> Job:
    documents = read_documents(files) if files else Documents()
    for connection in documents.connections.values():
        session.redactor.add(connection.spec.secrets())
    located = session.locate(model, documents.connections.values())
    manifest = documents.pick(packaging_id)
    if packager is None and not manifest.model_packaging.spec.integration_name:
        packager = "docker-rest"
    integration_type = find_integration_type(manifest, packager)
    values = dict(parse_argument(integration_type, text) for text in arguments or ())
    if output is None and not manifest.targets:
        name = located.resolve().name if isinstance(located, Path) else located.name
        output = f"oci-archive:{name.removesuffix('.zip')}.oci.tar"
    overrides = Overrides(integration_type=integration_type.name, arguments=values, output=output)
    return Job(model=located, manifest=manifest, overrides=overrides)
