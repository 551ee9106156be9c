"""Packagings in a cluster: what they name, how they stand, how they go. Their state lives in the cluster alone."""

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
from packager.kube.resolve import FileShelf
from packager.kube.status import Observation, Status, kept_results, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.kube.cluster import Cluster
    from packager.models.connection import Connection
    from packager.models.documents import Documents
    from packager.models.packaging import PackagingIntegration

log = logging.getLogger(__name__)

_POD_PREFIX = 58  # characters of a pod's name before its own five, as Kubernetes cuts it (apiserver/storage/names)


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
        own = re.compile(re.escape(f"{metadata['name']}-"[:_POD_PREFIX]) + "[a-z0-9]+")  # `wine-2-x` is another's
        since = str(metadata.get("creationTimestamp", ""))
        return [
            event
            for event in events
            if own.fullmatch(str(event["involvedObject"].get("name", "")))
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
    own = own if isinstance(own, dict) else {}
    return {
        "kind": "ModelPackaging",
        "id": job["metadata"]["name"],
        "spec": own.get("spec", {}),
        "status": status.to_document(),
        "createdAt": job["metadata"].get("creationTimestamp", ""),
    }


def list_all(cluster: Cluster) -> Iterator[tuple[dict[str, Any], Status]]:
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
    """Write the results into the Job, so that they outlive the pod; whoever may do that and sees them first does.

    Where the cluster refuses, for whatever reason, they are seen all the same, as long as the pod is there.
    """
    if not status.results or kept_results(seen.job):
        return
    try:
        # With its uid, for someone may have put another Job into its place meanwhile.
        body = {"metadata": {"uid": seen.job["metadata"]["uid"], "annotations": {RESULTS: json.dumps(status.results)}}}
        cluster.patch(JOBS, seen.job["metadata"]["name"], body)
    except (ClusterError, RequestError) as error:
        tell = log.debug if isinstance(error, (ClusterAccessError, EntityNotFoundError)) else log.warning
        tell("the results are not kept in the Job: %s", error.message)
