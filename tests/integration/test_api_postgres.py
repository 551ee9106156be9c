"""The store on a real PostgreSQL: replicas that start together, claims that are never given twice, strange texts."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import inspect, text

from packager.api.entities import NewIntegration, NewPackaging, PackagingStatus
from packager.api.store import Store, open_store
from packager.api.store.encryption import SecretCipher
from packager.api.store.tables import METADATA
from packager.errors import DatabaseError, EntityExistsError, EntityNotFoundError, UsageError
from packager.models.connection import Connection
from tests.integration.api_service import KEY
from tests.integration.packagings import Place
from tests.integration.plain_http import PLAIN
from tests.integration.postgres import Postgres, serve_postgres
from tests.integration.test_api_logs import WrittenRun, log_url
from tests.unit.api_builders import DOCKER_REST, connection, packaging
from tests.unit.api_builders import KEY as OTHER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("postgres")
LEASE = timedelta(seconds=60)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serve_postgres() as running:
        yield running


def start(url: str) -> Store:
    return open_store(url, SecretCipher([KEY], "the test's key"))


def create(store: Store, packaging_id: str) -> None:
    store.packagings.create(NewPackaging.model_validate(packaging(packaging_id)))


def test_concurrent_starts_create_one_schema(server: Postgres) -> None:
    url = server.new_database()
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(start, [url] * 6))
    tables = set(inspect(stores[0].database.engine).get_table_names())
    assert tables == {*METADATA.tables, "alembic_version"}
    for store in stores:
        store.close()


def test_packaging_is_never_claimed_twice(server: Postgres) -> None:
    url = server.new_database()
    stores = [start(url) for _ in range(4)]
    stores[0].integrations.create(NewIntegration.model_validate(DOCKER_REST))
    stores[0].connections.create(Connection.model_validate(connection()))
    for number in range(60):
        create(stores[0], f"p{number}")

    def claim_all(number: int) -> list[str]:
        own = stores[number].runs
        mine: list[str] = []
        while claims := own.claim(f"replica-{number}", 2, LEASE):
            for claim in claims:
                assert own.record(claim, PackagingStatus(state="succeeded"))
                mine.append(claim.id)
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed = [each for mine in pool.map(claim_all, range(4)) for each in mine]
    assert sorted(claimed) == sorted(f"p{number}" for number in range(60))
    assert stores[0].packagings.counts() == {"succeeded": 60}
    for store in stores:
        store.close()


def test_one_of_two_concurrent_creations_succeeds(server: Postgres) -> None:
    store = start(server.new_database())

    def try_it(_: int) -> str:
        try:
            create(store, "same")
        except EntityExistsError:
            return "exists"
        return "created"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(try_it, range(8))) == ["created", *["exists"] * 7]
    store.close()


def test_leases_edits_and_times_work_on_postgresql(server: Postgres) -> None:
    store = start(server.new_database())
    create(store, "wine")
    [mine] = store.runs.claim("me", 1, LEASE)
    assert store.runs.renew(mine, timedelta(seconds=-1))
    [yours] = store.runs.claim("you", 1, LEASE)
    assert not store.runs.attach(mine, "x")
    assert store.runs.attach(yours, "y")
    edited = store.packagings.edit(NewPackaging.model_validate(packaging("wine")))
    assert edited.updated_at.endswith("Z")
    [abandoned] = store.runs.orphans()
    assert (abandoned.handle, abandoned.owner) == ("y", "you")
    store.runs.remove_orphan(abandoned)
    store.packagings.delete("wine")
    assert store.runs.orphans() == []
    store.close()


def test_unusual_texts_are_stored_unchanged(server: Postgres) -> None:
    store = start(server.new_database())
    for repository in (store.packagings, store.connections, store.integrations):
        for call in (repository.get, repository.delete):
            with pytest.raises(EntityNotFoundError):
                call("a\0b")
    assert store.packagings.list(0, 10, {"integration_name": ["a\0", "\ufffd"]}) == []
    store.close()


def test_wrong_key_and_missing_server_are_reported(server: Postgres) -> None:
    url = server.new_database()
    start(url).close()
    with pytest.raises(UsageError, match="the encryption key does not match the database"):
        open_store(url, SecretCipher([OTHER_KEY], "another"))
    with pytest.raises(DatabaseError) as raised:
        start(url.replace(server.password, "s3cret-wrong"))
    assert "s3cret" not in raised.value.message
    assert "password authentication failed" in raised.value.message
    with pytest.raises(DatabaseError, match="cannot use the database"):
        start("postgresql://postgres:x@127.0.0.1:1/none")


def test_stop_does_not_wait_for_the_database(server: Postgres, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    place = Place(data=tmp_path / "data", models=tmp_path, environ=environ, database=server.new_database())
    place.settings = {"STOP_SECONDS": "2"}
    store = place.open_store()
    store.integrations.create(NewIntegration.model_validate(DOCKER_REST))
    store.connections.create(Connection.model_validate(connection()))
    try:
        run = WrittenRun(place, store)
        run.writer.write_line("begun")
        service = place.start()
        place.wait_until_up(service)
        with httpx.stream("GET", log_url(place, follow=True), timeout=60, verify=PLAIN) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "begun"
            with store.database.engine.connect() as other, other.begin():
                other.execute(text("LOCK TABLE packagings IN ACCESS EXCLUSIVE MODE"))
                time.sleep(3)  # till each thread that looks at it is stuck
                began = time.monotonic()
                service.terminate()
                assert list(lines) == []
                assert service.wait(60) == 0
                assert time.monotonic() - began < 10
        assert "Traceback" not in place.log()
    finally:
        place.close()
        store.close()
