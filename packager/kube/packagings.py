"""Packagings in a cluster: create, change, look, remove. Their state lives in the cluster alone.

The Job comes first and its Secret, which it owns, right after; a pod waits for a Secret that is not there yet. So a
kill between the two leaves a Job without credentials that its own deadline ends and that then goes, and never a Secret
without an owner.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Any

from packager.errors import ClusterAccessError, ClusterError, EntityExistsError, EntityNotFoundError
from packager.kube.entities import connection_of, integration_of
from packager.kube.job import JobRequest, render_job, render_secret
from packager.kube.job_settings import JobSettings
from packager.kube.names import (
    CONFIG_MAPS,
    DOCUMENT,
    ENTITY,
    EVENTS,
    ID,
    JOBS,
    PACKAGING_ID,
    PODS,
    RESULTS,
    SECRETS,
    SETTINGS_KEY,
    SETTINGS_NAME,
    check_id,
    connection_name,
    integration_name,
)
from packager.kube.resolve import FileShelf, resolve
from packager.kube.status import Observation, Status, kept_results, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.kube.cluster import Cluster
    from packager.models.connection import Connection
    from packager.models.documents import Documents
    from packager.models.packaging import ModelPackaging, PackagingIntegration

log = logging.getLogger(__name__)

_REMOVAL_SECONDS = 120


class ClusterShelf:
    """The entities of the files first, then the cluster's, then the packagers' own integrations."""

    place = "the files nor in the cluster"

    def __init__(self, cluster: Cluster, documents: Documents, settings: JobSettings) -> None:
        """Take where to look."""
        self._cluster = cluster
        self._documents = documents
        self._own = FileShelf(documents, settings)

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return an integration, or None."""
        if found := self._documents.integrations.get(integration_id):
            return found
        try:
            name = integration_name(check_id(integration_id, "integration"))
            return integration_of(self._cluster.get(CONFIG_MAPS, name))
        except EntityNotFoundError:
            return self._own.integration(integration_id)

    def connection(self, connection_id: str) -> Connection | None:
        """Return a connection with its secrets, or None."""
        if found := self._documents.connections.get(connection_id):
            return found
        try:
            secret = self._cluster.get(SECRETS, connection_name(check_id(connection_id, "connection")))
        except EntityNotFoundError:
            return None
        return connection_of(secret) if ID in (secret["metadata"].get("labels") or {}) else None


def read_cluster_settings(cluster: Cluster) -> JobSettings:
    """Read the settings of Jobs from the ConfigMap that the chart installs; the defaults without one.

    Raises:
        UsageError: They are wrong.
        ClusterError: The cluster refuses.
    """
    try:
        config_map = cluster.get(CONFIG_MAPS, SETTINGS_NAME)
    except EntityNotFoundError:
        return JobSettings()
    text = (config_map.get("data") or {}).get(SETTINGS_KEY, "")
    return JobSettings.from_yaml(text, f"{SETTINGS_KEY} in the ConfigMap {SETTINGS_NAME!r} of {cluster.namespace!r}")


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

    Raises:
        RequestError: The new packaging is wrong; the old one was not touched.
        EntityNotFoundError: There is none of that id.
        ClusterError: The cluster refuses, or doesn't get rid of the old Job.
    """
    request = _request(cluster, packaging, documents, settings)
    render_job(request)
    old = find_job(cluster, packaging.id)
    cluster.delete(JOBS, packaging.id, uid=old["metadata"]["uid"], propagation="Foreground")
    wait_until_gone(cluster, packaging.id, old["metadata"]["uid"])
    return submit(cluster, request)


def _request(cluster: Cluster, packaging: ModelPackaging, documents: Documents, settings: JobSettings) -> JobRequest:
    check_id(packaging.id, "packaging")
    manifest = resolve(packaging, ClusterShelf(cluster, documents, settings), settings)
    return JobRequest(manifest=manifest, settings=settings, namespace=cluster.namespace, attempt=secrets.token_hex(3))


def submit(cluster: Cluster, request: JobRequest) -> dict[str, Any]:
    """Make the Job of a request and its Secret, and return the Job; leaves nothing behind when it can't.

    Raises:
        RequestError, EntityExistsError, ClusterError: The cluster doesn't take it.
    """
    try:
        job = cluster.create(JOBS, render_job(request))
    except EntityExistsError as error:
        raise EntityExistsError(
            f"the cluster has a packaging, or another Job, {request.packaging_id!r} already",
            hint="`packager pack edit` runs it again, `packager pack delete` removes it, or choose another --id",
        ) from error
    uid = job["metadata"]["uid"]
    try:
        cluster.create(SECRETS, render_secret(request, job_uid=uid))
    except BaseException:
        log.info("taking the Job back: its Secret could not be made")
        cluster.delete(JOBS, request.packaging_id, uid=uid)
        raise
    return job


def delete(cluster: Cluster, packaging_id: str) -> None:
    """Remove a packaging; the cluster removes its pods and its Secret with it.

    Raises:
        EntityNotFoundError: There is none of that id.
        ClusterError: The cluster refuses.
    """
    job = find_job(cluster, packaging_id)
    cluster.delete(JOBS, packaging_id, uid=job["metadata"]["uid"])


def find_job(cluster: Cluster, packaging_id: str) -> dict[str, Any]:
    """Return the Job of a packaging.

    Raises:
        EntityNotFoundError: There is no Job of that name, or it is no packaging.
        ClusterError: The cluster refuses.
    """
    return observe_job(cluster, packaging_id)[0]


def observe_job(cluster: Cluster, packaging_id: str) -> tuple[dict[str, Any], str]:
    """Return the Job of a packaging, with the resource version to watch from.

    Raises:
        EntityNotFoundError: There is no Job of that name, or it is no packaging.
        ClusterError: The cluster refuses.
    """
    jobs, version = cluster.list(JOBS, fields=f"metadata.name={check_id(packaging_id, 'packaging')}")
    for job in jobs:
        if (job["metadata"].get("labels") or {}).get(ENTITY) == "packaging":
            return job, version
    raise EntityNotFoundError(
        f"there is no packaging {packaging_id!r} in the namespace {cluster.namespace!r}",
        hint="`packager pack get` lists them; finished ones go after the time that the settings of Jobs set",
    )


def owned_pods(job: dict[str, Any], pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods that are this Job's: those of an earlier Job of the same id may still be around."""
    uid = job["metadata"].get("uid")
    return [pod for pod in pods if uid in [owner.get("uid") for owner in pod["metadata"].get("ownerReferences") or ()]]


def observe(cluster: Cluster, packaging_id: str) -> Observation:
    """Look at a packaging.

    Raises:
        EntityNotFoundError: There is none of that id.
        ClusterError: The cluster refuses.
    """
    job, job_version = observe_job(cluster, packaging_id)
    pods, pods_version = cluster.list(PODS, labels=f"{PACKAGING_ID}={packaging_id}")
    seen = Observation(job=job, pods=owned_pods(job, pods), job_version=job_version, pods_version=pods_version)
    return seen.with_events(_events(cluster, seen))


def _events(cluster: Cluster, seen: Observation) -> list[dict[str, Any]]:
    """Return the warnings that may say why nothing runs; none are asked for where something does."""
    metadata, pod = seen.job["metadata"], seen.newest_pod
    status = status_of(seen)
    if status.state == "scheduling" and (pod is None or pod.get("status", {}).get("phase") == "Pending"):
        uids = [metadata["uid"], *([pod["metadata"]["uid"]] if pod else [])]
        selectors = [f"involvedObject.uid={uid},type=Warning" for uid in uids]
        return [event for selector in selectors for event in cluster.list(EVENTS, fields=selector)[0]]
    if status.state == "failed" and pod is None:
        events, _ = cluster.list(EVENTS, fields="involvedObject.kind=Pod,type=Warning")
        own = f"{metadata['name']}-"
        since = str(metadata.get("creationTimestamp", ""))
        return [
            event
            for event in events
            if str(event["involvedObject"].get("name", "")).startswith(own)
            and str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp", "")) >= since
        ]
    return []


def document(job: dict[str, Any], status: Status) -> dict[str, Any]:
    """Return the `kind: ModelPackaging` document of a packaging as it stands."""
    text = (job["metadata"].get("annotations") or {}).get(DOCUMENT, "{}")
    try:
        own = json.loads(text)
    except ValueError:
        own = {}
    return {
        "kind": "ModelPackaging",
        "id": job["metadata"]["name"],
        "spec": own.get("spec", {}),
        "status": status.to_document(),
        "createdAt": job["metadata"].get("creationTimestamp", ""),
    }


def every(cluster: Cluster) -> Iterator[tuple[dict[str, Any], Status]]:
    """Give all packagings with their status, holding one page of them at a time.

    Raises:
        ClusterError: The cluster refuses.
    """
    for jobs, _ in cluster.pages(JOBS, labels=f"{ENTITY}=packaging"):
        names = ",".join(job["metadata"]["name"] for job in jobs)
        pods = cluster.list(PODS, labels=f"{PACKAGING_ID} in ({names})")[0] if names else []
        for job in jobs:
            yield job, status_of(Observation(job=job, pods=owned_pods(job, pods)))


def keep_results(cluster: Cluster, seen: Observation, status: Status) -> None:
    """Write the results into the Job, so that they outlive the pod; whoever may do that and sees them first does."""
    if not status.results or kept_results(seen.job):
        return
    try:
        body = {"metadata": {"annotations": {RESULTS: json.dumps(status.results)}}}
        cluster.patch(JOBS, seen.job["metadata"]["name"], body)
    except (ClusterAccessError, EntityNotFoundError) as error:
        log.debug("the results are not kept in the Job: %s", error.message)


def wait_until_gone(cluster: Cluster, packaging_id: str, uid: str) -> None:
    """Wait till the cluster has removed a Job, and what it owns where the removal was one in the foreground.

    Raises:
        ClusterError: It has not in two minutes.
    """
    selector = f"metadata.name={packaging_id}"
    for _ in range(_REMOVAL_SECONDS // 10):
        jobs, version = cluster.list(JOBS, fields=selector)
        if not any(job["metadata"]["uid"] == uid for job in jobs):
            return
        for event in cluster.watch(JOBS, fields=selector, version=version, seconds=10):
            if event.get("type") == "DELETED":
                return
    raise ClusterError(
        f"the old Job of {packaging_id!r} is still being removed", hint="run it again in a moment; nothing was started"
    )
