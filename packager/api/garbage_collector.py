"""What is left on this machine of runs that are no more: ended and removed."""

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


class Sweeper:
    """Compares what is left with the store.

    A run is left over when its packaging is gone, was edited, or was taken over by another service while this one was
    not heard of.
    """

    def __init__(
        self, runs: RunRepository, executor: Executor, *, is_busy: Callable[[str], bool], log_days: float
    ) -> None:
        """Leave alone the packagings that `is_busy` names; logs of ended ones go after `log_days` days."""
        self._runs = runs
        self._executor = executor
        self._is_busy = is_busy
        self._log_days = log_days

    def sweep(self) -> None:
        """LogState at all of them once.

        Raises:
            PackagerError: Something doesn't end.
        """
        for left in list(self._executor.runs()):
            run = self._run(left.packaging_id)
            if self._is_busy(left.packaging_id):
                continue
            if not _is_current(left, run):
                log.info("what is left of %s is removed", left.handle)
                self._executor.stop(left.handle)
                self._executor.purge(left.handle)
            elif run and run.state in FINAL and time.time() > left.changed + self._log_days * _DAY:
                log.info("the log of %s is removed after %g days", left.handle, self._log_days)
                self._executor.purge(left.handle)

    def _run(self, packaging_id: str) -> Run | None:
        try:
            return self._runs.get(packaging_id)
        except EntityNotFoundError:
            return None


def _is_current(left: LeftoverRun, run: Run | None) -> bool:
    if run is None:
        return False
    if run.handle is None:  # it may have been started and not noted
        return left.generation in {None, run.generation}
    return run.handle == left.handle
