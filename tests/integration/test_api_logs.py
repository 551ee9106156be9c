"""Logs over HTTP from the service as its users start it: many followers, stalled ones, and gigabytes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from packager.api.entities import PackagingStatus
from packager.api.log_files import LogWriter
from tests.integration.oci import pip_harness, push
from tests.integration.packagings import Place, packaging, put_entities, put_model, wait_until
from tests.integration.plain_http import PLAIN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from packager.api.store import Store
    from packager.api.store.leases import Lease
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

_FOLLOWERS = 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    running = Place(data=tmp_path / "data", models=tmp_path / "models", environ=environ)
    yield running
    running.close()


@pytest.fixture
def store(place: Place, registry: Registry) -> Iterator[Store]:
    opened = place.open_store()
    put_entities(opened, registry.connection("api"))
    yield opened
    opened.close()


class WrittenRun:
    """A run that another owner has claimed for long, and whose log the test writes."""

    def __init__(self, place: Place, store: Store, packaging_id: str = "wine", *, log_bytes: int = 4 << 30) -> None:
        self._store = store
        place.folder.mkdir(exist_ok=True)
        node = place.folder / ".node"
        if not node.exists():
            node.write_text("0123456789ab")
        store.packagings.create(packaging(packaging_id, "r.io/base:1"))
        self._lease: Lease
        (self._lease,) = store.runs.claim("a test", 1, timedelta(hours=1))
        name = f"{packaging_id}.{self._lease.generation}.1"
        assert store.runs.attach(self._lease, f"local/{node.read_text()}/{name}")
        assert store.runs.record(self._lease, PackagingStatus(state="running"))
        self.writer = LogWriter(place.folder / name / "log", most_bytes=log_bytes)

    def end(self) -> None:
        self.writer.close()
        assert self._store.runs.record(self._lease, PackagingStatus(state="succeeded"))


def memory(process: subprocess.Popen[bytes], name: str = "VmRSS") -> int:
    """Bytes that a process has in memory, or had at most (`VmHWM`)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def sockets_of(process: subprocess.Popen[bytes]) -> int:
    found = 0
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(path.readlink()).startswith("socket:")
    return found


def ask(url: str) -> httpx.Response:
    return httpx.get(url, verify=PLAIN, timeout=60)


def log_url(place: Place, *, follow: bool, packaging_id: str = "wine") -> str:
    return f"{place.url}/model/packaging/{packaging_id}/log?follow={str(follow).lower()}"


def test_200_clients_follow_one_log(place: Place, store: Store) -> None:
    run = WrittenRun(place, store)
    service = place.start()
    place.wait_until_up(service)
    early = "".join(f"early line {number}\n" for number in range(200_000))
    for line in early.splitlines():
        run.writer.write_line(line)
    before = memory(service)

    async def follow(client: httpx.AsyncClient, number: int) -> int:
        await asyncio.sleep(number / 100)
        length, last = 0, b""
        async with client.stream("GET", log_url(place, follow=True)) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            async for block in answer.aiter_raw():
                length, last = length + len(block), block
        assert last.endswith(b"late line 99\n")
        return length

    async def test() -> set[int]:
        limits = httpx.Limits(max_connections=_FOLLOWERS)
        async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
            followers = [asyncio.create_task(follow(client, number)) for number in range(_FOLLOWERS)]
            for number in range(100):
                run.writer.write_line(f"late line {number}")
                await asyncio.sleep(0.05)
            await asyncio.to_thread(run.end)
            return set(await asyncio.gather(*followers))

    (length,) = asyncio.run(test())
    assert length == len(early) + sum(len(f"late line {number}\n") for number in range(100))
    grown = memory(service, "VmHWM") - before
    assert grown < 64 << 20, f"{grown >> 20} MB for {_FOLLOWERS} followers of {len(early) >> 20} MB"


def test_client_that_stops_reading_is_disconnected(place: Place, store: Store) -> None:
    run = WrittenRun(place, store)
    for _ in range(40_000):
        run.writer.write_line("x" * 999)
    place.settings = {"LOG_STALL_SECONDS": "20", "MAX_LOG_STREAMS": "3"}
    service = place.start()
    place.wait_until_up(service)
    before = sockets_of(service)
    stalled = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", place.port))
        path = log_url(place, follow=True).removeprefix(f"http://127.0.0.1:{place.port}")
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        stalled.append(connection)
    refused = ask(log_url(place, follow=False))
    assert refused.status_code == 429
    assert refused.json() == {"message": "3 log streams are open, the maximum"}
    wait_until(lambda: ask(log_url(place, follow=False)).status_code == 200, 90)
    wait_until(lambda: sockets_of(service) <= before, 90)
    for connection in stalled:
        with suppress(ConnectionResetError):
            while connection.recv(1 << 20):
                pass
        connection.close()
    assert "Traceback" not in place.log()


def test_stop_ends_the_log_streams(place: Place, store: Store) -> None:
    run = WrittenRun(place, store)
    run.writer.write_line("begun")
    service = place.start()
    place.wait_until_up(service)
    with httpx.stream("GET", log_url(place, follow=True), timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "begun"
        began = time.monotonic()
        service.terminate()
        assert list(lines) == [], "the end is one that a client takes for it"
    assert service.wait(60) == 0
    assert time.monotonic() - began < 9, "it lasts as long as requests may"
    assert "Traceback" not in place.log()
    assert "Cancel" not in place.log()


def test_stop_disconnects_clients_that_do_not_read(place: Place, store: Store) -> None:
    run = WrittenRun(place, store)
    for _ in range(40_000):
        run.writer.write_line("x" * 999)
    place.settings = {"STOP_SECONDS": "2"}
    service = place.start()
    place.wait_until_up(service)
    with socket.create_connection(("127.0.0.1", place.port)) as connection:
        path = log_url(place, follow=True).removeprefix(f"http://127.0.0.1:{place.port}")
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        service.terminate()
        assert service.wait(60) == 0
    assert "at the stop: it has not read everything" in place.log()
    assert "Traceback" not in place.log()


def test_log_of_a_gigabyte_is_streamed_from_disk(place: Place, store: Store) -> None:
    run = WrittenRun(place, store)
    line = "y" * ((1 << 20) - 1)
    for _ in range(1024):
        run.writer.write_line(line)
    run.end()
    service = place.start()
    place.wait_until_up(service)
    ask(log_url(place, follow=False, packaging_id="none"))
    before, length = memory(service), 0
    with httpx.stream("GET", log_url(place, follow=True), timeout=60) as answer:
        for block in answer.iter_raw(1 << 20):
            length += len(block)
    assert length == 1 << 30
    assert memory(service, "VmHWM") - before < 32 << 20


def test_log_stream_ends_with_its_packaging(
    tmp_path: Path, storage: dict[str, str], registry: Registry, tiny_base: str
) -> None:
    push(storage, tiny_base, registry.host, "api/base:1")
    harness = pip_harness(tmp_path, storage, f"{registry.host}/api/base:1")
    put_model(harness.model, tmp_path / "models")
    environ = {name: value for name, value in harness.environ.items() if name != "PACKAGER_WORK_DIR"}
    place = Place(data=tmp_path / "data", models=tmp_path / "models", environ=environ)
    store = place.open_store()
    put_entities(store, registry.connection("api"))
    try:
        place.wait_until_up(place.start())
        created = httpx.post(
            f"{place.url}/model/packaging", json=packaging("wine", harness.base).model_dump(by_alias=True), timeout=60
        )
        assert created.status_code == 201, created.text
        with httpx.stream("GET", log_url(place, follow=True), timeout=60) as answer:
            lines = list(answer.iter_lines())
        status = ask(f"{place.url}/model/packaging/wine").json()["status"]
        assert status["state"] == "succeeded", status
        assert any("imageDigest: " in line for line in lines)
        assert ask(log_url(place, follow=False)).text.splitlines() == lines
        assert httpx.delete(f"{place.url}/model/packaging/wine", timeout=60).status_code == 200
        assert ask(log_url(place, follow=True)).status_code == 404
        assert ask(log_url(place, follow=True) + "&wrong=1").status_code == 400
        wait_until(lambda: not [path for path in place.folder.iterdir() if path.is_dir()])
    finally:
        store.close()
        place.close()
