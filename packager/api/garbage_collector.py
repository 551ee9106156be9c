"""Removal of leftovers of old runs on this machine."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from packager.api.entities import FINAL
from packager.errors import EntityNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.api.executors.base import Executor, LeftoverRun
    from packager.api.store.leases import Run
    from packager.api.store.run_repository import RunRepository

log = logging.getLogger(__name__)

_DAY = 86_400.0


class GarbageCollector:
    """Compares the runs on this machine with the store.

    A run is left over if its packaging was deleted or edited, or if another service took it over while this one was
    down.
    """

    def __init__(
        self, runs: RunRepository, executor: Executor, *, is_busy: Callable[[str], bool], log_days: float
    ) -> None:
        """Skip packagings for which `is_busy` is true; remove logs `log_days` days after the end of the run."""
        self._runs = runs
        self._executor = executor
        self._is_busy = is_busy
        self._log_days = log_days

    def collect(self) -> None:
        """Check all runs once.

        Raises:
            PackagerError: A leftover run cannot be stopped.
        """
        for left in list(self._executor.runs()):
            run = self._run(left.packaging_id)
            if self._is_busy(left.packaging_id):
                continue
            if not _is_current(left, run):
                log.info("removing the leftovers of %s", left.handle)
                self._executor.stop(left.handle)
                self._executor.purge(left.handle)
            elif run and run.state in FINAL and time.time() > left.changed + self._log_days * _DAY:
                log.info("removing the log of %s after %g days", left.handle, self._log_days)
                self._executor.purge(left.handle)

    def _run(self, packaging_id: str) -> Run | None:
        try:
            return self._runs.get(packaging_id)
        except EntityNotFoundError:
            return None


def _is_current(left: LeftoverRun, run: Run | None) -> bool:
    if run is None:
        return False
    if run.handle is None:  # perhaps started, but not recorded yet
        return left.generation in {None, run.generation}
    return run.handle == left.handle
