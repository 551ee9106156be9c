"""`packager pack`: packagings in a Kubernetes cluster, with the ODAHU client's names and options."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

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
)
from packager.cli.options import JobEngineOption, SettingsFile, TextFormat, Verbose
from packager.cli.output import OutputFormat, checked_format, print_entities
from packager.cli.pack_files import read_packaging, read_settings, with_engine
from packager.cli.session import open_session
from packager.errors import ClusterError, EntityNotFoundError, Interrupted, PackagingFailedError, WaitTimeoutError
from packager.kube import packagings, submission
from packager.kube.job import JobRequest, render_job, render_secret
from packager.kube.job_settings import JobSettings
from packager.kube.log_follower import Follower
from packager.kube.names import check_namespace
from packager.kube.resolve import FileShelf, resolve
from packager.kube.status import SUCCEEDED, Status, status_of
from packager.logs.console import LogFormat
from packager.logs.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_COLUMNS = (
    ("ID", 40, "id"),
    ("STATE", 10, "status.state"),
    ("INTEGRATION", 12, "spec.integrationName"),
    ("CREATED", 20, "createdAt"),
    ("IMAGE OR REASON", 15, "shown"),
)
pack = command_group("Manage packagings in a Kubernetes cluster. Each one runs as a Job.")
PackagingFiles = Annotated[
    list[Path],
    typer.Option("--file", "-f", help="File or folder with the packaging, and optionally its connections."),
]
NewId = Annotated[
    str | None,
    typer.Option(
        "--id", "--pack-id", help="Select a packaging by ID, or override the ID when the files hold only one."
    ),
]
ArtifactName = Annotated[str | None, typer.Option("--artifact-name", help="Override the model archive of the file.")]
GivenId = Annotated[str | None, typer.Option("--id", "--pack-id", help="ID of the packaging.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the log until the packaging ends, then print the results.")
]
Timeout = Annotated[
    int, typer.Option("--timeout", min=1, help="Maximum time to wait, in seconds. The packaging continues afterwards.")
]


@pack.command()
def create(
    files: PackagingFiles,
    packaging_id: NewId = None,
    artifact_name: ArtifactName = None,
    wait: Wait = True,
    timeout: Timeout = 3600,
    ignore_if_exists: IgnoreExists = False,
    engine: JobEngineOption = None,
    settings_file: SettingsFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Start a packaging in the cluster.

    With --wait its log goes to standard error; the last line on standard output is the image by digest. It exits with
    the packaging's own exit code.
    """
    with open_session(LogFormat.auto, verbose=verbose) as session:
        documents, packaging = read_packaging(session, files, packaging_id, artifact_name)
        cluster = connect_to(kubeconfig, context, namespace)
        settings = with_engine(_settings(cluster, settings_file), engine)
        made: list[dict[str, Any]] = []
        if not create_new(
            lambda: made.append(submission.create(cluster, packaging, documents, settings)),
            ignore_if_exists=ignore_if_exists,
        ):
            return
        with _going_on(packaging.id):
            log.info("packaging %r is started in the namespace %r", packaging.id, cluster.namespace)
            if wait:
                _wait(cluster, made[0], timeout)


@pack.command()
def edit(
    files: PackagingFiles,
    packaging_id: NewId = None,
    artifact_name: ArtifactName = None,
    wait: Wait = True,
    timeout: Timeout = 3600,
    engine: JobEngineOption = None,
    settings_file: SettingsFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Run a packaging again from its changed file. The previous results are discarded."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        documents, packaging = read_packaging(session, files, packaging_id, artifact_name)
        cluster = connect_to(kubeconfig, context, namespace)
        settings = with_engine(_settings(cluster, settings_file), engine)
        job = submission.edit(cluster, packaging, documents, settings)
        with _going_on(packaging.id):
            log.info("packaging %r runs again in the namespace %r", packaging.id, cluster.namespace)
            if wait:
                _wait(cluster, job, timeout)


@pack.command()
def get(
    packaging_id: GivenId = None,
    output: OutputFormat = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Show packagings with their status and results."""
    with open_session(LogFormat.auto, verbose=verbose):
        checked_format(output)
        cluster = connect_to(kubeconfig, context, namespace)
        if packaging_id is None:
            shown = (_document(job, status, output) for job, status in packagings.list_all(cluster))
        else:
            seen = packagings.observe(cluster, packaging_id)
            status = status_of(seen)
            packagings.keep_results(cluster, seen, status)
            shown = (_document(job, status, output) for job in [seen.job])
        print_entities(shown, output, _COLUMNS)


@pack.command()
def logs(
    packaging_id: GivenId = None,
    file: OptionalFile = None,
    follow: Annotated[
        bool, typer.Option("--follow/--not-follow", help="Follow the log until the packaging ends.")
    ] = True,
    timeout: Timeout = 3600,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Print the log of a packaging, all attempts included."""
    with open_session(LogFormat.auto, verbose=verbose):
        wanted = id_or_file(packaging_id, file, "ModelPackaging")
        cluster = connect_to(kubeconfig, context, namespace)
        follower = Follower(cluster=cluster, packaging_id=wanted, on_line=typer.echo, on_status=_tell)
        if follow:
            follower.follow(timeout)
        else:
            follower.read_log()
        if not follower.lines:
            log.warning("there is no log: no pod has begun, or it is gone with its pod")


@pack.command()
def delete(
    packaging_id: GivenId = None,
    file: OptionalFile = None,
    ignore_not_found: IgnoreNotFound = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
    verbose: Verbose = False,
) -> None:
    """Delete a packaging with its pods and credentials. Its image stays in the registry."""
    with open_session(LogFormat.auto, verbose=verbose):
        wanted = id_or_file(packaging_id, file, "ModelPackaging")
        cluster = connect_to(kubeconfig, context, namespace)
        delete_old(lambda: packagings.delete(cluster, wanted), f"packaging {wanted}", ignore_not_found=ignore_not_found)


@pack.command()
def render(
    files: PackagingFiles,
    packaging_id: NewId = None,
    artifact_name: ArtifactName = None,
    engine: JobEngineOption = None,
    settings_file: SettingsFile = None,
    namespace: Namespace = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Print the credentials instead of *****.")
    ] = False,
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    verbose: Verbose = False,
) -> None:
    """Print the Job and Secret that `create` would send, without contacting a cluster."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        settings = with_engine(read_settings(settings_file), engine)
        documents, packaging = read_packaging(session, files, packaging_id, artifact_name)
        manifest = resolve(packaging, FileShelf(documents, settings), settings)
        where = check_namespace(namespace or "default")
        request = JobRequest(manifest=manifest, settings=settings, namespace=where)
        bodies = [render_job(request), render_secret(request)]
        if not with_secrets:
            bodies[1]["stringData"] = dict.fromkeys(bodies[1]["stringData"], MASK)
        if output is TextFormat.json:
            typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}, indent=2))
        else:
            typer.echo(yaml.safe_dump_all(bodies, sort_keys=False, width=120), nl=False)


def _settings(cluster: Cluster, file: Path | None) -> JobSettings:
    return read_settings(file) if file else packagings.read_cluster_settings(cluster)


def _document(job: dict[str, Any], status: Status, output: str) -> dict[str, Any]:
    document = packagings.document(job, status)
    if output == "table":
        document["shown"] = status.results.get("image") or status.reason
    return document


def _tell(status: Status) -> None:
    """Say what has become of a packaging; why it doesn't start comes as a warning, because it may yet."""
    if status.reason and not status.is_final:
        log.warning("%s: %s: %s", status.state, status.reason, status.message)
        if status.hint:
            log.warning("hint: %s", status.hint)
    else:
        log.info("%s%s", status.state, f" in the pod {status.pod_name}" if status.pod_name else "")


@contextmanager
def _going_on(packaging_id: str) -> Iterator[None]:
    """Say what a stop doesn't stop."""
    try:
        yield
    except Interrupted:
        log.warning("the packaging goes on in the cluster: packager pack logs --id %s", packaging_id)
        raise


def _wait(cluster: Cluster, job: dict[str, Any], timeout: int) -> None:
    packaging_id, uid = str(job["metadata"]["name"]), str(job["metadata"]["uid"])

    def show(line: str) -> None:
        typer.echo(line, err=True)

    try:
        follower = Follower(cluster=cluster, packaging_id=packaging_id, uid=uid, on_line=show, on_status=_tell)
        status = follower.follow(timeout)
    except ClusterError as error:
        if not isinstance(error, (EntityNotFoundError, WaitTimeoutError)):
            log.warning("it can't be followed, but goes on in the cluster: packager pack logs --id %s", packaging_id)
        raise
    if status.state != SUCCEEDED:
        raise PackagingFailedError(
            f"packaging {packaging_id!r} failed: {status.reason}: {status.message}",
            hint=status.hint,
            own_code=status.exit_code,
        )
    for name, value in status.results.items():
        log.info("%s: %s", name, value)
    if status.message:
        log.warning("%s", status.message)
    typer.echo(status.results.get("imageDigest", ""))
