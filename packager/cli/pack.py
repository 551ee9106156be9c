"""`packager pack`: packagings on a Kubernetes cluster, with the names and options of the ODAHU client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from packager.cli.options import (
    JobEngineName,
    JobEngineOption,
    Namespace,
    SettingsFile,
    TextFormat,
    Verbose,
)
from packager.cli.session import open_session
from packager.console import LogFormat
from packager.errors import RequestError, UsageError
from packager.kube.job import JobRequest, render_job, render_secret
from packager.kube.job_settings import JobSettings
from packager.kube.resolve import FileShelf, resolve
from packager.models.documents import Documents, read_documents
from packager.models.packaging import ModelPackaging
from packager.redaction import MASK

pack = typer.Typer(
    help="Packagings on a Kubernetes cluster: a Job each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PackagingFiles = Annotated[
    list[Path],
    typer.Option("--file", "-f", help="A file or folder with the packaging; its connections may lie there, too."),
]
NewId = Annotated[
    str | None, typer.Option("--id", "--pack-id", help="Which packaging of the files; or a new id for the only one.")
]
ArtifactName = Annotated[str | None, typer.Option("--artifact-name", help="The model archive, over the file's.")]


@pack.command()
def render(
    files: PackagingFiles,
    packaging_id: NewId = None,
    artifact_name: ArtifactName = None,
    engine: JobEngineOption = None,
    settings_file: SettingsFile = None,
    namespace: Namespace = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Print the credentials in the Secret, instead of *****.")
    ] = False,
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    verbose: Verbose = False,
) -> None:
    """Print the Job and the Secret that `create` would send, from files alone; asks no cluster."""
    with open_session(LogFormat.auto, verbose=verbose):
        settings = with_engine(read_settings(settings_file), engine)
        documents = read_documents(files)
        packaging = pick_packaging(documents, packaging_id, artifact_name)
        manifest = resolve(packaging, FileShelf(documents, settings), settings)
        request = JobRequest(manifest=manifest, settings=settings, namespace=namespace or "default")
        bodies = [render_job(request), render_secret(request)]
        if not with_secrets:
            bodies[1]["stringData"] = dict.fromkeys(bodies[1]["stringData"], MASK)
    if output is TextFormat.json:
        typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}, indent=2))
    else:
        typer.echo(yaml.safe_dump_all(bodies, sort_keys=False, width=120), nl=False)


def read_settings(file: Path | None) -> JobSettings:
    """Read the settings of Jobs from a file; the defaults without one.

    Raises:
        UsageError: It can't be read, or is wrong.
    """
    if file is None:
        return JobSettings()
    try:
        return JobSettings.from_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: can't be read: {error}", hint="name a YAML file in --settings") from error


def with_engine(settings: JobSettings, engine: JobEngineName | None) -> JobSettings:
    """Return the settings with the engine of the command line, if it names one."""
    return settings.model_copy(update={"engine": engine.value}) if engine else settings


def pick_packaging(documents: Documents, packaging_id: str | None, artifact_name: str | None) -> ModelPackaging:
    """Return the packaging of the files that has this id, else the only one, under this id.

    Raises:
        RequestError: There is none, or several could be meant.
    """
    if not documents.packagings:
        raise RequestError("the files hold no ModelPackaging", hint="give its YAML file with -f")
    known = packaging_id if packaging_id in documents.packagings or len(documents.packagings) > 1 else None
    packaging = documents.pick_packaging(known)
    changes = {"artifact_name": artifact_name} if artifact_name else {}
    spec = packaging.spec.model_copy(update=changes)
    return packaging.model_copy(update={"id": packaging_id or packaging.id, "spec": spec})
