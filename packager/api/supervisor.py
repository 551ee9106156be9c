"""The loop that runs packagings: takes their leases, starts and observes their runs, and stores their status.

Its memory is disposable: the store and the executor have all state. It may run a packaging as long as it renews the
lease. Starting is idempotent: for a started run, the executor returns the same handle again.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import OperationalError

from packager.api.entities import PackagingStatus, with_hint
from packager.api.garbage_collector import GarbageCollector
from packager.api.store.database import driver_message
from packager.errors import BuildError, EntityExistsError, PackagerError, RequestError

if TYPE_CHECKING:
    from packager.api.executors.base import Executor
    from packager.api.store.leases import Lease, OrphanedRun
    from packager.api.store.run_repository import RunRepository

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")
_FINAL_ERRORS = (RequestError, BuildError, EntityExistsError)  # not retryable
_THREADS = 8
_DATABASE_DOWN = "the database does not answer"
_MAX_RETRY_SECONDS = 60.0
_MIN_STOP_SECONDS = 1.0  # for the threads, even if the stop is late


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """Settings of the supervisor.

    Attributes:
        owner: Name of this service in the leases.
        max_running: Maximum number of concurrent runs.
        lease: Duration of a lease; another service takes over after it.
        pause: Seconds between two rounds if nothing wakes the loop.
        retry_seconds: Seconds before the first retry of a failed step; doubled for each further failed start.
        collect_seconds: Seconds between two runs of the garbage collector.
        log_days: Days to keep the log of an ended packaging.
        stop_seconds: Time limit of unfinished work after a stop, in seconds.
    """

    owner: str
    max_running: int = 4
    lease: timedelta = timedelta(seconds=30)
    pause: float = 1.0
    retry_seconds: float = 2.0
    collect_seconds: float = 300.0
    log_days: float = 30.0
    stop_seconds: float = 10.0


@dataclass(kw_only=True)
class _Tracked:
    """A packaging that this service runs.

    Attributes:
        retry_pause: Seconds before the next retry of a failed start.
        task: The unfinished work for it.
        next_check: Time of the next observation or retry (time.monotonic()).
        status: The last stored status.
    """

    lease: Lease
    retry_pause: float
    task: Future[bool] | None = None
    next_check: float = 0.0
    status: PackagingStatus | None = None


class Supervisor:
    """Runs packagings in threads of its own, from `start` to `close`."""

    def __init__(self, runs: RunRepository, executor: Executor, config: SupervisorConfig) -> None:
        """Run the packagings of a repository with an executor."""
        self._runs = runs
        self._executor = executor
        self._config = config
        self._tracked: dict[str, _Tracked] = {}
        self._stopping: dict[int, Future[None]] = {}
        self._stop_after: dict[int, float] = {}  # next attempt to stop an orphaned run
        self._renew_at = self._collect_at = 0.0
        self._collecting: Future[None] | None = None
        self._collector = GarbageCollector(runs, executor, is_busy=self._tracked.__contains__, log_days=config.log_days)
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._stop_deadline = 0.0  # time.monotonic()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="packagings")
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the loop; it takes over the runs of an earlier process of this service at once."""
        self._runs.release_all(self._config.owner)
        self._executor.watch(self._changed)
        self._thread.start()

    def wake(self) -> None:
        """Start the next round now."""
        self._awake.set()

    def stop(self) -> None:
        """Start nothing more; runs continue, and the next process of this service takes them over."""
        if not self._closing.is_set():
            self._stop_deadline = time.monotonic() + self._config.stop_seconds
            self._closing.set()
        self._awake.set()

    def close(self) -> bool:
        """Stop, and wait for unfinished work; False: some of it exceeds the time limit and continues.

        An interruption is harmless: the next process repeats work that is not in the store yet.
        """
        self.stop()
        waiter = threading.Thread(target=self._join_threads, name="supervisor-stop", daemon=True)
        waiter.start()
        waiter.join(max(self._stop_deadline - time.monotonic(), _MIN_STOP_SECONDS))
        if waiter.is_alive():
            log.info("unfinished work takes too long and is left to the next process of this service")
        return not waiter.is_alive()

    def _join_threads(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def running(self) -> int:
        """The number of packagings that this service runs."""
        return len(self._tracked)

    def _changed(self, packaging_id: str) -> None:
        tracked = self._tracked.get(packaging_id)
        if tracked is not None:
            tracked.next_check = 0.0
            self._awake.set()

    def _loop(self) -> None:
        is_down = False
        while not self._closing.is_set():
            try:
                self.round()
                is_down = False
            except OperationalError as error:
                if not is_down:
                    log.warning("%s; retrying until it does: %s", _DATABASE_DOWN, driver_message(error))
                is_down = True
            except Exception:
                log.exception("unexpected error in the supervisor; it continues with the next round")
            self._awake.wait(self._config.pause)
            self._awake.clear()

    def round(self) -> None:
        """Do all due work; slow work is started in other threads."""
        self._handle_finished()
        self._renew()
        try:
            self._stop_orphans()
            self._claim_more()
        finally:  # a failed claim must not delay the runs
            self._advance_due()
            self._collect_garbage()

    def _handle_finished(self) -> None:
        """Handle the outcomes of the other threads."""
        for packaging_id, tracked in list(self._tracked.items()):
            if tracked.task is None or not tracked.task.done():
                continue
            task, tracked.task = tracked.task, None
            if task.exception() is not None:
                tracked.next_check = time.monotonic() + self._config.retry_seconds
            if not _outcome(task, f"packaging {packaging_id!r}", default=True):
                del self._tracked[packaging_id]
        for number, stopping in list(self._stopping.items()):
            if stopping.done():
                del self._stopping[number]
                _outcome(stopping, "an orphaned run", default=None)
                self._stop_after[number] = time.monotonic() + self._config.retry_seconds

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renew_at:
            return
        self._renew_at = now + self._config.lease.total_seconds() / 3
        for packaging_id, tracked in list(self._tracked.items()):
            if not self._runs.renew(tracked.lease, self._config.lease) and tracked.task is None:
                log.info("lost the lease of packaging %r", packaging_id)
                del self._tracked[packaging_id]
                self._collect_at = min(self._collect_at, now + self._config.lease.total_seconds())

    def _stop_orphans(self) -> None:
        orphans = self._runs.orphans()
        now, numbers = time.monotonic(), {orphaned.number for orphaned in orphans}
        self._stop_after = {number: after for number, after in self._stop_after.items() if number in numbers}
        for orphaned in orphans:
            if orphaned.number in self._stopping or self._stop_after.get(orphaned.number, 0.0) > now:
                continue
            if not self._is_ours(orphaned):
                continue
            tracked = self._tracked.get(orphaned.packaging_id)
            if tracked is not None and tracked.lease.generation == orphaned.generation:
                if tracked.task is not None:
                    continue  # it may be about to start
                del self._tracked[orphaned.packaging_id]
            self._stopping[orphaned.number] = self._pool.submit(self._stop_orphan, orphaned)

    def _is_ours(self, orphaned: OrphanedRun) -> bool:
        """Return whether this service owned the run, or its owner is gone."""
        if orphaned.owner in {None, self._config.owner} or orphaned.lease_until is None:
            return True
        return datetime.now(timezone.utc) > orphaned.lease_until + self._config.lease

    def _stop_orphan(self, orphaned: OrphanedRun) -> None:
        handles = [orphaned.handle] if orphaned.handle else []
        for handle in {*handles, *self._executor.find(orphaned.packaging_id, orphaned.generation)}:
            self._executor.stop(handle)
            self._executor.purge(handle)
        self._runs.remove_orphan(orphaned)
        self._awake.set()  # the packaging's next run may start now

    def _claim_more(self) -> None:
        free = self._config.max_running - len(self._tracked)
        if free > 0:
            for lease in self._runs.claim(self._config.owner, free, self._config.lease):
                tracked = self._tracked.get(lease.id)
                if tracked is None or tracked.lease.generation != lease.generation:  # else our own lease had expired
                    self._tracked[lease.id] = _Tracked(
                        lease=lease, status=lease.entity.status, retry_pause=self._config.retry_seconds
                    )

    def _advance_due(self) -> None:
        now = time.monotonic()
        for tracked in self._tracked.values():
            if tracked.task is None and tracked.next_check <= now:
                tracked.next_check = now + self._executor.resync_seconds  # `_changed` may reset it in the meantime
                tracked.task = self._pool.submit(self._work, tracked)

    def _work(self, tracked: _Tracked) -> bool:
        """Start or observe a run; False: it has ended or is no longer ours."""
        try:
            return self._advance(tracked)
        finally:
            self._awake.set()

    def _advance(self, tracked: _Tracked) -> bool:
        lease = tracked.lease
        status = self._executor.observe(lease.handle) if lease.handle else None
        if status is None:
            try:
                status = self._begin(tracked)
            except PackagerError as error:
                return self._handle_failed_start(tracked, error)
            if status is None:
                return False
        if not self._record(tracked, status):
            return False
        if status.is_final and tracked.lease.handle:
            self._executor.finalize(tracked.lease.handle)
        return not status.is_final

    def _begin(self, tracked: _Tracked) -> PackagingStatus | None:
        """Start a run, or another attempt after a lost one; None: the lease was lost.

        Raises:
            PackagerError: The run cannot be started.
        """
        if tracked.lease.handle:
            log.warning("the run %s of packaging %r is lost", tracked.lease.handle, tracked.lease.id)
        if any(each.packaging_id == tracked.lease.id for each in self._runs.orphans()):
            raise PackagerError("its last run is still being stopped")
        handle = self._executor.start(tracked.lease)
        if not self._runs.attach(tracked.lease, handle):
            self._executor.stop(handle)
            return None
        tracked.lease = replace(tracked.lease, handle=handle)
        log.info("packaging %r is started: %s", tracked.lease.id, handle)
        return self._executor.observe(handle) or PackagingStatus(state="scheduling")

    def _handle_failed_start(self, tracked: _Tracked, error: PackagerError) -> bool:
        message = with_hint(error.message, error.hint)
        if isinstance(error, _FINAL_ERRORS):
            code = error.exit_code
            status = PackagingStatus(state="failed", exit_code=code, reason=error.code, message=message)
            self._record(tracked, status)
            return False
        log.warning("cannot start packaging %r yet: %s", tracked.lease.id, error.message)
        status = PackagingStatus(state="scheduling", reason=error.code, message=message)
        tracked.next_check = time.monotonic() + tracked.retry_pause
        tracked.retry_pause = min(2 * tracked.retry_pause, _MAX_RETRY_SECONDS)
        return self._record(tracked, status)

    def _record(self, tracked: _Tracked, status: PackagingStatus) -> bool:
        if status == tracked.status:
            return True
        is_stored = self._runs.record(tracked.lease, status)
        tracked.status = status  # not before: while the database is down, the status must be stored again
        if is_stored and status.is_final:
            reason = f": {status.reason}" if status.reason else ""
            log.info("packaging %r has %s%s", tracked.lease.id, status.state, reason)
        return is_stored

    def _collect_garbage(self) -> None:
        if self._collecting is not None and self._collecting.done():
            _outcome(self._collecting, "the garbage collector", default=None)
            self._collecting = None
        if self._collecting is None and time.monotonic() >= self._collect_at:
            self._collect_at = time.monotonic() + self._config.collect_seconds
            self._collecting = self._pool.submit(self._collector.collect)


def _outcome(task: Future[_Value], subject: str, *, default: _Value) -> _Value:
    """Return the result of a task; after a failure, log it and return `default`, so that the task is retried."""
    try:
        return task.result()
    except PackagerError as error:
        log.warning("%s: %s", subject, error.message)
    except OperationalError:
        log.warning("%s: %s; retrying", subject, _DATABASE_DOWN)
    except Exception:
        log.exception("%s: unexpected error; retrying", subject)
    return default
