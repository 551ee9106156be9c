"""The outer process: runs the work in a process of its own, and leaves nothing of it behind, however that ends.

The worker leads a session and has a private folder. This process passes stop signals on to it and waits for its end.
Then it ends every process that the worker left, removes the folder, and exits with the worker's exit code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from packager.system.orphans import adopt_orphans, children, end_children

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

COMMANDS = ("build", "inspect", "render", "run")  # those that work in a folder; the others run in this process
STOPS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE = 10.0  # seconds: the default of PACKAGER_STOP_GRACE, which the worker's own commands get
_CLEANUP = 10.0  # seconds that the worker gets beyond it, to remove Buildah's containers and to cancel uploads


def main() -> None:
    """Run `packager`."""
    _launch(None, is_supervised=" ".join(sys.argv[1:2]) in COMMANDS)


def pack_to_rest() -> None:
    """Run `odahu-flow-pack-to-rest [MODEL] RESOURCE_FILE`."""
    _launch("docker-rest")


def pack_to_cli() -> None:
    """Run `odahu-flow-pack-to-cli [MODEL] RESOURCE_FILE`."""
    _launch("docker-cli")


def _launch(application: str | None, *, is_supervised: bool = True) -> None:
    if is_supervised:
        os._exit(supervise(lambda folder: run_cli(application, folder), sys.argv[1:]))
    for number in STOPS:  # while Python imports; process 1 has no default action
        signal.signal(number, lambda stop, _frame: os._exit(128 + stop))
    run_cli(application, None)


def run_cli(application: str | None, folder: str | None) -> None:
    """Run the command line in this process."""
    # httpx brings a command line client, a sixth of our start. It does without where an import of it fails, as it does
    # with this entry (docs.python.org/3/reference/import.html, "The module cache").
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from packager import cli  # noqa: PLC0415  (heavy: the outer process doesn't need it)

    cli.main(application, folder=folder)


def supervise(
    work: Callable[[str], object], words: Sequence[str], *, meanwhile: Callable[[], object] | None = None
) -> int:
    """Run `work` in a worker process, with the path of a private folder to make, and return its exit code.

    A worker that was killed gives 128 plus the signal's number, and its end is noted in the termination log that the
    arguments `words` name. `meanwhile` is called here once the worker runs. The stop signals are blocked when this
    returns: they come too late.
    """
    folder = f"{_parent_folder()}/packager-{os.urandom(16).hex()}"
    others = children()  # of the program that has become this one
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    outer = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become_worker(outer)
        work(folder)
        os._exit(0)
    if meanwhile is not None:
        meanwhile()
    stop = _wait(worker)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    end_children(but=others)
    if os.path.lexists(folder):
        from packager.system.folders import remove_folder  # noqa: PLC0415  (mostly the worker has removed it)

        remove_folder(folder)
    if code < 0:
        code = _report_killed(stop or -code, words)
    return code


def _become_worker(outer: int) -> None:
    os.setsid()
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != outer:
        os._exit(128 + signal.SIGTERM)


def _wait(worker: int) -> int | None:
    """Wait until the worker has ended, but not been reaped; return the signal that asked for it, if one did."""
    stops: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if not stops:
            stops.append(number)
            os.kill(worker, number)
            with suppress(ValueError, OverflowError, OSError):  # no number of seconds: the worker refuses it
                grace = float(os.environ.get("PACKAGER_STOP_GRACE") or _GRACE)
                signal.setitimer(signal.ITIMER_REAL, grace + _CLEANUP)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(worker, signal.SIGKILL))
    for number in STOPS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and ended.si_pid != worker:
        os.waitpid(ended.si_pid, 0)  # an orphan
    signal.pthread_sigmask(signal.SIG_BLOCK, [*STOPS, signal.SIGALRM])
    return stops[0] if stops else None


def _report_killed(number: int, words: Sequence[str]) -> int:
    """Say by what the worker was killed, as it can't any more; return the exit code."""
    from packager.errors import Interrupted  # noqa: PLC0415  (rarely needed, as the next)
    from packager.result import Outputs, find_termination_log  # noqa: PLC0415

    error = Interrupted(number).as_error()
    sys.stderr.write(f"packager: {error.message}\n")
    with suppress(OSError):
        Outputs(termination_log=find_termination_log(words)).write_error(error)
    return error.exit_code


def _parent_folder() -> str:
    """Return PACKAGER_WORK_DIR, else the first of the usual folders for large temporary files that can be written."""
    usual = filter(None, (os.environ.get("TMPDIR"), "/var/tmp", "/tmp"))  # noqa: S108  (the folder in it is private)
    found = os.environ.get("PACKAGER_WORK_DIR") or next((each for each in usual if os.access(each, os.W_OK)), "/tmp")  # noqa: S108
    return os.path.abspath(found)  # noqa: PTH100
