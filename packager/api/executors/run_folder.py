"""The folder of a local run: its order, its outcome, its log, and the lock that shows whether it is active."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import PackagerError
from packager.system.folders import remove_folder
from packager.system.process import HELD

if TYPE_CHECKING:
    from collections.abc import Callable

_STUCK_SECONDS = 10.0  # time limit for processes to die after SIGKILL
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, with mode 0700."""

    path: Path

    @property
    def lock(self) -> Path:
        """The file that the outer process and its worker lock (flock(2)) as long as they live."""
        return self.path / "lock"

    @property
    def order(self) -> Path:
        """The order of the run: `args`, the arguments of `packager`, and `logBytes`."""
        return self.path / "order.json"

    @property
    def manifest(self) -> Path:
        """The mp.json with secrets in clear; removed at the end of the run."""
        return self.path / "mp.json"

    @property
    def work(self) -> Path:
        """The folder of temporary files; removed at the end of the run."""
        return self.path / "work"

    @property
    def termination_log(self) -> Path:
        """The packager's termination log: its results or its error."""
        return self.path / "termination.json"

    @property
    def result(self) -> Path:
        """The packager's results."""
        return self.path / "result.json"

    @property
    def errors(self) -> Path:
        """The error output of the outer process."""
        return self.path / "shim.txt"

    @property
    def log(self) -> Path:
        """The folder of the log."""
        return self.path / "log"

    @property
    def _exit(self) -> Path:
        return self.path / "exit.json"

    def make(self) -> None:
        """Create an empty folder; leftovers of an earlier attempt are removed.

        Raises:
            OSError: The folder cannot be created.
        """
        if self.path.exists():
            remove_folder(self.path)
        self.path.mkdir(mode=0o700, parents=True)
        self.work.mkdir(mode=0o700)

    def is_held(self) -> bool:
        """Return whether the run is active."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def end_run(self, grace: float, reap: Callable[[], object]) -> None:
        """Stop the run and wait for its end: SIGTERM, then SIGKILL after `grace` seconds.

        Raises:
            PackagerError: The run does not end.
        """
        kill_at = time.monotonic() + grace
        asked: set[int] = set()
        while self.is_held():
            now = time.monotonic()
            if now > kill_at + _STUCK_SECONDS:
                raise PackagerError(
                    f"processes of {self.path.name} survive SIGKILL: {self._holders()}",
                    hint="they are blocked in the kernel, usually by a disk or a network file system",
                )
            for pid in self._holders():
                if now > kill_at or pid not in asked:
                    asked.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if now > kill_at else signal.SIGTERM)
            time.sleep(_PAUSE_SECONDS)
            reap()

    def _holders(self) -> list[int]:
        """Return the processes that hold the lock: the outer process and its worker."""
        found = []
        for name in os.listdir("/proc"):  # noqa: PTH208  (only names are needed)
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):  # just ended, or of another user
                    if Path("/proc", name, "fd", str(HELD)).samefile(self.lock):
                        found.append(int(name))
        return found

    def write_exit_code(self, code: int) -> None:
        """Record the exit code of the run."""
        temporary = self.path / "exit.json.new"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"exitCode": code}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._exit)

    def exit_code(self) -> int | None:
        """Return the exit code of the run; None if its outer process was killed."""
        code = _read_object(self._exit).get("exitCode")
        return code if isinstance(code, int) else None

    def results(self) -> dict[str, str]:
        """Return the packager's results; they exist only if the image was delivered."""
        return {str(name): value for name, value in _read_object(self.result).items() if isinstance(value, str)}

    def error(self) -> dict[str, str]:
        """Return the packager's error: `code`, `message`, `hint`; empty if it wrote none."""
        error = _read_object(self.termination_log).get("error")
        return {str(name): str(value) for name, value in error.items()} if isinstance(error, dict) else {}

    def changed(self) -> float:
        """Return the time of the last change of the folder or the log, in seconds since 1970.

        Raises:
            FileNotFoundError: The folder was removed.
        """
        return max(path.stat().st_mtime for path in (self.path, *self.log.glob("*")))

    def remove_secrets(self) -> None:
        """Remove the input of the run and its temporary files."""
        for path in (self.manifest, self.order):
            path.unlink(missing_ok=True)
        if self.work.exists():
            remove_folder(self.work)

    def keep_log_only(self) -> None:
        """Remove everything but the log; the status is in the store."""
        self.remove_secrets()
        for path in (self.result, self.termination_log, self._exit, self.errors, self.lock):
            with suppress(FileNotFoundError):
                path.unlink()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
