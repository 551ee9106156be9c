"""Packagings as Jobs of a Kubernetes cluster, the same that `packager pack create` makes."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.api.entities import PackagingStatus
from packager.api.executors.base import LeftoverRun
from packager.api.executors.job_log import JobLog
from packager.errors import BuildError, ClusterError, EntityExistsError, EntityNotFoundError
from packager.kube.job import JobRequest, render_job
from packager.kube.names import DOMAIN, ENTITY, JOBS, PACKAGING_ID, PODS, SECRETS
from packager.kube.packagings import find_job, keep_results, observe, read_cluster_settings
from packager.kube.status import status_of
from packager.kube.submission import submit, wait_until_gone
from packager.system.folders import remove_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from packager.api.store.leases import Lease
    from packager.kube.cluster import Cluster
    from packager.kube.names import Kind

log = logging.getLogger(__name__)

_KIND = "kubernetes"
RUN = f"{DOMAIN}/run"  # an annotation: the service's name and the packaging's generation
_WATCH_SECONDS = 60.0
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """A Job: `kubernetes/NAMESPACE/NAME/UID`."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        """Return it as the store keeps it."""
        return f"{_KIND}/{self.namespace}/{self.name}/{self.uid}"

    @classmethod
    def parse(cls, text: str) -> JobHandle | None:
        """Read it; None when it's another executor's."""
        kind, _, rest = text.partition("/")
        parts = rest.split("/")
        if kind != _KIND or len(parts) != 3:  # noqa: PLR2004
            return None
        return cls(namespace=parts[0], name=parts[1], uid=parts[2])


class KubernetesExecutor:
    """Runs packagings as Jobs in one namespace."""

    resync_seconds = 30.0

    def __init__(self, cluster: Cluster, folder: Path, *, log_bytes: int = 256 << 20) -> None:
        """Run in the cluster's namespace, and keep logs below `folder`.

        Raises:
            OSError: The folder can't be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cluster = cluster
        self._folder = folder
        self._log_bytes = log_bytes
        self._collectors: dict[str, JobLog] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def start(self, claim: Lease) -> str:
        """Make the Job of a packaging, or find the one that was made already, and return its handle.

        Raises:
            RequestError, EntityExistsError: It can't run as it is.
            BuildError: It was started before, and its Job is gone.
            ClusterError: The cluster can't take it now.
        """
        if claim.handle:
            raise BuildError(
                f"the Job of {claim.id!r} was removed from the cluster before its end was seen",
                hint="someone deleted it, or its time was over while the service was not running; run it again",
            )
        run = f"{claim.generation}/{claim.entity.created_at}"  # the second tells it from another service's
        settings = read_cluster_settings(self._cluster)
        settings = settings.model_copy(update={"annotations": {**settings.annotations, RUN: run}})
        request = JobRequest(
            manifest=claim.manifest(),
            settings=settings,
            namespace=self._cluster.namespace,
            attempt=secrets.token_hex(3),
        )
        render_job(request)
        old = self._job(claim.id)
        if old is not None:
            if _run_of(old) == run and self._has_secret(old):
                return str(self._handle(old))
            if not _run_of(old):
                raise EntityExistsError(
                    f"the cluster has a Job {claim.id!r} that this service has not made",
                    hint="delete it (`packager pack delete`), or give the packaging another id",
                )
            self._remove(self._handle(old))
        return str(self._handle(submit(self._cluster, request)))

    def observe(self, handle: str) -> PackagingStatus | None:
        """Tell what has become of a Job; None when it's gone. When it has ended, its whole log is on disk.

        Raises:
            ClusterError: The cluster can't be asked.
        """
        wanted = JobHandle.parse(handle)
        if wanted is None:
            return None
        try:
            seen = observe(self._cluster, wanted.name)
        except EntityNotFoundError:
            return None
        if seen.job["metadata"]["uid"] != wanted.uid:
            return None
        status = status_of(seen)
        if status.is_final:
            keep_results(self._cluster, seen, status)
            self._collector(wanted).finish()
        return PackagingStatus.model_validate(status.to_document())

    def stop(self, handle: str) -> None:
        """Delete a Job and return when its pods are gone; no error when there is none.

        Raises:
            ClusterError: The cluster refuses, or has not removed it yet.
        """
        wanted = JobHandle.parse(handle)
        job = self._job(wanted.name) if wanted else None
        if wanted and job and job["metadata"]["uid"] == wanted.uid:
            self._remove(wanted)

    def log(self, handle: str) -> Path | None:
        """Return the folder that a Job's log is in, which is being written as long as it runs."""
        wanted = JobHandle.parse(handle)
        if wanted is None:
            return None
        collector = self._collector(wanted)
        collector.begin()
        return collector.log

    def finalize(self, handle: str) -> None:
        """Do nothing: the Job goes when its time is over (`ttlSecondsAfterFinished`)."""

    def purge(self, handle: str) -> None:
        """Remove the log of a Job that is no more."""
        wanted = JobHandle.parse(handle)
        if wanted is None:
            return
        with self._lock:
            collector = self._collectors.pop(handle, None)
        if collector is not None:
            collector.leave()
        folder = self._log_folder(wanted)
        if folder.exists():
            remove_folder(folder)

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handle of the Job of one generation of a packaging, if there is one.

        Raises:
            ClusterError: The cluster can't be asked.
        """
        job = self._job(packaging_id)
        found = job is not None and _run_of(job).partition("/")[0] == str(generation)
        return [str(self._handle(job))] if job is not None and found else []

    def runs(self) -> Iterator[LeftoverRun]:
        """Give every run that has left a log here."""
        for path in self._folder.iterdir():
            name, _, uid = path.name.partition(".")
            if name and uid:
                with suppress(FileNotFoundError):
                    handle = JobHandle(namespace=self._cluster.namespace, name=name, uid=uid)
                    changed = max(each.stat().st_mtime for each in (path, *path.glob("log/*")))
                    yield LeftoverRun(packaging_id=name, generation=None, handle=str(handle), changed=changed)

    def close(self) -> None:
        """End the watches; Jobs are the cluster's."""
        self._closed.set()

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Call `on_change` with a packaging's id whenever its Job or one of its pods has changed, from now on."""
        for kind in (JOBS, PODS):
            threading.Thread(
                target=self._watch, args=(kind, on_change), daemon=True, name=f"watch-{kind.plural}"
            ).start()

    def _watch(self, kind: Kind, on_change: Callable[[str], None]) -> None:
        while not self._closed.is_set():
            try:
                self._watch_once(kind, on_change)
                continue
            except ClusterError as error:
                trouble = error.message
            except Exception as error:  # noqa: BLE001  (nobody would see that the watch has ended)
                trouble = f"{type(error).__name__}: {error}"
            if not self._closed.wait(_PAUSE_SECONDS):
                log.warning("the %s can't be watched: %s", kind.plural, trouble)

    def _watch_once(self, kind: Kind, on_change: Callable[[str], None]) -> None:
        labels = f"{ENTITY}=packaging"
        objects, version = self._cluster.list(kind, labels=labels)
        for each in objects:
            on_change(_packaging_id(each))
        for event in self._cluster.watch(kind, labels=labels, version=version, seconds=_WATCH_SECONDS):
            if event.get("type") != "BOOKMARK":
                on_change(_packaging_id(event["object"]))

    def _job(self, name: str) -> dict[str, Any] | None:
        try:
            return find_job(self._cluster, name)
        except EntityNotFoundError:
            return None

    def _remove(self, handle: JobHandle) -> None:
        with suppress(EntityNotFoundError):
            self._cluster.delete(JOBS, handle.name, uid=handle.uid, propagation="Foreground")
        wait_until_gone(self._cluster, handle.name, handle.uid)

    def _has_secret(self, job: dict[str, Any]) -> bool:
        """Tell whether the Job's Secret was made as well, or the service was killed in between."""
        volumes = job["spec"]["template"]["spec"]["volumes"]
        name = next(volume["secret"]["secretName"] for volume in volumes if volume["name"] == "packaging")
        try:
            self._cluster.get(SECRETS, name)
        except EntityNotFoundError:
            return False
        return True

    def _handle(self, job: dict[str, Any]) -> JobHandle:
        metadata = job["metadata"]
        return JobHandle(namespace=self._cluster.namespace, name=metadata["name"], uid=metadata["uid"])

    def _log_folder(self, handle: JobHandle) -> Path:
        return self._folder / f"{handle.name}.{handle.uid}"

    def _collector(self, handle: JobHandle) -> JobLog:
        with self._lock:
            found = self._collectors.get(str(handle))
            if found is None:
                folder = self._log_folder(handle)
                found = JobLog(self._cluster, handle.name, handle.uid, folder, most_bytes=self._log_bytes)
                self._collectors[str(handle)] = found
            return found


def _run_of(job: dict[str, Any]) -> str:
    return str((job["metadata"].get("annotations") or {}).get(RUN, ""))


def _packaging_id(each: dict[str, Any]) -> str:
    return str((each["metadata"].get("labels") or {}).get(PACKAGING_ID, ""))
