"""The commands. The only place that prints results, catches errors and exits."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from packager import __version__
from packager.applications import APPLICATIONS
from packager.applications.schema import integration
from packager.artifact import ArtifactLimits, open_artifact
from packager.console import LogFormat, set_up_logging
from packager.errors import PackagerError, UsageError, exit_codes
from packager.models.documents import Documents, read_documents, read_packaging_manifest
from packager.pipeline import Job, Tools, package, render_context, workspace
from packager.process import run_command, stop_signals
from packager.redaction import Redactor
from packager.request import Overrides, parse_argument, pick_application
from packager.result import Outputs
from packager.settings import PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from packager.artifact import Artifact
    from packager.engines import Engine
    from packager.process import Runner
    from packager.progress import Reporter

log = logging.getLogger(__name__)

TERMINATION_LOG = Path("/dev/termination-log")
DEFAULT_JOB_IMAGE = f"packager:{__version__}"
_EXIT_CODES = "Exit codes:\n\n" + "\n\n".join(f"{code}  {meaning}" for code, meaning in exit_codes().items())

app = typer.Typer(
    help="Turn a trained model archive (ODAHU GPPI zip) into a container image, without a container daemon.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class EngineName(str, Enum):
    """The engines that can be asked for."""

    buildah = "buildah"
    kaniko = "kaniko"


# Where each engine is; it's imported when it's asked for, and not before: none needs what another does.
_ENGINES = {
    EngineName.buildah: ("packager.engines.buildah", "BuildahEngine"),
    EngineName.kaniko: ("packager.engines.kaniko", "KanikoEngine"),
}


class TextFormat(str, Enum):
    """How structured text is printed."""

    yaml = "yaml"
    json = "json"


Model = Annotated[Path, typer.Argument(help="The model archive: a GPPI zip, or the same tree unpacked.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every command and its output.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="auto: bars at a terminal, plain lines elsewhere.")]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="What builds the image.")]
ResultsDir = Annotated[
    Path | None, typer.Option("--results-dir", help="A folder for one file a result (Tekton, Argo).")
]
TerminationLog = Annotated[
    Path | None,
    typer.Option("--termination-log", help=f"Default: {TERMINATION_LOG} where it exists. Also written on failure."),
]
Packager = Annotated[
    str | None,
    typer.Option("--packager", help=f"{' or '.join(APPLICATIONS)}; default: the packaging's, else docker-rest."),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", help="A file or folder of ModelPackaging, PackagingIntegration and Connection documents."
    ),
]
PackagingId = Annotated[str | None, typer.Option("--id", help="Which of the packagings in the files.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--argument", "-a", metavar="NAME=VALUE", help="An argument of the packager.")
]


@dataclass(frozen=True, kw_only=True)
class _Session:
    settings: Settings
    redactor: Redactor
    reporter: Reporter

    def tools(self, name: EngineName) -> Tools:
        run = partial(run_command, grace=self.settings.stop_grace)
        engine = _engine(name)(self.settings, run, os.environ)
        return Tools(settings=self.settings, engine=engine, run=run, reporter=self.reporter, environ=os.environ)


def _engine(name: EngineName) -> Callable[[Settings, Runner, Mapping[str, str]], Engine]:
    module, kind = _ENGINES[name]
    engine: Callable[[Settings, Runner, Mapping[str, str]], Engine] = getattr(import_module(module), kind)
    return engine


@contextmanager
def _session(log_format: LogFormat, *, verbose: bool, outputs: Outputs | None = None) -> Iterator[_Session]:
    """Set up logging and signals around a command; turn its errors into messages and exit codes."""
    redactor = Redactor()
    reporter = set_up_logging(log_format, redactor, verbose=verbose)
    try:
        with stop_signals():
            settings = Settings.from_env(os.environ)
            redactor.add(settings.secrets())
            if outputs is not None:
                outputs.prepare()
            yield _Session(settings=settings, redactor=redactor, reporter=reporter)
    except PackagerError as error:
        _fail(error, redactor, outputs)
    except Exception as error:  # noqa: BLE001  (the last resort: a bug still ends in one message and exit code 1)
        log.debug("%s", traceback.format_exc())
        what = f"unexpected {type(error).__name__}: {error}"
        _fail(PackagerError(what, hint="this is a bug; run it with --verbose and report it"), redactor, outputs)


def _fail(error: PackagerError, redactor: Redactor, outputs: Outputs | None) -> None:
    clean = error.rewritten(redactor.clean)
    log.error("%s", clean.message)
    if clean.hint:
        log.error("hint: %s", clean.hint)
    if outputs is not None:
        outputs.write_error(clean)
    raise typer.Exit(error.exit_code)


def _package(job: Job, session: _Session, engine: EngineName, outputs: Outputs) -> None:
    result = package(job, session.tools(engine))
    outputs.write(result)
    for name, value in result.to_dict().items():
        log.info("%s: %s", name, value)
    typer.echo(result.image_digest)


def _run(
    model: Path,
    resource_file: Path,
    application: str | None,
    outputs: Outputs,
    *,
    engine: EngineName,
    log_format: LogFormat,
    verbose: bool,
) -> None:
    with _session(log_format, verbose=verbose, outputs=outputs) as session:
        manifest = read_packaging_manifest(resource_file)
        session.redactor.add(manifest.secrets())
        job = Job(model=model, manifest=manifest, overrides=Overrides(application=application))
        _package(job, session, engine, outputs)


def _default_termination_log(given: Path | None) -> Path | None:
    return given or (TERMINATION_LOG if TERMINATION_LOG.exists() else None)


ResourceFile = Annotated[Path, typer.Argument(help="The packaging manifest of the platform (mp.json).")]


def _run_command(application: str | None) -> Any:  # noqa: ANN401  (a Typer command)
    def run(
        model: Model,
        resource_file: ResourceFile,
        engine: EngineOption = EngineName.buildah,
        results_dir: ResultsDir = None,
        termination_log: TerminationLog = None,
        log_format: Format = LogFormat.auto,
        verbose: Verbose = False,
    ) -> None:
        """Package MODEL as RESOURCE_FILE says; the platform's way to start us.

        Writes result.json into the working directory. The last line on standard output is the image by digest.
        """
        outputs = Outputs(
            result_file=Path("result.json"),
            results_dir=results_dir,
            termination_log=_default_termination_log(termination_log),
        )
        _run(model, resource_file, application, outputs, engine=engine, log_format=log_format, verbose=verbose)

    return run


app.command("run", epilog=_EXIT_CODES)(_run_command(None))


@app.command(epilog=_EXIT_CODES)
def build(
    model: Model,
    packager: Packager = None,
    files: Files = None,
    packaging_id: PackagingId = None,
    arguments: Arguments = None,
    engine: EngineOption = EngineName.buildah,
    output: Annotated[
        str | None,
        typer.Option(
            help="docker://HOST/PATH:TAG, oci:DIR or oci-archive:FILE. Default: the docker-push target, "
            "else an oci-archive in the working directory."
        ),
    ] = None,
    result_file: Annotated[Path | None, typer.Option(help="A JSON file for the results.")] = None,
    results_dir: ResultsDir = None,
    termination_log: TerminationLog = None,
    log_format: Format = LogFormat.auto,
    verbose: Verbose = False,
) -> None:
    """Package MODEL from the command line, with or without YAML documents.

    The last line on standard output is the image by digest.
    """
    outputs = Outputs(
        result_file=result_file, results_dir=results_dir, termination_log=_default_termination_log(termination_log)
    )
    with _session(log_format, verbose=verbose, outputs=outputs) as session:
        job = _make_job(session, model, packager, files, packaging_id, arguments, output)
        _package(job, session, engine, outputs)


@app.command(epilog=_EXIT_CODES)
def render(
    model: Model,
    context: Annotated[Path, typer.Option(help="The folder to write, which must not exist yet.")],
    packager: Packager = None,
    files: Files = None,
    packaging_id: PackagingId = None,
    arguments: Arguments = None,
    engine: EngineOption = EngineName.buildah,
    log_format: Format = LogFormat.auto,
    verbose: Verbose = False,
) -> None:
    """Write the build context with its Dockerfile for MODEL, and build nothing.

    The last line on standard output is the Dockerfile's path.
    """
    with _session(log_format, verbose=verbose) as session:
        if context.exists():
            raise UsageError(f"{context} exists already", hint="name a new folder for --context")
        job = _make_job(session, model, packager, files, packaging_id, arguments, output=None)
        render_context(job, session.tools(engine), context)
        typer.echo(context / "Dockerfile")


def _make_job(
    session: _Session,
    model: Path,
    packager: str | None,
    files: list[Path] | None,
    packaging_id: str | None,
    arguments: list[str] | None,
    output: str | None,
) -> Job:
    documents = read_documents(files) if files else Documents()
    for connection in documents.connections.values():
        session.redactor.add(connection.spec.secrets())
    manifest = documents.pick(packaging_id)
    if packager is None and not manifest.model_packaging.spec.integration_name:
        packager = "docker-rest"
    application = pick_application(manifest, packager)
    values = dict(parse_argument(application, text) for text in arguments or ())
    if output is None and not manifest.targets:
        output = f"oci-archive:{model.resolve().name.removesuffix('.zip')}.oci.tar"
    overrides = Overrides(application=application.name, arguments=values, output=output)
    return Job(model=model, manifest=manifest, overrides=overrides)


@app.command(epilog=_EXIT_CODES)
def inspect(
    model: Model,
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    verbose: Verbose = False,
) -> None:
    """Show what MODEL is: its manifest, its dependencies, its size; all safety checks are made."""
    with _session(LogFormat.auto, verbose=verbose) as session, workspace(session.settings) as work:
        limits = ArtifactLimits.from_settings(session.settings)
        artifact = open_artifact(model, work, limits=limits, reporter=session.reporter)
        _print(_describe(artifact), output)


def _describe(artifact: Artifact) -> dict[str, Any]:
    binaries = artifact.manifest.binaries
    dependencies = artifact.root / str(binaries.conda_path or binaries.requirements_path)
    sizes = [path.lstat().st_size for path in artifact.root.rglob("*") if not path.is_dir()]
    return {
        **artifact.manifest.model_dump(by_alias=True, mode="json", exclude_none=True),
        "created": artifact.created.isoformat(),
        "files": len(sizes),
        "bytes": sum(sizes),
        "dependenciesFile": dependencies.read_text(encoding="utf-8", errors="replace"),
    }


@app.command(epilog=_EXIT_CODES)
def integrations(
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    default_image: Annotated[str, typer.Option(help="The image of the packaging Jobs.")] = DEFAULT_JOB_IMAGE,
) -> None:
    """Print the PackagingIntegration documents of docker-rest and docker-cli, with every argument and target."""
    documents = [integration(application, default_image) for application in APPLICATIONS.values()]
    if output is TextFormat.json:
        _print(documents, output)
    else:
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False, width=120), nl=False)


@app.command(epilog=_EXIT_CODES)
def settings() -> None:
    """List every setting: the environment variable, its default and its meaning."""
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in (None, ()) else f" (default: {field.default})"
        typer.echo(f"{PREFIX}{name.upper()}\n    {field.description}{default}")


def _print(value: object, output: TextFormat) -> None:
    text = json.dumps(value, indent=2) if output is TextFormat.json else yaml.safe_dump(value, sort_keys=False).rstrip()
    typer.echo(text)


def main() -> None:
    """Run `packager`."""
    _exit_after(partial(app, prog_name="packager"))


def _main_of(name: str) -> None:
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    program.command(epilog=_EXIT_CODES)(_run_command(name))
    _exit_after(partial(program, prog_name=APPLICATIONS[name].entry_point))


def _exit_after(program: Callable[[], object]) -> None:
    """Run a program and end the process without tearing the interpreter down.

    py-rattler's threads may still let go of Python objects then: measured, about one process in twelve that had used it
    died of SIGSEGV while exiting, after all its work, with the exit code 139.
    """
    code: object = 0
    try:
        program()
    except SystemExit as exit_:
        code = exit_.code
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def pack_to_rest() -> None:
    """Run `odahu-flow-pack-to-rest MODEL RESOURCE_FILE`."""
    _main_of("docker-rest")


def pack_to_cli() -> None:
    """Run `odahu-flow-pack-to-cli MODEL RESOURCE_FILE`."""
    _main_of("docker-cli")


if __name__ == "__main__":
    main()
