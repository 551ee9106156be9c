"""Follows a packaging until it ends: its status as it changes, and its log as it is written.

Every round reads the whole state again and then waits for a change. So a watch that expires, breaks or is too old costs
one more round only. An unresponsive cluster is tolerated for some minutes, because control planes are upgraded while
pods continue to run.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packager.errors import (
    ClusterAccessError,
    ClusterError,
    ClusterUnreachableError,
    EntityNotFoundError,
    RequestError,
    WaitTimeoutError,
)
from packager.kube.api_errors import BrokenOffError
from packager.kube.names import CONTAINER, JOBS, PACKAGING_ID, PODS
from packager.kube.packagings import keep_results, observe
from packager.kube.status import Observation, Status, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_ROUND_SECONDS = 10.0  # events are not watched, so they are read this often
_LOG_SECONDS = 60.0  # without a line; then the state is read again
_MAX_BREAKS = 5  # consecutive broken connections of one log, after which it is given up
_PAUSE_SECONDS = 0.5  # before the next round, if a watch or a log ended at once
_MAX_OUTAGE_SECONDS = 300.0  # of a cluster that responded before
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+")


@dataclass(kw_only=True)
class Follower:
    """Follows one packaging.

    Attributes:
        cluster: The cluster.
        packaging_id: The ID of the packaging.
        on_line: Called with each line of the log, once, of all attempts.
        on_status: Called with each status that differs from the last.
        clock: Returns the time in seconds.
        uid: The UID of the Job; empty: that of the first Job observed.
        lines: The number of log lines so far.
    """

    cluster: Cluster
    packaging_id: str
    on_line: Callable[[str], None]
    on_status: Callable[[Status], None] = lambda _status: None
    clock: Callable[[], float] = time.monotonic
    uid: str = ""
    lines: int = 0
    _last: Status | None = None
    _lost_since: float | None = None
    _messages: set[tuple[str, str]] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _broken: dict[str, int] = field(default_factory=dict)
    _last_times: dict[str, str] = field(default_factory=dict)

    def follow(self, seconds: float) -> Status:
        """Follow the packaging for at most that many seconds, and return its last status.

        Raises:
            WaitTimeoutError: The packaging has not ended; it continues.
            EntityNotFoundError: The packaging was deleted or run again.
            ClusterError: The cluster rejected a request or became unreachable.
        """
        end = self.clock() + seconds
        while True:
            try:
                status = self._round(end, seconds)
                self._lost_since = None
            except ClusterError as error:
                self._tolerate(error, end)
                continue
            if status.is_final and not self._broken:
                return status

    def _round(self, end: float, seconds: float) -> Status:
        """Read the state and the rest of the log; wait for a change if there was nothing to read."""
        seen = self._observe()
        status = status_of(seen)
        if status != self._last:
            self.on_status(status)
        self._last = status
        read = self._read_logs(seen, end)
        if status.is_final and not self._broken:
            keep_results(self.cluster, seen, status)
        elif self.clock() >= end:
            raise WaitTimeoutError(
                f"packaging {self.packaging_id!r} has not ended after {seconds:.0f} s; its state is {status.state}"
                + (f": {status.reason}: {status.message}" if status.reason else ""),
                hint=status.hint or f"it continues: packager pack logs --id {self.packaging_id}",
            )
        elif not read:
            self._wait_for_change(seen, min(_ROUND_SECONDS, end - self.clock()))
        return status

    def _tolerate(self, error: ClusterError, end: float) -> None:
        """Pause after a retryable error; raise another one, or one that has lasted too long."""
        if not error.retryable or not self.uid:
            raise error
        if self._lost_since is None:
            self._lost_since = self.clock()
            log.warning("%s; the packaging continues, still waiting for it", error.message)
        if self.clock() >= min(end, self._lost_since + _MAX_OUTAGE_SECONDS):
            raise error
        time.sleep(_PAUSE_SECONDS)

    def read_log(self) -> None:
        """Read the log of all attempts up to now.

        Raises:
            EntityNotFoundError: The packaging does not exist.
            ClusterError: The cluster rejected a request.
        """
        seen = self._observe()
        self._read_logs(seen, self.clock() + _LOG_SECONDS, follow=False)

    def _observe(self) -> Observation:
        seen = observe(self.cluster, self.packaging_id)
        uid = str(seen.job["metadata"]["uid"])
        if self.uid not in {"", uid}:
            raise EntityNotFoundError(
                f"packaging {self.packaging_id!r} was run again while it was followed",
                hint="`packager pack logs` follows the new run",
            )
        self.uid = uid
        return seen

    def _read_logs(self, seen: Observation, end: float, *, follow: bool = True) -> bool:
        """Read the rest of the logs of started pods; return whether there was any."""
        read = False
        for pod in sorted(seen.pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
            uid, state = str(pod["metadata"]["uid"]), _container_state(pod)
            if uid in self._ended or not {"running", "terminated"} & state.keys():
                continue
            try:
                read |= self._read_pod_log(pod, end, follow=follow)
            except BrokenOffError:
                self._broken[uid] = self._broken.get(uid, 0) + 1
                if self._broken[uid] < _MAX_BREAKS:
                    continue
            except (ClusterAccessError, ClusterUnreachableError):
                raise
            except (
                ClusterError,
                RequestError,
            ) as error:  # the pod is lost, or is starting
                log.debug("no log of %s: %s", pod["metadata"]["name"], error.message)
            self._broken.pop(uid, None)
            if "terminated" in state:
                self._ended.add(uid)
        return read

    def _read_pod_log(self, pod: dict[str, Any], end: float, *, follow: bool) -> bool:
        name, uid = str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
        before = last = self._last_times.get(uid, "")
        seconds = min(_LOG_SECONDS, max(1.0, end - self.clock()))
        for line in self.cluster.log_lines(name, CONTAINER, follow=follow, since=last, seconds=seconds):
            timestamp, _, text = line.partition(" ")
            if not _TIMESTAMP.fullmatch(timestamp):  # a message of the node instead of the log
                if (uid, line) not in self._messages:
                    self._messages.add((uid, line))
                    self._emit(line)
                continue
            if last and timestamp_key(timestamp) <= timestamp_key(last):
                continue
            self._last_times[uid] = last = timestamp
            self._emit(text)
            if follow and self.clock() >= end:
                break
        return last != before

    def _emit(self, text: str) -> None:
        self.lines += 1
        self.on_line(text)

    def _wait_for_change(self, seen: Observation, seconds: float) -> None:
        pod = seen.newest_pod
        began = self.clock()
        if pod and pod.get("status", {}).get("phase") in {"Pending", "Running"}:
            labels = f"{PACKAGING_ID}={self.packaging_id}"
            events = self.cluster.watch(PODS, labels=labels, version=seen.pods_version, seconds=seconds)
        else:
            fields = f"metadata.name={self.packaging_id}"
            events = self.cluster.watch(JOBS, fields=fields, version=seen.job_version, seconds=seconds)
        if any(event.get("type") != "BOOKMARK" for event in events):
            return
        if self.clock() - began < _PAUSE_SECONDS:
            time.sleep(_PAUSE_SECONDS)


def _container_state(pod: dict[str, Any]) -> dict[str, Any]:
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            state: dict[str, Any] = container.get("state") or {}
            return state
    return {}


def timestamp_key(timestamp: str) -> tuple[str, str]:
    """Make timestamps such as `2026-01-02T03:04:05.6Z` comparable, which have as many digits as needed."""
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    return whole, fraction.ljust(9, "0")
