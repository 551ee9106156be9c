from __future__ import annotations

import asyncio
import multiprocessing
import os
import pty
import socket
import subprocess
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = ("127.0.0.1", 9)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def forkpty() -> None:
    if pty.fork()[0] == 0:
        os._exit(0)


def start(method: str) -> None:
    multiprocessing.get_context(method).Process(target=int).start()  # type: ignore[attr-defined]


async def subprocess_exec() -> None:
    await asyncio.create_subprocess_exec("true")


def udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", LOOPBACK)


def listen_on(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def connect_to(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda: subprocess.run(["true"], check=True), id="subprocess.run"),
        pytest.param(lambda: subprocess.Popen(["true"]), id="subprocess.Popen"),
        pytest.param(lambda: asyncio.run(subprocess_exec()), id="asyncio"),
        pytest.param(lambda: os.system("true"), id="os.system"),  # noqa: S605
        pytest.param(lambda: os.popen("true"), id="os.popen"),  # noqa: S605
        pytest.param(fork, id="os.fork"),
        pytest.param(forkpty, id="pty.fork"),
        pytest.param(lambda: os.execv("/bin/false", ["false"]), id="os.execv"),  # noqa: S606
        pytest.param(lambda: os.execvpe("false", ["false"], {}), id="os.execvpe"),  # noqa: S606
        pytest.param(lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]), id="os.spawnv"),  # noqa: S606
        pytest.param(lambda: os.posix_spawn("/bin/true", ["true"], {}), id="os.posix_spawn"),
        pytest.param(lambda: os.posix_spawnp("true", ["true"], {}), id="os.posix_spawnp"),
        pytest.param(lambda: start("fork"), id="multiprocessing fork"),
        pytest.param(lambda: start("spawn"), id="multiprocessing spawn"),
    ],
)
def test_starting_a_process_is_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="a unit test can't start a process"):
        attempt()


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda: socket.create_connection(LOOPBACK, timeout=1), id="create_connection"),
        pytest.param(lambda: socket.create_server(("127.0.0.1", 0)), id="create_server"),
        pytest.param(lambda: socket.socket(), id="tcp"),  # noqa: PLW0108  (looked up when it runs)
        pytest.param(udp, id="udp"),
        pytest.param(lambda: socket.getaddrinfo("localhost", 80), id="getaddrinfo"),
        pytest.param(lambda: socket.gethostbyname("localhost"), id="gethostbyname"),
        pytest.param(lambda: urllib.request.urlopen("http://127.0.0.1:9/"), id="urllib"),
        pytest.param(lambda: listen_on("/tmp/guard.sock"), id="unix listener"),  # noqa: S108
        pytest.param(lambda: connect_to("/run/systemd/notify"), id="unix connection"),
    ],
)
def test_opening_a_socket_is_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="a unit test can't open a socket"):
        attempt()


def test_threads_are_guarded_too() -> None:
    refused: list[BaseException] = []

    def attempt() -> None:
        try:
            fork()
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(refused) == 1


def test_an_event_loop_runs() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(answer()) == 42


@pytest.fixture(scope="module")
def module_fixture_attempt() -> BaseException | None:
    try:
        fork()
    except RuntimeError as error:
        return error
    return None


def test_fixtures_are_guarded_too(module_fixture_attempt: BaseException | None) -> None:
    assert module_fixture_attempt is not None
