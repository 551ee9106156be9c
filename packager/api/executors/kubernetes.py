"""Packagings as Jobs of a Kubernetes cluster, the same as those of `packager pack create`."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.api.entities import PackagingStatus
from packager.api.executors.base import LeftoverRun
from packager.api.log_files import LogWriter
from packager.errors import BuildError, ClusterError, EntityExistsError, EntityNotFoundError, PackagerError
from packager.kube.job import JobRequest, render_job
from packager.kube.log_follower import Follower
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
RUN = f"{DOMAIN}/run"  # an annotation: the generation and the creation time of the packaging
_WATCH_SECONDS = 60.0
_PAUSE_SECONDS = 5.0
_MAX_FOLLOW_SECONDS = 30 * 86_400.0
_READY_SECONDS = 10.0  # time limit for the existing part of a log
_LAST_SECONDS = 60.0  # time limit for the end of a log after its Job has ended


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """A Job: `kubernetes/NAMESPACE/NAME/UID`."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        """Return the handle as text."""
        return f"{_KIND}/{self.namespace}/{self.name}/{self.uid}"

    @classmethod
    def parse(cls, text: str) -> JobHandle | None:
        """Parse a handle; None for a handle of another executor."""
        kind, _, rest = text.partition("/")
        parts = rest.split("/")
        if kind != _KIND or len(parts) != 3:  # noqa: PLR2004
            return None
        return cls(namespace=parts[0], name=parts[1], uid=parts[2])


class KubernetesExecutor:
    """Runs packagings as Jobs in one namespace."""

    resync_seconds = 30.0

    def __init__(self, cluster: Cluster, folder: Path, *, log_bytes: int = 256 << 20) -> None:
        """Run Jobs in the cluster's namespace, and store logs below `folder`.

        Raises:
            OSError: The folder cannot be created.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cluster = cluster
        self._folder = folder
        self._log_bytes = log_bytes
        self._logs: dict[str, JobLog] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def start(self, lease: Lease, /) -> str:
        """Create the Job of a packaging, or find the existing one, and return its handle.

        Raises:
            RequestError, EntityExistsError: The packaging can never run.
            BuildError: Its Job was removed from the cluster.
            ClusterError: The cluster cannot run it at the moment.
        """
        if lease.handle:
            raise BuildError(
                f"the Job of {lease.id!r} was removed from the cluster before its result was recorded",
                hint="it was deleted, or it expired while the service was down; edit the packaging to run it again",
            )
        run = f"{lease.generation}/{lease.entity.created_at}"  # the time distinguishes it from another service's
        settings = read_cluster_settings(self._cluster)
        settings = settings.model_copy(update={"annotations": {**settings.annotations, RUN: run}})
        request = JobRequest(
            manifest=lease.manifest(),
            settings=settings,
            namespace=self._cluster.namespace,
            attempt=secrets.token_hex(3),
        )
        render_job(request)
        old = self._job(lease.id)
        if old is not None:
            if _run_of(old) == run and self._has_secret(old):
                return str(self._handle(old))
            if not _run_of(old):
                raise EntityExistsError(
                    f"the cluster has a Job {lease.id!r} that this service did not create",
                    hint="delete it (`packager pack delete`), or use another ID for the packaging",
                )
            self._remove(self._handle(old))
        return str(self._handle(submit(self._cluster, request)))

    def observe(self, handle: str) -> PackagingStatus | None:
        """Return the status of a Job, after its end with its whole log on disk; None if the Job is gone.

        Raises:
            ClusterError: The cluster does not answer.
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
            self._log(wanted).finish()
        return PackagingStatus.model_validate(status.to_document())

    def stop(self, handle: str) -> None:
        """Delete a Job and wait until its pods are gone; do nothing if it does not exist.

        Raises:
            ClusterError: The cluster refuses, or has not deleted it yet.
        """
        wanted = JobHandle.parse(handle)
        job = self._job(wanted.name) if wanted else None
        if wanted and job and job["metadata"]["uid"] == wanted.uid:
            self._remove(wanted)

    def log(self, handle: str) -> Path | None:
        """Return the folder of a Job's log, which is written while the Job runs."""
        wanted = JobHandle.parse(handle)
        if wanted is None:
            return None
        job_log = self._log(wanted)
        job_log.begin()
        return job_log.log

    def finalize(self, handle: str) -> None:
        """Do nothing: the Job expires (`ttlSecondsAfterFinished`)."""

    def purge(self, handle: str) -> None:
        """Remove the log of a deleted Job."""
        wanted = JobHandle.parse(handle)
        if wanted is None:
            return
        with self._lock:
            job_log = self._logs.pop(handle, None)
        if job_log is not None:
            job_log.leave()
        folder = self._log_folder(wanted)
        if folder.exists():
            remove_folder(folder)

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handle of the Job of one generation of a packaging, if it exists.

        Raises:
            ClusterError: The cluster does not answer.
        """
        job = self._job(packaging_id)
        found = job is not None and _run_of(job).partition("/")[0] == str(generation)
        return [str(self._handle(job))] if job is not None and found else []

    def runs(self) -> Iterator[LeftoverRun]:
        """Return all runs that have a log here."""
        for path in self._folder.iterdir():
            name, _, uid = path.name.partition(".")
            if name and uid:
                with suppress(FileNotFoundError):
                    handle = JobHandle(namespace=self._cluster.namespace, name=name, uid=uid)
                    changed = max(each.stat().st_mtime for each in (path, *path.glob("log/*")))
                    yield LeftoverRun(packaging_id=name, generation=None, handle=str(handle), changed=changed)

    def close(self) -> None:
        """Stop the watches; Jobs continue."""
        self._closed.set()

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Call `on_change` with the ID of a packaging when its Job or one of its pods has changed."""
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
                reason = error.message
            except Exception as error:  # noqa: BLE001  (the watch must go on)
                reason = f"{type(error).__name__}: {error}"
            if not self._closed.wait(_PAUSE_SECONDS):
                log.warning("cannot watch the %s: %s", kind.plural, reason)

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
        """Return whether the Job has its Secret; the service may have been killed before creating it."""
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

    def _log(self, handle: JobHandle) -> JobLog:
        with self._lock:
            found = self._logs.get(str(handle))
            if found is None:
                folder = self._log_folder(handle)
                found = JobLog(self._cluster, handle.name, handle.uid, folder, most_bytes=self._log_bytes)
                self._logs[str(handle)] = found
            return found


class JobLog:
    """Downloads the log of one Job from the API server, once for all readers."""

    def __init__(self, cluster: Cluster, packaging_id: str, uid: str, folder: Path, *, most_bytes: int) -> None:
        """Write the log of the Job with that UID below `folder`."""
        self.log = folder / "log"
        self._complete = folder / "complete"
        self._most_bytes = most_bytes
        self._follower = Follower(cluster=cluster, packaging_id=packaging_id, uid=uid, on_line=self._write)
        self._writer: LogWriter | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._is_closed = False

    def begin(self) -> None:
        """Start the download unless it is running or complete; return when the existing part of the log is on disk."""
        with self._lock:
            if self._complete.exists() or self._is_closed:
                return
            if self._thread is None or not self._thread.is_alive():
                self._open()
                self._ready.clear()
                self._thread = threading.Thread(target=self._follow, daemon=True, name="job-log")
                self._thread.start()
        self._ready.wait(_READY_SECONDS)

    def finish(self) -> None:
        """Download the rest of the log after the end of the Job."""
        thread = self._thread
        if thread is not None:
            thread.join(_LAST_SECONDS)
        with self._lock:
            if self._complete.exists() or self._is_closed or (self._thread is not None and self._thread.is_alive()):
                return
            try:
                self._open()
                self._follower.read_log()
            except PackagerError as error:
                log.warning("cannot download the log of %s: %s", self._follower.packaging_id, error.message)
            except OSError as error:  # a full disk must not hide the end of the Job
                log.warning("cannot store the log of %s: %s", self._follower.packaging_id, error.strerror)
            with suppress(OSError):
                self._complete.touch()
            self._close()

    def leave(self) -> None:
        """Stop writing."""
        with self._lock:
            self._is_closed = True
            self._close()

    def _follow(self) -> None:
        try:
            self._follower.read_log()
            self._ready.set()
            self._follower.follow(_MAX_FOLLOW_SECONDS)
        except EntityNotFoundError:
            log.debug("the Job of %s is gone", self._follower.packaging_id)
        except PackagerError as error:
            log.warning("the download of the log of %s has failed: %s", self._follower.packaging_id, error.message)
        except OSError as error:
            log.warning("cannot store the log of %s: %s", self._follower.packaging_id, error.strerror)
        finally:
            self._ready.set()

    def _open(self) -> None:
        """Start from the beginning in a new process: the file may be incomplete, but the cluster has the whole log."""
        if self._writer is None:
            if self.log.exists():
                remove_folder(self.log)
            self._writer = LogWriter(self.log, most_bytes=self._most_bytes)

    def _write(self, line: str) -> None:
        if self._writer is not None and not self._is_closed:
            self._writer.write_line(line)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _run_of(job: dict[str, Any]) -> str:
    return str((job["metadata"].get("annotations") or {}).get(RUN, ""))


def _packaging_id(each: dict[str, Any]) -> str:
    return str((each["metadata"].get("labels") or {}).get(PACKAGING_ID, ""))
