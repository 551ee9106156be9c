"""SIGINT and SIGTERM: the first ends the work by an exception, and nothing may cut the cleaning up short."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from _thread import start_new_thread
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

log = logging.getLogger(__name__)

_REMOVAL = 5.0  # seconds that removing a folder may take beyond the first try
_PAUSE = 0.05  # seconds between two tries
_QUIET = 4  # tries in a row that must find a folder gone whose first removal was disturbed
_AGAIN = 0.001  # seconds after which a stop is tried again that came in between two blocks
_MOST_TRIES = 1000
# Code that stands between our blocks and never waits: raised there, a stop takes a task, a lock or a clean-up with it.
_BETWEEN = {
    "contextlib",
    "weakref",
    "_weakrefset",
    "importlib._bootstrap",
    "_frozen_importlib",
    "asyncio.base_events",
    "asyncio.events",
}


@dataclass
class _State:
    """What the signal handler knows; it may come in between any two operations."""

    raised: bool = False
    deferrals: int = 0
    pending: int | None = None
    tries: int = 0
    over: bool = False


_state = _State()


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore the ones that follow.

    Cleaning up, which may run commands itself, then goes through to its end. Only for the main thread.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        tried, _state.tries = _state.tries, 0
        if _state.raised:
            if not tried:
                log.info("stopping already; signal %d is ignored", number)
        elif _state.deferrals:
            _state.pending = number
        elif not (tried < _MOST_TRIES and _is_between(frame) and _try_again(number, tried)):
            _state.raised = True
            raise Interrupted(number)

    def lost(unraisable: Any) -> None:  # noqa: ANN401  (its type has no name at run time)
        """A stop came in a place that no exception gets out of: where an object is let go of."""
        error = unraisable.exc_value
        if isinstance(error, Interrupted) and not _state.over:
            _state.raised = False
            if not _try_again(error.signal_number, 0):
                _state.pending = error.signal_number
        else:
            hook(unraisable)

    _state.raised, _state.pending, _state.tries, _state.over = False, None, 0, False
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield
        raise_pending_stop()
    finally:
        _state.over = True
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _state.pending = None


def is_over() -> bool:
    """Whether the work has come to its end: a stop has nothing left to stop, and the process ends at once."""
    return _state.over


def _is_between(frame: FrameType | None) -> bool:
    if frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        return True
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _try_again(number: int, tried: int) -> bool:
    """Send the signal again in a moment; false where no thread can be had for that."""

    def send() -> None:
        time.sleep(_AGAIN)
        signal.pthread_kill(main, number)

    main = threading.get_ident()
    try:
        start_new_thread(send, ())
    except RuntimeError:
        return False
    _state.tries = tried + 1
    return True


@contextmanager
def deferred_stop() -> Iterator[None]:
    """Hold a stop back for the block: nothing may be started without being known, nor be left half ended.

    Whoever uses it calls `raise_pending_stop` when it is safe again.
    """
    before, _state.deferrals = _state.deferrals, _state.deferrals + 1
    try:
        yield
    finally:
        _state.deferrals = before


@contextmanager
def _allowed_stop() -> Iterator[None]:
    """Let a stop through again, within a block that holds it back."""
    before, _state.deferrals = _state.deferrals, 0
    try:
        raise_pending_stop()
        yield
    finally:
        _state.deferrals = before


@contextmanager
def private_folder(prefix: str, below: Path | None) -> Iterator[Path]:
    """Give a temporary folder with mode 0700, which is gone after the block; no stop can come in between.

    Raises:
        OSError: It can't be made.
    """
    with deferred_stop():
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=below))
        stopped = False
        try:
            with _allowed_stop():
                yield folder
        except Interrupted:
            stopped = True
            raise
        finally:
            remove_folder(folder, is_disturbed=stopped)
    raise_pending_stop()


def remove_folder(folder: Path, *, is_disturbed: bool = False) -> None:
    """Remove a folder although something may still write into it, or has made parts of it read-only.

    Threads of other languages go on for a moment after their work was cancelled, and may make it anew: with
    `is_disturbed` it is looked for a few times more. What is still there after five seconds is left, and said in the
    log.
    """
    deadline = time.monotonic() + _REMOVAL
    shutil.rmtree(folder, ignore_errors=True)
    quiet = 0 if is_disturbed or os.path.lexists(folder) else _QUIET
    while quiet < _QUIET and time.monotonic() < deadline:
        _make_removable(folder)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_PAUSE)
        quiet = 0 if os.path.lexists(folder) else quiet + 1
    if os.path.lexists(folder):
        log.warning("the folder %s can't be removed entirely; remove it by hand", folder)


def _make_removable(folder: Path) -> None:
    """Let the owner remove what lies in the folders: their modes count, not those of the files."""
    with suppress(OSError):
        folder.chmod(0o700)
    for place, names, _ in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)


def finish_work() -> None:
    """Say that the work is done: from here on a stop comes too late and is ignored.

    Raises:
        Interrupted: One came before.
    """
    raise_pending_stop()
    _state.raised = True


def raise_pending_stop() -> None:
    """Raise the stop that was held back, if there was one.

    Raises:
        Interrupted: There was.
    """
    if _state.pending is not None and not _state.raised:
        _state.raised = True
        raise Interrupted(_state.pending)
