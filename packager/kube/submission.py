"""Starts a packaging: creates the Job first, then its Secret, which the Job owns.

A pod waits for a missing Secret. A kill between the two leaves a Job without credentials, which its deadline ends, and
never a Secret without an owner.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from packager.errors import ClusterError, EntityExistsError, Interrupted, PackagerError, RequestError
from packager.kube.job import JobRequest, render_job, render_secret
from packager.kube.names import JOBS, SECRETS, check_id
from packager.kube.packagings import ClusterEntities, find_job
from packager.kube.resolve import resolve

if TYPE_CHECKING:
    from packager.kube.cluster import Cluster
    from packager.kube.job_settings import JobSettings
    from packager.kube.names import Kind
    from packager.models.documents import Documents
    from packager.models.packaging import ModelPackaging

log = logging.getLogger(__name__)

_REMOVAL_SECONDS = 120.0
_PAUSE_SECONDS = 0.5  # between two reads of a Job
_ADMISSION_SECONDS = 5.0  # how long to look for a Job whose creation was interrupted
# Reasons that apply to the dry run only: the old Job still counts, and some webhooks do not support dry runs.
_OF_DRY_RUNS = re.compile(r"exceeded quota|does not support dry run")


def create(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> dict[str, Any]:
    """Start a packaging and return its Job; leave nothing behind on failure.

    Raises:
        RequestError: The packaging is invalid; nothing was sent.
        EntityExistsError: A packaging with this ID exists, or another Job with this name.
        ClusterError: The cluster rejected the Job.
    """
    return submit(cluster, _request(cluster, packaging, documents, settings))


def edit(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> dict[str, Any]:
    """Run a packaging again with a new spec: replace its old Job, whose results are discarded.

    A dry run checks whether the cluster accepts the new Job before the old one is deleted.

    Raises:
        RequestError: The new packaging is invalid; the old one was not changed.
        EntityNotFoundError: No packaging has this ID.
        ClusterError: The cluster rejected the Job, or did not delete the old one.
    """
    request = _request(cluster, packaging, documents, settings)
    old = find_job(cluster, packaging.id)
    for kind, body in ((JOBS, render_job(request)), (SECRETS, render_secret(request))):
        _dry_run(cluster, kind, body)
    try:
        cluster.delete(JOBS, packaging.id, uid=old["metadata"]["uid"], propagation="Foreground")
        wait_until_gone(cluster, packaging.id, old["metadata"]["uid"])
        return submit(cluster, request)
    except Interrupted:
        log.warning("the old Job may be deleted and no new one runs: `packager pack create` starts the packaging again")
        raise


def _request(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> JobRequest:
    check_id(packaging.id, "packaging")
    manifest = resolve(packaging, ClusterEntities(cluster, documents, settings), settings)
    return JobRequest(manifest=manifest, settings=settings, namespace=cluster.namespace, attempt=secrets.token_hex(3))


def submit(cluster: Cluster, request: JobRequest) -> dict[str, Any]:
    """Create the Job of a request and its Secret, and return the Job; leave nothing behind on failure.

    Raises:
        RequestError, EntityExistsError, ClusterError: The cluster rejected one of them.
    """
    body = render_job(request)
    try:
        job = cluster.create(JOBS, body)
    except EntityExistsError as error:
        raise EntityExistsError(
            f"a packaging or another Job named {request.packaging_id!r} already exists",
            hint="`packager pack edit` runs it again, `packager pack delete` deletes it; or choose another --id",
        ) from error
    except ClusterError as error:
        job = _find_created(cluster, body) if error.retryable else {}
        if not job:
            raise
        log.info("the Job was created, although the response was lost: %s", error.message)
    except BaseException as error:  # a stop before the response arrived
        # The cluster may still be processing it: admission can take seconds.
        end = time.monotonic() + (_ADMISSION_SECONDS if isinstance(error, Interrupted) else 0)
        while not (job := _find_created(cluster, body)) and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
        if job:
            _undo(cluster, request.packaging_id, job["metadata"]["uid"])
        raise
    uid = job["metadata"]["uid"]
    try:
        cluster.create(SECRETS, render_secret(request, job_uid=uid))
    except BaseException:
        log.info("deleting the Job again: creating its Secret failed")
        _undo(cluster, request.packaging_id, uid)
        raise
    return job


def _dry_run(cluster: Cluster, kind: Kind, body: dict[str, Any]) -> None:
    try:
        cluster.create(kind, body, dry_run=True)
    except EntityExistsError:
        pass  # the API server checks the name last, so the rest is accepted
    except (ClusterError, RequestError) as error:
        if not _OF_DRY_RUNS.search(error.message):
            raise
        log.debug("the dry run is inconclusive: %s", error.message)


def _find_created(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    """Return the Job if it exists with the Secret of this attempt, although its creation was not confirmed."""
    try:
        jobs, _ = cluster.list(JOBS, fields=f"metadata.name={body['metadata']['name']}")
    except ClusterError:
        return {}
    return next((job for job in jobs if _volumes(job)[:1] == _volumes(body)[:1]), {})


def _volumes(job: dict[str, Any]) -> list[Any]:
    volumes = job.get("spec", {}).get("template", {}).get("spec", {}).get("volumes") or []
    return [volume.get("secret", {}).get("secretName") for volume in volumes]


def _undo(cluster: Cluster, packaging_id: str, uid: str) -> None:
    try:
        cluster.delete(JOBS, packaging_id, uid=uid)
    except PackagerError as error:  # the original error is reported
        log.warning("cannot delete the Job again: %s", error.message)
        log.warning("hint: it waits for a Secret that was not created; packager pack delete --id %s", packaging_id)


def wait_until_gone(cluster: Cluster, packaging_id: str, uid: str) -> None:
    """Wait until the cluster has deleted a Job, and what it owns after a deletion in the foreground.

    Raises:
        ClusterError: The Job still exists after two minutes.
    """
    selector = f"metadata.name={packaging_id}"
    end = time.monotonic() + _REMOVAL_SECONDS
    while time.monotonic() < end:
        jobs, version = cluster.list(JOBS, fields=selector)
        if not any(job["metadata"]["uid"] == uid for job in jobs):
            return
        for event in cluster.watch(JOBS, fields=selector, version=version, seconds=10):
            if event.get("type") == "DELETED":
                return
        time.sleep(_PAUSE_SECONDS)
    raise ClusterError(
        f"the old Job of {packaging_id!r} is still being deleted",
        hint="run the command again later; nothing was started",
    )
