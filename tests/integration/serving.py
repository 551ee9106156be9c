"""What the tests of the server share: which interpreters it runs on, and clients that ask without a pause."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from uv import find_uv_bin

from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.test_runtime_processes import Service

PATIENCE = 60
BRISK_SECONDS = 0.2  # a worker that is to stop waits a little longer for the next request


class Loss(NamedTuple):
    """A request that was sent and not answered.

    Attributes:
        whose: The process that had answered the one before over the same connection.
        error: What came instead of the answer.
        idle: The seconds up to its last byte, since the model had made the answer before or the client began to
            connect. All the processes may have been kept from the CPU meanwhile.
    """

    whose: int | None
    error: str
    idle: float


@dataclass(kw_only=True)
class Tally:
    """The responses to a client that keeps asking; `refused`: its last connection was refused."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)  # before each answer
    lost: list[Loss] = field(default_factory=list)
    refused: bool = False

    @property
    def lost_in_time(self) -> list[Loss]:
        """Those that no server may lose: the client was not idle before."""
        return [loss for loss in self.lost if loss.idle < BRISK_SECONDS]


@contextmanager
def load(service: Service, clients: int, row: list[Any], *, keep: Callable[[int], bool]) -> Iterator[list[Tally]]:
    """Run clients that ask until the block ends or a connection is refused; those in `keep` reuse their connection.

    The model has to return a row that begins with its process ID and ends with the time at which it made the row.
    """
    stop = Event()
    tallies = [Tally() for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        done = [
            pool.submit(_ask_on, service.port, row, stop, tally, keep=keep(number))
            for number, tally in enumerate(tallies)
        ]
        try:
            yield tallies
        finally:
            stop.set()
            for future in done:
                future.result()


def _ask_on(port: int, row: list[Any], stop: Event, tally: Tally, *, keep: bool) -> None:
    body = json.dumps({"data": [row]})
    headers = {} if keep else {"Connection": "close"}
    while not stop.is_set():
        rested = time.monotonic()
        try:
            raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except OSError:  # not made: no request is in it
            tally.refused = True
            return
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = raw
        whose: int | None = None
        sent: float | None = None
        try:
            while not stop.is_set():
                sent = None
                connection.request("POST", "/api/model/invoke", body, headers)
                sent = time.monotonic()
                answer = connection.getresponse()
                payload = json.loads(answer.read())
                tally.answers.append((answer.status, payload))
                tally.idle.append(sent - rested)
                if answer.status == http.HTTPStatus.OK:
                    whose, *_, rested = payload["prediction"][0]
                if answer.will_close:
                    break
        except (OSError, http.client.HTTPException) as error:
            tally.lost.append(Loss(whose, repr(error), (sent or time.monotonic()) - rested))
        finally:
            connection.close()


def make_venv(name: str, python: str, *requirements: str) -> Path:
    """An environment with these packages, made by uv once and kept in the cache; gives its interpreter."""
    mark = hashlib.sha256("\n".join([python, *requirements]).encode()).hexdigest()[:12]
    folder = CACHE / "venvs" / f"{name}-{mark}"
    made, interpreter = folder / "made", folder / "bin" / "python"
    if not made.exists():
        uv = find_uv_bin()
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "--quiet", "--python", python, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(interpreter), *requirements]
        subprocess.run(install, check=True)
        made.touch()
    return interpreter


def wait_until(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def is_replaced(service: Service, before: int) -> bool:
    """Whether another worker answers than this one, which may refuse what comes, or break off, before it ends."""
    with suppress(OSError, http.client.HTTPException):
        answer = service.invoke("pid", 0)
        return answer.status == http.HTTPStatus.OK and answer.payload["prediction"] != [[before]]
    return False


def resident(pid: int) -> int:
    """The memory of a process in bytes."""
    status = Path("/proc", str(pid), "status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def mapped(pid: int) -> int:
    """The addresses that a process has taken, in bytes: what RLIMIT_AS counts."""
    status = Path("/proc", str(pid), "status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:"))
