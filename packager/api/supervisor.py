"""The loop that runs packagings: claims them, has them started, watches them, and writes down what becomes of them.

What it holds in memory can go at any moment: everything is in the store and with the executor. A packaging is its own
as long as it renews the lease. Starting is repeatable: an executor that is asked again to start what it has started
gives the same handle.
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
from packager.api.garbage_collector import Sweeper
from packager.api.store.database import first_line
from packager.errors import BuildError, EntityExistsError, PackagerError, RequestError

if TYPE_CHECKING:
    from packager.api.executors.base import Executor
    from packager.api.store.leases import Lease, OrphanedRun
    from packager.api.store.run_repository import RunRepository

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")
_FINAL_ERRORS = (RequestError, BuildError, EntityExistsError)  # what another try doesn't mend
_THREADS = 8
_AWAY = "the database doesn't answer"
_SHORTEST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0  # seconds before a start that failed is tried again
_LEAST_SECONDS = 1.0  # what the threads get to end in, however late it is


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """How packagings are run.

    Attributes:
        owner: This service's name in the store.
        most_running: How many run at a time.
        lease: How long nobody else takes over when we are not heard of.
        pause: Seconds between two rounds where nothing wakes the loop.
        sweep_seconds: Seconds between two looks for what is left of runs that are no more.
        log_days: How long the log of a packaging that has ended is kept.
        stop_seconds: How long what is being done may take after a stop, before it is left.
    """

    owner: str
    most_running: int = 4
    lease: timedelta = timedelta(seconds=30)
    pause: float = 1.0
    sweep_seconds: float = 300.0
    log_days: float = 30.0
    stop_seconds: float = 10.0


@dataclass(kw_only=True)
class _Held:
    """A claim of ours.

    Attributes:
        job: What is being done for it now.
        look_at: When it is to be looked at again, or its start to be tried again (time.monotonic()).
        pause: Before the next try of a start that failed.
        status: What was written last.
    """

    claim: Lease
    job: Future[bool] | None = None
    look_at: float = 0.0
    pause: float = _SHORTEST_PAUSE
    status: PackagingStatus | None = None


class Supervisor:
    """Runs packagings in threads of its own, from `start` to `close`."""

    def __init__(self, runs: RunRepository, executor: Executor, rules: SupervisorConfig) -> None:
        """Run the store's packagings with an executor."""
        self._runs = runs
        self._executor = executor
        self._rules = rules
        self._held: dict[str, _Held] = {}
        self._ending: dict[int, Future[None]] = {}
        self._end_after: dict[int, float] = {}  # when to try again to end what didn't end
        self._renew_at = self._sweep_at = 0.0
        self._sweeping: Future[None] | None = None
        self._sweeper = Sweeper(runs, executor, is_busy=self._held.__contains__, log_days=rules.log_days)
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._leave_at = 0.0  # time.monotonic()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="packagings")
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier process of this service ran is taken up again at once."""
        self._runs.release_all(self._rules.owner)
        self._executor.watch(self._changed)
        self._thread.start()

    def wake(self) -> None:
        """LogState at once whether there is anything to do."""
        self._awake.set()

    def stop(self) -> None:
        """Begin nothing more; what runs goes on, and the next process of this service finds it."""
        if not self._closing.is_set():
            self._leave_at = time.monotonic() + self._rules.stop_seconds
            self._closing.set()
        self._awake.set()

    def close(self) -> bool:
        """Stop, and wait for what is being done; False: some of it takes longer than it may, and goes on.

        It may be cut off at any moment, as by a kill: what is not in the store yet is done again.
        """
        self.stop()
        ending = threading.Thread(target=self._end_threads, name="supervisor-end", daemon=True)
        ending.start()
        ending.join(max(self._leave_at - time.monotonic(), _LEAST_SECONDS))
        if ending.is_alive():
            log.info("what is being done for packagings takes too long and is left to the next process of this service")
        return not ending.is_alive()

    def _end_threads(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def running(self) -> int:
        """How many packagings this service holds."""
        return len(self._held)

    def _changed(self, packaging_id: str) -> None:
        held = self._held.get(packaging_id)
        if held is not None:
            held.look_at = 0.0
            self._awake.set()

    def _loop(self) -> None:
        is_away = False
        while not self._closing.is_set():
            try:
                self.round()
                is_away = False
            except OperationalError as error:
                if not is_away:
                    log.warning("%s, and is asked until it does: %s", _AWAY, first_line(error))
                is_away = True
            except Exception:
                log.exception("a round of the supervisor failed; the next one is in a moment")
            self._awake.wait(self._rules.pause)
            self._awake.clear()

    def round(self) -> None:
        """Do all that is to be done now; what takes long is begun and left to other threads."""
        self._gather()
        self._renew()
        try:
            self._end_abandoned()
            self._claim_more()
        finally:  # what can't be claimed must not keep what runs from its end
            self._tend()
            self._sweep()

    def _gather(self) -> None:
        """Take the ends of what the other threads did."""
        for packaging_id, held in list(self._held.items()):
            if held.job is None or not held.job.done():
                continue
            job, held.job = held.job, None
            if job.exception() is not None:
                held.look_at = time.monotonic() + _SHORTEST_PAUSE
            if not _outcome(job, f"packaging {packaging_id!r}", default=True):
                del self._held[packaging_id]
        for number, ending in list(self._ending.items()):
            if ending.done():
                del self._ending[number]
                _outcome(ending, "what was abandoned", default=None)
                self._end_after[number] = time.monotonic() + _SHORTEST_PAUSE

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renew_at:
            return
        self._renew_at = now + self._rules.lease.total_seconds() / 3
        for packaging_id, held in list(self._held.items()):
            if not self._runs.renew(held.claim, self._rules.lease) and held.job is None:
                log.info("packaging %r is no longer ours to run", packaging_id)
                del self._held[packaging_id]
                self._sweep_at = min(self._sweep_at, now + self._rules.lease.total_seconds())

    def _end_abandoned(self) -> None:
        all_abandoned = self._runs.abandoned()
        now, numbers = time.monotonic(), {abandoned.number for abandoned in all_abandoned}
        self._end_after = {number: after for number, after in self._end_after.items() if number in numbers}
        for abandoned in all_abandoned:
            if abandoned.number in self._ending or self._end_after.get(abandoned.number, 0.0) > now:
                continue
            if not self._is_ours_to_end(abandoned):
                continue
            held = self._held.get(abandoned.packaging_id)
            if held is not None and held.claim.generation == abandoned.generation:
                if held.job is not None:
                    continue  # it may be starting at this moment
                del self._held[abandoned.packaging_id]
            self._ending[abandoned.number] = self._pool.submit(self._end, abandoned)

    def _is_ours_to_end(self, abandoned: OrphanedRun) -> bool:
        """Tell whether its owner is this service, or nobody who is heard of."""
        if abandoned.owner in {None, self._rules.owner} or abandoned.lease_until is None:
            return True
        return datetime.now(timezone.utc) > abandoned.lease_until + self._rules.lease

    def _end(self, abandoned: OrphanedRun) -> None:
        handles = [abandoned.handle] if abandoned.handle else []
        for handle in {*handles, *self._executor.find(abandoned.packaging_id, abandoned.generation)}:
            self._executor.stop(handle)
            self._executor.purge(handle)
        self._runs.stopped(abandoned)
        self._awake.set()  # what comes after it may start now

    def _claim_more(self) -> None:
        free = self._rules.most_running - len(self._held)
        if free > 0:
            for claim in self._runs.claim(self._rules.owner, free, self._rules.lease):
                held = self._held.get(claim.id)
                if held is None or held.claim.generation != claim.generation:  # else our own lease had run out
                    self._held[claim.id] = _Held(claim=claim, status=claim.entity.status)

    def _tend(self) -> None:
        now = time.monotonic()
        for held in self._held.values():
            if held.job is None and held.look_at <= now:
                held.look_at = now + self._executor.resync_seconds  # a change that is told meanwhile sets it back
                held.job = self._pool.submit(self._work, held)

    def _work(self, held: _Held) -> bool:
        """Start a claim, or look at its run; False: it is done with."""
        try:
            return self._advance(held)
        finally:
            self._awake.set()

    def _advance(self, held: _Held) -> bool:
        claim = held.claim
        status = self._executor.observe(claim.handle) if claim.handle else None
        if status is None:
            try:
                status = self._begin(held)
            except PackagerError as error:
                return self._put_off(held, error)
            if status is None:
                return False
        if not self._record(held, status):
            return False
        if status.is_final and held.claim.handle:
            self._executor.finalize(held.claim.handle)
        return not status.is_final

    def _begin(self, held: _Held) -> PackagingStatus | None:
        """Start a claim's run, or another attempt where the last one was lost; None: it's no longer ours.

        Raises:
            PackagerError: It can't be started.
        """
        if held.claim.handle:
            log.warning("the run %s of packaging %r is lost", held.claim.handle, held.claim.id)
        if any(each.packaging_id == held.claim.id for each in self._runs.abandoned()):
            raise PackagerError("its last run is still being ended")
        handle = self._executor.start(held.claim)
        if not self._runs.attach(held.claim, handle):
            self._executor.stop(handle)
            return None
        held.claim = replace(held.claim, handle=handle)
        log.info("packaging %r is started: %s", held.claim.id, handle)
        return self._executor.observe(handle) or PackagingStatus(state="scheduling")

    def _put_off(self, held: _Held, error: PackagerError) -> bool:
        message = with_hint(error.message, error.hint)
        if isinstance(error, _FINAL_ERRORS):
            code = error.exit_code
            status = PackagingStatus(state="failed", exit_code=code, reason=error.code, message=message)
            self._record(held, status)
            return False
        log.warning("packaging %r can't be started yet: %s", held.claim.id, error.message)
        status = PackagingStatus(state="scheduling", reason=error.code, message=message)
        held.look_at, held.pause = time.monotonic() + held.pause, min(2 * held.pause, _LONGEST_PAUSE)
        return self._record(held, status)

    def _record(self, held: _Held, status: PackagingStatus) -> bool:
        if status == held.status:
            return True
        is_written = self._runs.record(held.claim, status)
        held.status = status  # not before: where the database is away, it is to be written again
        if is_written and status.is_final:
            log.info(
                "packaging %r has %s%s", held.claim.id, status.state, f": {status.reason}" if status.reason else ""
            )
        return is_written

    def _sweep(self) -> None:
        if self._sweeping is not None and self._sweeping.done():
            _outcome(self._sweeping, "the look for leftovers", default=None)
            self._sweeping = None
        if self._sweeping is None and time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._rules.sweep_seconds
            self._sweeping = self._pool.submit(self._sweeper.sweep)


def _outcome(job: Future[_Value], subject: str, *, default: _Value) -> _Value:
    """Return what a job gave; `default` where it failed, which is told and tried again."""
    try:
        return job.result()
    except PackagerError as error:
        log.warning("%s: %s", subject, error.message)
    except OperationalError:
        log.warning("%s: %s; it is tried again", subject, _AWAY)
    except Exception:
        log.exception("%s: an unexpected error; it is tried again", subject)
    return default
