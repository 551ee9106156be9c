"""What the supervisor asks of whatever runs packagings."""

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
    """A run of which something is left on this machine: its processes, its folder, its log.

    Attributes:
        generation: Of the packaging, where what is left tells it.
        changed: When it was last written to, in seconds since 1970.
    """

    packaging_id: str
    generation: int | None
    handle: str
    changed: float


class Executor(Protocol):
    """Runs packagings; a handle is text that finds a run again, also for the next process of this service.

    Every method may be called from any thread, and more than once for the same thing.

    Attributes:
        resync_seconds: How long a run may go unobserved when nothing was heard of a change.
    """

    resync_seconds: float

    def start(self, claim: Lease) -> str:
        """Start a packaging and return its handle, which the store must hold before the work counts as started.

        One that was started already, and whose handle was not noted, is found and not started again. With a handle in
        the claim, its run is lost: another attempt is made, where that makes sense.

        Raises:
            RequestError, BuildError, EntityExistsError: It will never run.
            PackagerError: It can't be started now.
        """

    def observe(self, handle: str) -> PackagingStatus | None:
        """Tell what has become of a run; None when it is lost, or not known here.

        Raises:
            PackagerError: That can't be told now.
        """

    def stop(self, handle: str) -> None:
        """End a run and return when nothing of it runs any more; no error when there is nothing to end.

        Raises:
            PackagerError: It has not ended.
        """

    def log(self, handle: str) -> Path | None:
        """Return the folder that a run's log is in (`packager.api.log_files`); None when it is not known here.

        Raises:
            PackagerError: It can't be had now.
        """

    def finalize(self, handle: str) -> None:
        """Remove all but the log of a run that has ended and whose end is in the store."""

    def purge(self, handle: str) -> None:
        """Remove all that is left of a run that doesn't run any more."""

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handles of what was started for one generation of a packaging.

        Raises:
            PackagerError: That can't be told now.
        """

    def runs(self) -> Iterator[LeftoverRun]:
        """Give every run of which something is left on this machine."""

    def close(self) -> None:
        """Let go of what this process alone may have; what runs goes on."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Call `on_change` with a packaging's id whenever its run has changed, from now on; or never."""
