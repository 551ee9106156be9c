"""Packagings in a cluster: reading, listing, deleting. Their state is stored in the cluster only."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from packager.errors import (
    ClusterAccessError,
    ClusterError,
    EntityNotFoundError,
    RequestError,
)
from packager.kube.entities import connection_of, integration_of
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
from packager.kube.resolve import FileEntities
from packager.kube.status import Observation, Status, kept_results, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.kube.cluster import Cluster
    from packager.models.connection import Connection
    from packager.models.documents import Documents
    from packager.models.packaging import PackagingIntegration

log = logging.getLogger(__name__)

_POD_PREFIX = 58  # length of a pod's generated name without its five random characters (apiserver/storage/names)


class ClusterEntities:
    """The entities of files, else of the cluster, else the built-in integrations."""

    place = "the files nor in the cluster"

    def __init__(self, cluster: Cluster, documents: Documents, settings: JobSettings) -> None:
        """Take the cluster and the documents."""
        self._cluster = cluster
        self._documents = documents
        self._own = FileEntities(documents, settings)

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
        UsageError: The settings are invalid.
        ClusterError: The cluster rejected the request.
    """
    try:
        config_map = cluster.get(CONFIG_MAPS, SETTINGS_NAME)
    except EntityNotFoundError:
        return JobSettings()
    text = (config_map.get("data") or {}).get(SETTINGS_KEY, "")
    return JobSettings.from_yaml(text, f"{SETTINGS_KEY} in the ConfigMap {SETTINGS_NAME!r} of {cluster.namespace!r}")


def delete(cluster: Cluster, packaging_id: str) -> None:
    """Delete a packaging; the cluster deletes its pods and its Secret with it.

    Raises:
        EntityNotFoundError: No packaging has this ID.
        ClusterError: The cluster rejected the request.
    """
    job = find_job(cluster, packaging_id)
    cluster.delete(JOBS, packaging_id, uid=job["metadata"]["uid"])


def find_job(cluster: Cluster, packaging_id: str) -> dict[str, Any]:
    """Return the Job of a packaging.

    Raises:
        EntityNotFoundError: No Job has this name, or it is not a packaging.
        ClusterError: The cluster rejected the request.
    """
    return observe_job(cluster, packaging_id)[0]


def observe_job(cluster: Cluster, packaging_id: str) -> tuple[dict[str, Any], str]:
    """Return the Job of a packaging, with the resource version to watch from.

    Raises:
        EntityNotFoundError: No Job has this name, or it is not a packaging.
        ClusterError: The cluster rejected the request.
    """
    jobs, version = cluster.list(JOBS, fields=f"metadata.name={check_id(packaging_id, 'packaging')}")
    for job in jobs:
        if (job["metadata"].get("labels") or {}).get(ENTITY) == "packaging":
            return job, version
    raise EntityNotFoundError(
        f"packaging {packaging_id!r} does not exist in namespace {cluster.namespace!r}",
        hint="`packager pack get` lists the packagings; finished ones are deleted after ttlSecondsAfterFinished",
    )


def owned_pods(job: dict[str, Any], pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods of this Job; pods of an earlier Job with the same ID may still exist."""
    uid = job["metadata"].get("uid")
    return [pod for pod in pods if uid in [owner.get("uid") for owner in pod["metadata"].get("ownerReferences") or ()]]


def observe(cluster: Cluster, packaging_id: str) -> Observation:
    """Read the current state of a packaging.

    Raises:
        EntityNotFoundError: No packaging has this ID.
        ClusterError: The cluster rejected the request.
    """
    job, job_version = observe_job(cluster, packaging_id)
    pods, pods_version = cluster.list(PODS, labels=f"{PACKAGING_ID}={packaging_id}")
    seen = Observation(job=job, pods=owned_pods(job, pods), job_version=job_version, pods_version=pods_version)
    return seen.with_events(_events(cluster, seen))


def _events(cluster: Cluster, seen: Observation) -> list[dict[str, Any]]:
    """Return the warnings that may explain why nothing runs; nothing is requested for a running packaging."""
    metadata, pod = seen.job["metadata"], seen.newest_pod
    status = status_of(seen)
    if status.state == "scheduling" and (pod is None or pod.get("status", {}).get("phase") == "Pending"):
        uids = [metadata["uid"], *([pod["metadata"]["uid"]] if pod else [])]
        selectors = [f"involvedObject.uid={uid},type=Warning" for uid in uids]
        return [event for selector in selectors for event in cluster.list(EVENTS, fields=selector)[0]]
    if status.state == "failed" and pod is None:
        events, _ = cluster.list(EVENTS, fields="involvedObject.kind=Pod,type=Warning")
        own = re.compile(re.escape(f"{metadata['name']}-"[:_POD_PREFIX]) + "[a-z0-9]+")  # not `wine-2-x`
        since = str(metadata.get("creationTimestamp", ""))
        return [
            event
            for event in events
            if own.fullmatch(str(event["involvedObject"].get("name", "")))
            and str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp", "")) >= since
        ]
    return []


def document(job: dict[str, Any], status: Status) -> dict[str, Any]:
    """Return the `kind: ModelPackaging` document of a packaging with its status."""
    text = (job["metadata"].get("annotations") or {}).get(DOCUMENT, "{}")
    try:
        own = json.loads(text)
    except ValueError:
        own = {}
    own = own if isinstance(own, dict) else {}
    return {
        "kind": "ModelPackaging",
        "id": job["metadata"]["name"],
        "spec": own.get("spec", {}),
        "status": status.to_document(),
        "createdAt": job["metadata"].get("creationTimestamp", ""),
    }


def list_all(cluster: Cluster) -> Iterator[tuple[dict[str, Any], Status]]:
    """Yield all packagings with their status, one page in memory at a time.

    Raises:
        ClusterError: The cluster rejected the request.
    """
    for jobs, _ in cluster.pages(JOBS, labels=f"{ENTITY}=packaging"):
        names = ",".join(job["metadata"]["name"] for job in jobs)
        pods = cluster.list(PODS, labels=f"{PACKAGING_ID} in ({names})")[0] if names else []
        for job in jobs:
            yield job, status_of(Observation(job=job, pods=owned_pods(job, pods)))


def keep_results(cluster: Cluster, seen: Observation, status: Status) -> None:
    """Store the results in an annotation of the Job, where they outlive the pod.

    If the cluster rejects this, the results are available as long as the pod exists.
    """
    if not status.results or kept_results(seen.job):
        return
    try:
        # With the UID: another Job may have replaced this one.
        body = {"metadata": {"uid": seen.job["metadata"]["uid"], "annotations": {RESULTS: json.dumps(status.results)}}}
        cluster.patch(JOBS, seen.job["metadata"]["name"], body)
    except (ClusterError, RequestError) as error:
        write = log.debug if isinstance(error, (ClusterAccessError, EntityNotFoundError)) else log.warning
        write("cannot store the results in the Job: %s", error.message)
