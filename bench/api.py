"""Measure the API service with many packagings stored, beside a bare FastAPI route on the same server.

Usage: python bench/api.py [PACKAGINGS] [CLIENTS] [SECONDS of each measurement] [ROUNDS], unless told 10000 100 10 3

The service is `packager api` as its users start it, on SQLite and on PostgreSQL (the distribution's, on a loopback
port). The bare route returns a small JSON object from a plain function, under the same uvicorn. Clients keep their
connections, and ask again as soon as they have an answer. Each kind of request is measured once a round, in turn
with the others, and the median counts. Memory is the service's, as Linux counts what is resident.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own PostgreSQL

from sqlalchemy import insert, update

from packager.api.entities import NewIntegration, NewPackaging
from packager.api.store import open_store
from packager.api.store.encryption import make_key_file
from packager.api.store.tables import PACKAGINGS
from packager.models.connection import Connection
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from tests.integration.postgres import serve_postgres
from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BARE = """
import sys
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/bare")
def bare() -> dict[str, str]:
    return {"message": "a small JSON object"}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
SPEC = {
    "integrationName": "docker-rest",
    "artifactName": "wine-1.0.zip",
    "arguments": {"imageName": "wine:1.0", "port": 5000, "dockerfileBaseImage": "r.io/base:1"},
    "targets": [{"name": "docker-push", "connectionName": "registry"}],
}
SUCCEEDED = (
    '{"state": "succeeded", "exitCode": 0, "results": [{"name": "image", "value": "r.io/models/wine:1.0"}, '
    '{"name": "imageDigest", "value": "r.io/models/wine@sha256:' + "ab" * 32 + '"}]}'
)


@dataclass
class Load:
    """What one kind of request has shown; times are seconds."""

    median: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def add(self, times: list[float], seconds: float) -> None:
        """Take one measurement."""
        times.sort()
        self.median.append(times[len(times) // 2])
        self.p99.append(times[int(len(times) * 0.99)])
        self.rate.append(len(times) / seconds)


async def _ask(port: int, paths: list[str], until: float, times: list[float]) -> None:
    """Ask one after the other on one connection; the least that HTTP asks of a client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (began := time.perf_counter()) < until:
            path = random.choice(paths)  # noqa: S311  (any will do)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise RuntimeError(f"{path}: {head.decode()}")
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - began)
    finally:
        writer.close()


def measure(port: int, paths: list[str], clients: int, seconds: float, load: Load) -> None:
    """Ask for any of the paths with so many clients for so long."""
    times: list[float] = []

    async def all_of_them() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(_ask(port, paths, until, times) for _ in range(clients)))

    began = time.perf_counter()
    asyncio.run(all_of_them())
    load.add(times, time.perf_counter() - began)


def memory(process: subprocess.Popen[bytes]) -> int:
    """Return the resident bytes of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
    return int(found[1]) << 10 if found else 0


def fill(url: str, key: Path, count: int) -> list[str]:
    """Store packagings that have succeeded, and return their ids."""
    store = open_store(url, make_key_file(key))
    store.integrations.create(
        NewIntegration.model_validate(integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1"))
    )
    spec = {"type": "docker", "uri": "r.io/models", "username": "ann", "password": "pass-word"}
    store.connections.create(Connection.model_validate({"id": "registry", "spec": spec}))
    store.packagings.create(NewPackaging.model_validate({"id": "wine-0", "spec": SPEC}))
    ids = [f"wine-{number}" for number in range(count)]
    with store.database.writing() as transaction:
        transaction.execute(update(PACKAGINGS).values(state="succeeded", status=SUCCEEDED))
        first = dict(transaction.execute(PACKAGINGS.select()).mappings().one())
        now = datetime.now(timezone.utc)
        times = [now + timedelta(milliseconds=number) for number in range(count)]
        rows = [
            {**first, "id": name, "created_at": at, "updated_at": at} for name, at in zip(ids[1:], times, strict=False)
        ]
        transaction.execute(insert(PACKAGINGS), rows)
    store.close()
    return ids


@contextmanager
def program(words: list[str], port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until it's no longer needed; it answers when this begins."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    process = subprocess.Popen([sys.executable, *words], env={**environ, **settings}, stderr=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{words} ended with {process.returncode}")
            try:
                asyncio.run(_ask(port, ["/bare" if "-c" in words else "/health"], time.perf_counter() + 0.1, []))
            except OSError:
                time.sleep(0.2)
            else:
                break
        yield process
    finally:
        process.terminate()
        process.wait()


def bench(name: str, url: str, count: int, clients: int, seconds: float, rounds: int) -> None:  # noqa: PLR0913, PLR0917
    """Measure the service on one database and print its table."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        database = url or f"sqlite:///{data / 'packager.db'}"
        ids = fill(database, data / "key", count)
        port, bare_port = free_port(), free_port()
        settings = {"DATA_DIR": folder, "LISTEN": f"127.0.0.1:{port}", "DATABASE_URL": database}
        settings |= {"KEY_FILE": str(data / "key")}
        environ = {f"PACKAGER_API_{key}": value for key, value in settings.items()}
        one = [f"/api/v1/model/packaging/{each}" for each in ids]
        pages = {
            size: [f"/api/v1/model/packaging?size={size}&page={page}" for page in range(count // size)]
            for size in (20, 500)
        }
        kinds = {
            "bare route": (bare_port, ["/bare"]),
            "get one": (port, one),
            "list 20": (port, pages[20]),
            "list 500": (port, pages[500]),
        }
        loads = {kind: Load() for kind in kinds}
        with (
            program(["-c", BARE, str(bare_port)], bare_port),
            program(["-m", "packager", "api"], port, **environ) as api,
        ):
            measure(port, [*one[:100], *pages[500][:1]], clients, seconds / 2, Load())  # warm
            grown = [memory(api)]
            for _ in range(rounds):
                for kind, (place, paths) in kinds.items():
                    measure(place, paths, clients, seconds, loads[kind])
                grown.append(memory(api))
        show(name, loads, grown, count, clients)


def show(name: str, loads: dict[str, Load], grown: list[int], count: int, clients: int) -> None:
    """Print the medians of the rounds, and each as a ratio to the bare route's."""
    print(f"\n{name}: {count} packagings, {clients} clients at a time")
    print(f"{'':12} {'requests/s':>10} {'median ms':>10} {'p99 ms':>8}   {'of the bare route: rate':>23} {'p99':>6}")
    bare = loads["bare route"]
    for kind, load in loads.items():
        rate, median, p99 = (statistics.median(each) for each in (load.rate, load.median, load.p99))
        of_rate, of_p99 = rate / statistics.median(bare.rate), p99 / statistics.median(bare.p99)
        print(f"{kind:12} {rate:10.0f} {median * 1000:10.1f} {p99 * 1000:8.0f}   {of_rate:23.2f} {of_p99:6.1f}")
    print("memory, MB, after warming and after each round:", *(f"{each / 1e6:.0f}" for each in grown))


def main() -> None:
    """Measure both databases."""
    usual = ["10000", "100", "10", "3"]
    count, clients, seconds, rounds = (int(word) for word in sys.argv[1:] + usual[len(sys.argv) - 1 :])
    bench("SQLite", "", count, clients, seconds, rounds)
    with serve_postgres() as server:
        bench("PostgreSQL", server.new_database(), count, clients, seconds, rounds)


if __name__ == "__main__":
    main()
