"""Packagings that the service runs on this machine: real ones, through kills of the service and of their own."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from packager.api.log_files import read_log
from tests.integration.oci import pip_harness, push
from tests.integration.packagings import (
    Place,
    packaging,
    pushing_through,
    put_entities,
    put_model,
    state_of,
    supervisor,
    wait_until,
)
from tests.integration.proc import processes, processes_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.api.store import Store
    from tests.integration.front import FaultProxy
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

_FINAL = ("succeeded", "failed")


@pytest.fixture(scope="module")
def base(registry: Registry, storage: dict[str, str], tiny_base: str) -> str:
    push(storage, tiny_base, registry.host, "api/base:1")
    return f"{registry.host}/api/base:1"


@pytest.fixture
def place(tmp_path: Path, storage: dict[str, str], base: str) -> Iterator[Place]:
    harness = pip_harness(tmp_path, storage, base)
    put_model(harness.model, tmp_path / "models")
    environ = {name: value for name, value in harness.environ.items() if name != "PACKAGER_WORK_DIR"}
    running = Place(data=tmp_path / "data", models=tmp_path / "models", environ=environ)
    yield running
    running.close()


@pytest.fixture
def store(place: Place, registry: Registry, front: FaultProxy) -> Iterator[Store]:
    opened = place.open_store()
    put_entities(opened, pushing_through(front, registry))
    yield opened
    opened.close()


def log_of(place: Place, store: Store, packaging_id: str) -> str:
    handle = store.runs.get(packaging_id).handle or ""
    return read_log(place.folder / handle.rpartition("/")[2] / "log", 0, limit=1 << 20).data.decode()


def image_of(store: Store, packaging_id: str) -> str:
    results = {each.name: each.value for each in store.packagings.get(packaging_id).status.results}
    return results["imageDigest"].rpartition("@")[2]


def test_packaging_runs_and_its_status_is_recorded(
    place: Place, store: Store, front: FaultProxy, registry: Registry, base: str
) -> None:
    store.packagings.create(packaging("wine", base))
    with supervisor(place, store):
        wait_until(lambda: state_of(store, "wine") in _FINAL)
    status = store.packagings.get("wine").status
    assert (status.state, status.exit_code, status.message) == ("succeeded", 0, "")
    assert {each.name: each.value for each in status.results}["image"] == f"{front.host}/api/wine:1"
    assert registry.digest("api/wine", "1") == image_of(store, "wine")
    assert "done in" in log_of(place, store, "wine")
    (folder,) = [path for path in place.folder.iterdir() if path.is_dir()]
    assert [path.name for path in folder.iterdir()] == ["log"]
    assert place.processes() == []


def test_failed_packaging_has_the_reason(place: Place, store: Store, base: str) -> None:
    store.packagings.create(packaging("wine", base.replace("/base:1", "/nothing:1")))
    with supervisor(place, store):
        wait_until(lambda: state_of(store, "wine") in _FINAL)
    status = store.packagings.get("wine").status
    assert (status.state, status.exit_code, status.reason) == ("failed", 33, "image-not-found")
    assert "nothing:1" in status.message
    assert "hint: " in status.message
    assert status.results == []


def test_deleted_packaging_leaves_no_process_and_no_folder(
    place: Place, store: Store, front: FaultProxy, base: str
) -> None:
    front.stalled.set()
    store.packagings.create(packaging("wine", base))
    with supervisor(place, store) as running:
        wait_until(lambda: state_of(store, "wine") == "running" and len(place.processes()) > 1)
        store.packagings.delete("wine")
        running.wake()
        wait_until(lambda: not store.runs.orphans())
        assert place.processes() == []
        assert [path for path in place.folder.iterdir() if path.is_dir()] == []


def test_edited_packaging_runs_again_without_its_old_results(
    place: Place, store: Store, front: FaultProxy, registry: Registry, base: str
) -> None:
    store.packagings.create(packaging("wine", base))
    with supervisor(place, store) as running:
        wait_until(lambda: state_of(store, "wine") in _FINAL)
        first = image_of(store, "wine")
        front.stalled.set()
        edited = store.packagings.edit(packaging("wine", base, imageName="wine:2", port=7000))
        assert edited.status.results == []
        running.wake()
        wait_until(lambda: state_of(store, "wine") == "running" and place.processes())
        store.packagings.edit(packaging("wine", base, imageName="wine:3", port=8000))
        running.wake()
        wait_until(lambda: not store.runs.orphans())
        front.stalled.clear()
        wait_until(lambda: state_of(store, "wine") in _FINAL)
        assert registry.digest("api/wine", "3") == image_of(store, "wine") != first
        wait_until(lambda: len([path for path in place.folder.iterdir() if path.is_dir()]) == 1)
    assert registry.ask("HEAD", "/v2/api/wine/manifests/2")[0] == 404


def test_runs_never_exceed_the_limit(place: Place, store: Store, base: str) -> None:
    place.max_running = 2
    for number in range(5):
        store.packagings.create(packaging(f"wine-{number}", base))
    most = 0
    with supervisor(place, store):
        while store.packagings.counts().get("succeeded", 0) < 5:
            most = max(most, store.packagings.counts().get("running", 0))
            assert not store.packagings.counts().get("failed")
            time.sleep(0.1)
    assert most == 2


def test_run_with_killed_processes_is_retried(place: Place, store: Store, front: FaultProxy, base: str) -> None:
    front.stalled.set()
    store.packagings.create(packaging("wine", base))
    with supervisor(place, store):
        wait_until(lambda: state_of(store, "wine") == "running" and len(place.processes()) > 1)
        place.kill_runs()
        front.stalled.clear()
        wait_until(lambda: state_of(store, "wine") in _FINAL)
    assert state_of(store, "wine") == "succeeded"
    assert (store.runs.get("wine").handle or "").endswith(".2")


def test_killed_packager_has_failed(place: Place, store: Store, front: FaultProxy, base: str) -> None:
    front.stalled.set()
    store.packagings.create(packaging("wine", base))
    with supervisor(place, store):
        assert front.reached.wait(120)
        run = {*place.processes()} & {*processes_with("cmdline", b"executors.shim")}
        (worker,) = [pid for pid in run if processes()[pid].parent in run]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: state_of(store, "wine") in _FINAL)
    status = store.packagings.get("wine").status
    assert (status.state, status.exit_code, status.reason) == ("failed", 137, "Killed")


@pytest.mark.timeout(900)
def test_service_killed_at_any_moment_loses_nothing(place: Place, store: Store, registry: Registry, base: str) -> None:
    names = [f"wine-{number}" for number in range(20)]
    for name in names[:-1]:
        store.packagings.create(packaging(name, base, port=5000 + int(name.rpartition("-")[2])))
    broken = names[-1]
    store.packagings.create(packaging(broken, base.replace("/base:1", "/nothing:1")))
    moments = random.Random(7)  # noqa: S311  (any moments will do)
    at_work = 0
    for number in range(10):
        service = place.start()
        if number % 2:  # else perhaps while it starts
            place.wait_until_up(service)
            wait_until(lambda: place.processes() or all(state_of(store, name) in _FINAL for name in names))
        time.sleep(moments.uniform(0.2, 5.0))
        at_work += bool(place.processes())
        service.kill()
        service.wait()
    assert at_work >= 5, "it was mostly killed while nothing ran"
    place.start()
    wait_until(lambda: all(state_of(store, name) in _FINAL for name in names), 280)
    for name in names[:-1]:
        assert state_of(store, name) == "succeeded", place.log()
        assert registry.digest(f"api/{name}", "1") == image_of(store, name)
    assert store.packagings.get(broken).status.reason == "image-not-found"
    wait_until(lambda: not place.processes())
    assert all((store.runs.get(name).handle or "").endswith(".1") for name in names), "one was started twice"
