"""What a command takes: time, processor time, memory, and the bytes that it sends to a registry."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_PIECE = 1 << 18
# A process of its own, so that what it learns of its children is about this command alone.
_WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = used.ru_utime + used.ru_stime
print(json.dumps([done.returncode, done.stdout.decode(errors="replace"), wall, cpu, used.ru_maxrss << 10]))
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run took.

    Attributes:
        seconds: Of the whole process.
        cpu: Seconds of all its processes together.
        memory: Bytes, the most that any one process held.
        sent: Bytes to the registry; only known of a run through a `Counter`.
        output: What it printed.
    """

    seconds: float
    cpu: float
    memory: int
    sent: int = 0
    output: str = ""


def watch(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Cost:
    """Run a command to its end and measure it.

    Raises:
        RuntimeError: It failed; with what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, *argv], env=dict(env), cwd=cwd, check=True, stdout=subprocess.PIPE
    )
    code, output, seconds, cpu, memory = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{argv[0]} ended with {code}:\n{output}")
    return Cost(seconds=seconds, cpu=cpu, memory=memory, output=output)


class Counter:
    """A loopback port that hands on to a registry what it's sent, and counts it."""

    def __init__(self, target: str) -> None:
        """Name the registry, as HOST:PORT."""
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, suppress(OSError):
            others = {client: server, server: client}
            while True:
                for end in select.select(list(others), [], [])[0]:
                    data = end.recv(_PIECE)
                    if not data:
                        return
                    others[end].sendall(data)
                    if end is client:
                        with self._lock:
                            self.sent += len(data)


@contextmanager
def counting(target: str) -> Iterator[Counter]:
    """Give a counter for the block."""
    counter = Counter(target)
    try:
        yield counter
    finally:
        counter.close()
