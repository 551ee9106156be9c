"""Starting a packaging: the Job first, and its Secret, which it owns, right after.

A pod waits for a Secret that is not there yet. So a kill between the two leaves a Job without credentials that its own
deadline ends and that then goes, and never a Secret without an owner.
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
from packager.kube.packagings import ClusterShelf, find_job
from packager.kube.resolve import resolve

if TYPE_CHECKING:
    from packager.kube.cluster import Cluster
    from packager.kube.job_settings import JobSettings
    from packager.kube.names import Kind
    from packager.models.documents import Documents
    from packager.models.packaging import ModelPackaging

log = logging.getLogger(__name__)

_REMOVAL_SECONDS = 120.0
_PAUSE_SECONDS = 0.5  # between two looks for a Job
_ADMISSION_SECONDS = 5.0  # that a Job is looked for whose answer a stop has cut off
# What a dry run is refused for, but not what follows: the old Job still counts, and some webhooks take no dry runs.
_OF_DRY_RUNS = re.compile(r"exceeded quota|does not support dry run")


def create(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> dict[str, Any]:
    """Start a packaging and return its Job; leaves nothing behind when it can't.

    Raises:
        RequestError: The packaging is wrong; nothing was sent.
        EntityExistsError: There is one of that id, or another Job of that name.
        ClusterError: The cluster refuses.
    """
    return submit(cluster, _request(cluster, packaging, documents, settings))


def edit(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> dict[str, Any]:
    """Run a packaging again with a new spec, in the place of its old Job, whose results go.

    The cluster is request by a dry run whether it would take the new one, before the old one goes.

    Raises:
        RequestError: The new packaging is wrong; the old one was not touched.
        EntityNotFoundError: There is none of that id.
        ClusterError: The cluster refuses, or doesn't get rid of the old Job.
    """
    request = _request(cluster, packaging, documents, settings)
    old = find_job(cluster, packaging.id)
    for kind, body in ((JOBS, render_job(request)), (SECRETS, render_secret(request))):
        _rehearse(cluster, kind, body)
    try:
        cluster.delete(JOBS, packaging.id, uid=old["metadata"]["uid"], propagation="Foreground")
        wait_until_gone(cluster, packaging.id, old["metadata"]["uid"])
        return submit(cluster, request)
    except Interrupted:
        log.warning("the old Job may be gone, and no new one runs: `packager pack create` starts the packaging again")
        raise


def _request(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> JobRequest:
    check_id(packaging.id, "packaging")
    manifest = resolve(packaging, ClusterShelf(cluster, documents, settings), settings)
    return JobRequest(manifest=manifest, settings=settings, namespace=cluster.namespace, attempt=secrets.token_hex(3))


def submit(cluster: Cluster, request: JobRequest) -> dict[str, Any]:
    """Make the Job of a request and its Secret, and return the Job; leaves nothing behind when it can't.

    Raises:
        RequestError, EntityExistsError, ClusterError: The cluster doesn't take it.
    """
    body = render_job(request)
    try:
        job = cluster.create(JOBS, body)
    except EntityExistsError as error:
        raise EntityExistsError(
            f"the cluster has a packaging, or another Job, {request.packaging_id!r} already",
            hint="`packager pack edit` runs it again, `packager pack delete` removes it, or choose another --id",
        ) from error
    except ClusterError as error:
        job = _made_after_all(cluster, body) if error.retryable else {}
        if not job:
            raise
        log.info("the Job is there, though its answer was lost: %s", error.message)
    except BaseException as error:  # a stop, before the answer came
        # The cluster may still be at it then: its admission can take seconds.
        end = time.monotonic() + (_ADMISSION_SECONDS if isinstance(error, Interrupted) else 0)
        while not (job := _made_after_all(cluster, body)) and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
        if job:
            _take_back(cluster, request.packaging_id, job["metadata"]["uid"])
        raise
    uid = job["metadata"]["uid"]
    try:
        cluster.create(SECRETS, render_secret(request, job_uid=uid))
    except BaseException:
        log.info("taking the Job back: its Secret could not be made")
        _take_back(cluster, request.packaging_id, uid)
        raise
    return job


def _rehearse(cluster: Cluster, kind: Kind, body: dict[str, Any]) -> None:
    try:
        cluster.create(kind, body, dry_run=True)
    except EntityExistsError:
        pass  # it would be taken; that is asked for last
    except (ClusterError, RequestError) as error:
        if not _OF_DRY_RUNS.search(error.message):
            raise
        log.debug("the dry run tells nothing: %s", error.message)


def _made_after_all(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    """Return the Job when it is there, with this very attempt's Secret, though no good answer told so."""
    try:
        jobs, _ = cluster.list(JOBS, fields=f"metadata.name={body['metadata']['name']}")
    except ClusterError:
        return {}
    return next((job for job in jobs if _volumes(job)[:1] == _volumes(body)[:1]), {})


def _volumes(job: dict[str, Any]) -> list[Any]:
    volumes = job.get("spec", {}).get("template", {}).get("spec", {}).get("volumes") or []
    return [volume.get("secret", {}).get("secretName") for volume in volumes]


def _take_back(cluster: Cluster, packaging_id: str, uid: str) -> None:
    try:
        cluster.delete(JOBS, packaging_id, uid=uid)
    except PackagerError as error:  # what kept the Secret from being made is the one to tell
        log.warning("the Job could not be taken back: %s", error.message)
        log.warning("hint: it waits for its Secret in vain; remove it: packager pack delete --id %s", packaging_id)


def wait_until_gone(cluster: Cluster, packaging_id: str, uid: str) -> None:
    """Wait till the cluster has removed a Job, and what it owns where the removal was one in the foreground.

    Raises:
        ClusterError: It has not in two minutes.
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
        f"the old Job of {packaging_id!r} is still being removed", hint="run it again in a moment; nothing was started"
    )
