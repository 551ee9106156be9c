"""Two replicas of the service on one PostgreSQL: nothing is started twice, and each takes over from the other."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from packager.api.executors.local import RunName
from packager.api.store import open_store
from packager.api.store.encryption import read_key_file
from tests.integration.oci import pip_harness, push
from tests.integration.packagings import (
    Place,
    packaging,
    pushing_through,
    put_entities,
    put_model,
    state_of,
    wait_until,
)
from tests.integration.postgres import serve_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.api.store import Store
    from packager.api.store.leases import Lease
    from tests.integration.front import FaultProxy
    from tests.integration.registry import Registry

pytestmark = [pytest.mark.needs("postgres", "buildah", "docker-registry", "htpasswd"), pytest.mark.timeout(900)]

_FINAL = ("succeeded", "failed")
_LONG = timedelta(minutes=2)  # a lease that a service renews in time, however busy the machine is


@pytest.fixture
def database() -> Iterator[str]:
    with serve_postgres() as server:
        yield server.url("postgres")


@pytest.fixture
def base(registry: Registry, storage: dict[str, str], tiny_base: str) -> str:
    push(storage, tiny_base, registry.host, "api/base:1")
    return f"{registry.host}/api/base:1"


@pytest.fixture
def replicas(tmp_path: Path, storage: dict[str, str], base: str, database: str) -> Iterator[list[Place]]:
    harness = pip_harness(tmp_path, storage, base)
    put_model(harness.model, tmp_path / "models")
    environ = {name: value for name, value in harness.environ.items() if name != "PACKAGER_WORK_DIR"}
    places = [
        Place(
            data=tmp_path / name, models=tmp_path / "models", environ=environ, database=database, key=tmp_path / "key"
        )
        for name in ("one", "two")
    ]
    yield places
    for place in places:
        place.close()


@pytest.fixture
def store(replicas: list[Place], registry: Registry, front: FaultProxy) -> Iterator[Store]:
    opened = replicas[0].open_store()
    put_entities(opened, pushing_through(front, registry))
    yield opened
    opened.close()


def run_names(place: Place) -> list[RunName]:
    return [name for path in place.folder.iterdir() if (name := RunName.parse(path.name))]


def test_replicas_never_start_a_packaging_twice(
    replicas: list[Place], store: Store, registry: Registry, base: str
) -> None:
    for place in replicas:
        place.max_running, place.lease = 3, _LONG
    services = [place.start() for place in replicas]
    for place, service in zip(replicas, services, strict=True):
        place.wait_until_up(service)
    names = [f"wine-{number}" for number in range(12)]
    for name in names:
        store.packagings.create(packaging(name, base))
    wait_until(lambda: all(state_of(store, name) in _FINAL for name in names), 240)
    assert Counter(state_of(store, name) for name in names) == {"succeeded": 12}
    runs = [run_names(place) for place in replicas]
    assert sorted(run.packaging_id for run in [*runs[0], *runs[1]]) == sorted(names)
    assert {run.attempt for run in [*runs[0], *runs[1]]} == {1}
    assert all(runs), "one of them had nothing to do"
    assert all(registry.digest(f"api/{name}", "1") for name in names)


def test_replica_takes_over_the_runs_of_a_failed_one(
    replicas: list[Place], store: Store, front: FaultProxy, base: str
) -> None:
    front.stalled.set()
    one, two = replicas
    first = one.start()
    one.wait_until_up(first)
    store.packagings.create(packaging("wine", base))
    wait_until(lambda: state_of(store, "wine") == "running")
    first.kill()
    first.wait()
    one.kill_runs()  # its machine is gone
    front.stalled.clear()
    second = two.start()
    two.wait_until_up(second)
    wait_until(lambda: state_of(store, "wine") in _FINAL)
    assert state_of(store, "wine") == "succeeded"
    assert len(run_names(two)) == 1
    again = one.start()  # and comes back
    one.wait_until_up(again)
    wait_until(lambda: run_names(one) == [])
    assert one.processes() == []


def test_replicas_share_the_packagings(replicas: list[Place], store: Store) -> None:
    names = {f"wine-{number}" for number in range(100)}
    for name in names:
        store.packagings.create(packaging(name, "r.io/base:1"))
    other = open_store(replicas[1].database, read_key_file(replicas[1].key_file))
    claimed: list[Lease] = []

    def claim(who: Store, owner: str) -> None:
        for _ in range(50):
            claimed.extend(who.runs.claim(owner, 3, timedelta(minutes=1)))

    threads = [
        threading.Thread(target=claim, args=(who, f"{number}"))
        for number, who in enumerate([store, other, store, other])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert Counter(each.id for each in claimed) == dict.fromkeys(names, 1)


def test_edited_packaging_waits_for_its_old_run_on_the_other_replica(
    replicas: list[Place], store: Store, front: FaultProxy, registry: Registry, base: str
) -> None:
    front.stalled.set()
    one, two = replicas
    for place in replicas:
        place.lease = _LONG
        place.wait_until_up(place.start())
    store.packagings.create(packaging("wine", base))
    wait_until(lambda: state_of(store, "wine") == "running" and any(place.processes() for place in replicas))
    store.packagings.edit(packaging("wine", base, imageName="wine:2"))
    front.stalled.clear()

    def has_ended() -> bool:
        first = {*one.processes()}
        other = two.processes()
        assert not other or not first & {*one.processes()}, "both runs are at work"
        return state_of(store, "wine") in _FINAL

    wait_until(has_ended)
    assert state_of(store, "wine") == "succeeded"
    assert registry.digest("api/wine", "2")
