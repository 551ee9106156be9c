"""What the supervisor asks of whatever runs packagings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.api.entities import PackagingStatus
    from packager.api.store.claims import Claim


class Executor(Protocol):
    """Runs packagings; a handle is text that finds a run again, also for the next process of this service."""

    def start(self, claim: Claim) -> str:
        """Start a packaging and return its handle, which the store must hold before the work counts as started.

        Raises:
            PackagerError: It can't be started.
        """

    def observe(self, handle: str) -> PackagingStatus | None:
        """Tell what has become of a run; None when the executor doesn't know it."""

    def stop(self, handle: str) -> None:
        """End a run and return when nothing of it runs any more; no error when there is nothing to end."""

    def log(self, handle: str) -> Path | Iterator[str]:
        """Return the file that a run's log is written to, or its lines."""
