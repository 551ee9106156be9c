"""The protocol of executors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from packager.api.entities import PackagingStatus
    from packager.api.store.leases import Lease


@dataclass(frozen=True, kw_only=True)
class LeftoverRun:
    """A run that has processes, a folder or a log on this machine.

    Attributes:
        generation: Of the packaging, if it is known.
        changed: Time of the last change, in seconds since 1970.
    """

    packaging_id: str
    generation: int | None
    handle: str
    changed: float


class Executor(Protocol):
    """Runs packagings; a handle identifies a run, also for the next process of this service.

    Every method is thread-safe and idempotent.

    Attributes:
        resync_seconds: Maximum time between two observations of a run.
    """

    resync_seconds: float

    def start(self, lease: Lease, /) -> str:
        """Start a packaging and return its handle, which the caller must store.

        A run that was started before, but whose handle was not stored, is found and not started again. A handle in the
        lease means that the run is lost: start another attempt, if possible.

        Raises:
            RequestError, BuildError, EntityExistsError: The packaging can never run.
            PackagerError: The packaging cannot be started at the moment.
        """

    def observe(self, handle: str) -> PackagingStatus | None:
        """Return the status of a run; None if it is lost or unknown.

        Raises:
            PackagerError: The status is unavailable at the moment.
        """

    def stop(self, handle: str) -> None:
        """Stop a run and wait until it has ended; do nothing if it is not running.

        Raises:
            PackagerError: The run has not ended.
        """

    def log(self, handle: str) -> Path | None:
        """Return the folder of a run's log (`packager.api.log_files`); None if the run is unknown.

        Raises:
            PackagerError: The log is unavailable at the moment.
        """

    def finalize(self, handle: str) -> None:
        """Remove everything but the log of an ended run whose status is stored."""

    def purge(self, handle: str) -> None:
        """Remove everything of an ended run."""

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handles of the runs of one generation of a packaging.

        Raises:
            PackagerError: The runs are unavailable at the moment.
        """

    def runs(self) -> Iterator[LeftoverRun]:
        """Return all runs that have anything on this machine."""

    def close(self) -> None:
        """Release the locks and threads of this process; runs continue."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Call `on_change` with the ID of a packaging when its run may have changed; optional."""
