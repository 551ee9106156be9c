"""Unit tests can start no process and open no socket: the interpreter itself refuses, whoever asks.

The guard is an audit hook (PEP 578), so it holds for every way to the operating system that Python has, also for names
that a module imported before, and in every thread. It is armed from a unit test's first fixture to its last.
"""

from __future__ import annotations

import _posixsubprocess
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
import pytest

from packager.runtime.odahu_runtime import fast_json

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}
SOCKETS = {
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "socket.sendmsg",
    "socket.sendto",
}
EVENT_LOOPS_OWN = {socket.AF_UNIX}  # asyncio's self-pipe is a socketpair; connecting and binding is refused for it too


HERE = Path(__file__).parent


class GuardError(RuntimeError):
    """A unit test tried to start a process or to open a socket."""


_armed = False


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if not _armed:
        return
    if event in PROCESSES:
        raise GuardError(f"a unit test can't start a process ({event}); write it in tests/integration")
    if event in SOCKETS or (event == "socket.__new__" and args[1] not in EVENT_LOOPS_OWN):
        raise GuardError(f"a unit test can't open a socket ({event}); write it in tests/integration")


def _refuse_fork_exec(*_args: object) -> NoReturn:
    raise GuardError("a unit test can't start a process (fork_exec); write it in tests/integration")


sys.addaudithook(_refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    global _armed  # noqa: PLW0603  (an audit hook can't be taken away, only told to rest)
    if HERE not in item.path.parents:  # integration tests in the same run
        return (yield)
    fork_exec = _posixsubprocess.fork_exec
    # The one way without an audit event of its own: multiprocessing's "spawn" calls it directly.
    _posixsubprocess.fork_exec = _refuse_fork_exec
    _armed = True
    try:
        return (yield)
    finally:
        _armed = False
        _posixsubprocess.fork_exec = fork_exec


@pytest.fixture(params=[None, orjson], ids=["json", "orjson"])
def both_json(request: pytest.FixtureRequest) -> Iterator[None]:
    """JSON as images without orjson have it, and as those with it."""
    fast_json.use(request.param)
    yield
    fast_json.use(None)
