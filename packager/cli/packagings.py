"""What the commands of `packager pack` do."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
import yaml

from packager.cli.clusters import connect_to, create_new, delete_old, id_or_file
from packager.cli.options import TextFormat
from packager.cli.printing import checked_format, print_entities
from packager.cli.session import open_session
from packager.errors import (
    ClusterError,
    EntityNotFoundError,
    Interrupted,
    PackagingFailedError,
    RequestError,
    UsageError,
    WaitTimeoutError,
)
from packager.kube import packagings, submission
from packager.kube.job import JobRequest, render_job, render_secret
from packager.kube.job_settings import JobSettings
from packager.kube.log_follower import Follower
from packager.kube.names import check_namespace
from packager.kube.resolve import FileEntities, resolve
from packager.kube.status import SUCCEEDED, Status, status_of
from packager.logs.progress import LogFormat
from packager.logs.redaction import MASK
from packager.models.documents import Documents, read_documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.cli.options import ClusterOptions, PackagingOptions
    from packager.cli.session import Session
    from packager.kube.cluster import Cluster
    from packager.models.packaging import ModelPackaging

log = logging.getLogger(__name__)

_COLUMNS = (
    ("ID", 40, "id"),
    ("STATE", 10, "status.state"),
    ("INTEGRATION", 12, "spec.integrationName"),
    ("CREATED", 20, "createdAt"),
    ("IMAGE OR REASON", 15, "shown"),
)


def create(
    options: PackagingOptions, cluster_options: ClusterOptions, timeout: int | None, *, ignore_if_exists: bool
) -> None:
    """Start a packaging, and wait for its end where there is a timeout."""
    with open_session(LogFormat.auto, verbose=cluster_options.verbose) as session:
        documents, packaging = _read_packaging(session, options)
        cluster = connect_to(cluster_options)
        settings = _settings(options, cluster)
        jobs: list[dict[str, Any]] = []
        if not create_new(
            lambda: jobs.append(submission.create(cluster, packaging, documents, settings)),
            ignore_if_exists=ignore_if_exists,
        ):
            return
        with _log_that_it_continues(packaging.id):
            log.info("packaging %r is started in namespace %r", packaging.id, cluster.namespace)
            if timeout is not None:
                _wait(cluster, jobs[0], timeout)


def edit(options: PackagingOptions, cluster_options: ClusterOptions, timeout: int | None) -> None:
    """Run a packaging again, and wait for its end where there is a timeout."""
    with open_session(LogFormat.auto, verbose=cluster_options.verbose) as session:
        documents, packaging = _read_packaging(session, options)
        cluster = connect_to(cluster_options)
        job = submission.edit(cluster, packaging, documents, _settings(options, cluster))
        with _log_that_it_continues(packaging.id):
            log.info("packaging %r runs again in namespace %r", packaging.id, cluster.namespace)
            if timeout is not None:
                _wait(cluster, job, timeout)


def get(packaging_id: str | None, options: ClusterOptions, output: str) -> None:
    """Print one packaging or all of them."""
    with open_session(LogFormat.auto, verbose=options.verbose):
        checked_format(output)
        cluster = connect_to(options)
        if packaging_id is None:
            documents = (_document(job, status, output) for job, status in packagings.list_all(cluster))
        else:
            observed = packagings.observe(cluster, packaging_id)
            status = status_of(observed)
            packagings.keep_results(cluster, observed, status)
            documents = (_document(job, status, output) for job in [observed.job])
        print_entities(documents, output, _COLUMNS)


def print_log(packaging_id: str | None, file: Path | None, options: ClusterOptions, timeout: int | None) -> None:
    """Print the log of a packaging, and follow it where there is a timeout."""
    with open_session(LogFormat.auto, verbose=options.verbose):
        wanted = id_or_file(packaging_id, file, "ModelPackaging")
        cluster = connect_to(options)
        follower = Follower(cluster=cluster, packaging_id=wanted, on_line=typer.echo, on_status=_log_status)
        if timeout is None:
            follower.read_log()
        else:
            follower.follow(timeout)
        if not follower.lines:
            log.warning("there is no log: no pod has started yet, or its pod was deleted")


def delete(packaging_id: str | None, file: Path | None, options: ClusterOptions, *, ignore_not_found: bool) -> None:
    """Delete a packaging, named by its ID or a file."""
    with open_session(LogFormat.auto, verbose=options.verbose):
        wanted = id_or_file(packaging_id, file, "ModelPackaging")
        cluster = connect_to(options)
        delete_old(lambda: packagings.delete(cluster, wanted), f"packaging {wanted}", ignore_not_found=ignore_not_found)


def render(
    options: PackagingOptions, namespace: str | None, output: TextFormat, *, with_secrets: bool, verbose: bool
) -> None:
    """Print the Job and the Secret of a packaging."""
    with open_session(LogFormat.auto, verbose=verbose) as session:
        settings = _settings(options)
        documents, packaging = _read_packaging(session, options)
        manifest = resolve(packaging, FileEntities(documents, settings), settings)
        request = JobRequest(manifest=manifest, settings=settings, namespace=check_namespace(namespace or "default"))
        bodies = [render_job(request), render_secret(request)]
        if not with_secrets:
            bodies[1]["stringData"] = dict.fromkeys(bodies[1]["stringData"], MASK)
        if output is TextFormat.json:
            typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}, indent=2))
        else:
            typer.echo(yaml.safe_dump_all(bodies, sort_keys=False, width=120), nl=False)


def _settings(options: PackagingOptions, cluster: Cluster | None = None) -> JobSettings:
    """Return the Job settings of the file, else of the cluster, else the defaults, with the engine of the options.

    Raises:
        UsageError: The file cannot be read or is invalid.
    """
    file = options.settings_file
    if file is not None:
        try:
            settings = JobSettings.from_yaml(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {file}: {error}", hint="name a YAML file in --settings") from error
    else:
        settings = packagings.read_cluster_settings(cluster) if cluster else JobSettings()
    return settings.model_copy(update={"engine": options.engine.value}) if options.engine else settings


def _read_packaging(session: Session, options: PackagingOptions) -> tuple[Documents, ModelPackaging]:
    """Read the files, and select the packaging by its ID, else the only one under this ID.

    Raises:
        RequestError: A document is invalid, there is no packaging, or several match.
    """
    documents = read_documents(options.files)
    for connection in documents.connections.values():
        session.redactor.add(connection.spec.secrets())
    if not documents.packagings:
        raise RequestError("the files hold no ModelPackaging", hint="give its YAML file with -f")
    packaging_id = options.packaging_id
    known = packaging_id if packaging_id in documents.packagings or len(documents.packagings) > 1 else None
    packaging = documents.pick_packaging(known)
    changes = {"artifact_name": options.artifact_name} if options.artifact_name else {}
    spec = packaging.spec.model_copy(update=changes)
    return documents, packaging.model_copy(update={"id": packaging_id or packaging.id, "spec": spec})


def _document(job: dict[str, Any], status: Status, output: str) -> dict[str, Any]:
    document = packagings.document(job, status)
    if output == "table":
        document["shown"] = status.results.get("image") or status.reason
    return document


def _log_status(status: Status) -> None:
    """Log a new status; what keeps a packaging from starting is a warning, because it may start later."""
    if status.reason and not status.is_final:
        log.warning("%s: %s: %s", status.state, status.reason, status.message)
        if status.hint:
            log.warning("hint: %s", status.hint)
    else:
        log.info("%s%s", status.state, f" in pod {status.pod_name}" if status.pod_name else "")


@contextmanager
def _log_that_it_continues(packaging_id: str) -> Iterator[None]:
    """Log that a stop of this process does not stop the packaging."""
    try:
        yield
    except Interrupted:
        log.warning("the packaging continues in the cluster: packager pack logs --id %s", packaging_id)
        raise


def _wait(cluster: Cluster, job: dict[str, Any], timeout: int) -> None:
    packaging_id, uid = str(job["metadata"]["name"]), str(job["metadata"]["uid"])

    def show(line: str) -> None:
        typer.echo(line, err=True)

    try:
        follower = Follower(cluster=cluster, packaging_id=packaging_id, uid=uid, on_line=show, on_status=_log_status)
        status = follower.follow(timeout)
    except ClusterError as error:
        if not isinstance(error, (EntityNotFoundError, WaitTimeoutError)):
            log.warning(
                "cannot follow the packaging, which continues in the cluster: packager pack logs --id %s", packaging_id
            )
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
