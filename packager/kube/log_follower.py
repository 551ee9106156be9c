"""Following a packaging to its end: its states as they change, and its log as it's written.

Every round looks at the whole state anew and then waits for any change of it. So a watch that expires, that is cut, or
whose version is too old costs nothing but a round. A cluster that stops answering is given some minutes, because
control planes are upgraded while their pods go on.
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

_ROUND_SECONDS = 10.0  # events come by no watch of ours, so they are looked for that often
_LOG_SECONDS = 60.0  # without a line; then the state is looked at
_BREAKS = 5  # of one log in a row, then it is left
_PAUSE_SECONDS = 0.5  # before the next round, where a watch or a log ended at once
_PATIENCE_SECONDS = 300.0  # with a cluster that answered before and now doesn't
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\S+")


@dataclass(kw_only=True)
class Follower:
    """Follows one packaging.

    Attributes:
        cluster: Where it runs.
        packaging_id: Which.
        on_line: Gets each line of its log, once, from all attempts.
        on_status: Gets each status that differs from the last.
        clock: Gives seconds.
        uid: Of the packaging's Job; the first that is seen, when it isn't known.
        lines: How many lines of its log were given.
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
    _odd: set[tuple[str, str]] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _broken: dict[str, int] = field(default_factory=dict)
    _last_times: dict[str, str] = field(default_factory=dict)

    def follow(self, seconds: float) -> Status:
        """Follow it for at most that many seconds, and return its last status.

        Raises:
            WaitTimeoutError: It has not ended; it goes on.
            EntityNotFoundError: It was deleted, or run again by someone.
            ClusterError: The cluster refuses, or can't be reached any more.
        """
        end = self.clock() + seconds
        while True:
            try:
                status = self._round(end, seconds)
                self._lost_since = None
            except ClusterError as error:
                self._bear(error, end)
                continue
            if status.is_final and not self._broken:
                return status

    def _round(self, end: float, seconds: float) -> Status:
        """Look at it, read on in its log, and wait for a change where there is nothing to read."""
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
                f"packaging {self.packaging_id!r} has not ended in {seconds:.0f} s; it is {status.state}"
                + (f": {status.reason}: {status.message}" if status.reason else ""),
                hint=status.hint or f"it goes on: packager pack logs --id {self.packaging_id}",
            )
        elif not read:
            self._wait_for_change(seen, min(_ROUND_SECONDS, end - self.clock()))
        return status

    def _bear(self, error: ClusterError, end: float) -> None:
        """Pause after an error that may pass; raise it when it's none, or has lasted too long."""
        if not error.retryable or not self.uid:
            raise error
        if self._lost_since is None:
            self._lost_since = self.clock()
            log.warning("%s; the packaging goes on, and so does the waiting", error.message)
        if self.clock() >= min(end, self._lost_since + _PATIENCE_SECONDS):
            raise error
        time.sleep(_PAUSE_SECONDS)

    def read_log(self) -> None:
        """Read the log up to now, of all attempts.

        Raises:
            EntityNotFoundError: There is no such packaging.
            ClusterError: The cluster refuses.
        """
        seen = self._observe()
        self._read_logs(seen, self.clock() + _LOG_SECONDS, follow=False)

    def _observe(self) -> Observation:
        seen = observe(self.cluster, self.packaging_id)
        uid = str(seen.job["metadata"]["uid"])
        if self.uid not in {"", uid}:
            raise EntityNotFoundError(
                f"the packaging {self.packaging_id!r} was put in the place of the one that was followed",
                hint="someone ran `packager pack edit`; `packager pack logs` follows the new one",
            )
        self.uid = uid
        return seen

    def _read_logs(self, seen: Observation, end: float, *, follow: bool = True) -> bool:
        """Read on in the logs of pods that have begun; tells whether anything came."""
        read = False
        for pod in sorted(seen.pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
            uid, state = str(pod["metadata"]["uid"]), _container_state(pod)
            if uid in self._ended or not {"running", "terminated"} & state.keys():
                continue
            try:
                read |= self._read_pod_log(pod, end, follow=follow)
            except BrokenOffError:
                self._broken[uid] = self._broken.get(uid, 0) + 1
                if self._broken[uid] < _BREAKS:
                    continue
            except (ClusterAccessError, ClusterUnreachableError):
                raise
            except (ClusterError, RequestError) as error:  # the pod or its node went, or it's not quite there yet
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
            moment, _, text = line.partition(" ")
            if not _MOMENT.fullmatch(moment):  # the node's own words in the log's place, e.g. that it's gone
                if (uid, line) not in self._odd:
                    self._odd.add((uid, line))
                    self._give(line)
                continue
            if last and _order(moment) <= _order(last):
                continue
            self._last_times[uid] = last = moment
            self._give(text)
            if follow and self.clock() >= end:
                break
        return last != before

    def _give(self, text: str) -> None:
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


def _order(moment: str) -> tuple[str, str]:
    """Make a time comparable: `2026-01-02T03:04:05.6Z`, with as many digits of the second as it needs."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return whole, fraction.ljust(9, "0")
