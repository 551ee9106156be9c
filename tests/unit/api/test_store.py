from __future__ import annotations

import base64
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from packager.api.entities import NamedValue, NewIntegration, NewPackaging, PackagingStatus, StoredPackaging
from packager.api.store import Store, open_store
from packager.api.store.database import make_engine, read_url
from packager.api.store.encryption import SecretCipher, make_key_file, read_key_file
from packager.errors import EntityNotFoundError, RequestError, UsageError
from packager.models.connection import Connection
from tests.unit.api_builders import DOCKER_REST, KEY, connection, make_store, packaging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEASE = timedelta(seconds=60)
OVER = timedelta(seconds=-1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = make_store(tmp_path)
    opened.integrations.create(NewIntegration.model_validate(DOCKER_REST))
    opened.connections.create(Connection.model_validate(connection(password="s3cret-marker")))
    yield opened
    opened.close()


def create(store: Store, packaging_id: str = "wine") -> StoredPackaging:
    return store.packagings.create(NewPackaging.model_validate(packaging(packaging_id)))


def test_lease_has_everything_that_a_run_needs(store: Store) -> None:
    create(store)
    [lease] = store.runs.claim("me", 5, LEASE)
    manifest = lease.manifest()
    assert manifest.model_packaging.id == "wine"
    assert manifest.packaging_integration is not None
    assert manifest.targets[0].connection.spec.password.get_secret_value() == "s3cret-marker"
    assert "s3cret-marker" not in repr(lease)
    assert lease.handle is None


def test_manifest_of_a_lease_reports_deleted_entities(store: Store) -> None:
    create(store)
    store.connections.delete("registry")
    store.integrations.delete("docker-rest")
    [lease] = store.runs.claim("me", 5, LEASE)
    with pytest.raises(RequestError) as raised:
        lease.manifest()
    assert raised.value.problems == (
        "the integration 'docker-rest' was deleted",
        "the connection 'registry' was deleted",
    )


def test_each_packaging_is_claimed_once_and_oldest_first(store: Store) -> None:
    for number in range(5):
        create(store, f"p{number}")
    first, second = store.runs.claim("me", 3, LEASE), store.runs.claim("you", 3, LEASE)
    assert [lease.id for lease in first] == ["p0", "p1", "p2"]
    assert [lease.id for lease in second] == ["p3", "p4"]
    assert store.runs.claim("me", 3, LEASE) == []


def test_expired_lease_is_taken_over(store: Store) -> None:
    create(store)
    [mine] = store.runs.claim("me", 1, LEASE)
    assert store.runs.attach(mine, "process 7")
    assert store.runs.record(mine, PackagingStatus(state="running"))
    assert store.runs.claim("you", 1, LEASE) == []
    assert store.runs.renew(mine, OVER)
    [yours] = store.runs.claim("you", 1, LEASE)
    assert (yours.handle, yours.generation, yours.entity.status.state) == ("process 7", mine.generation, "running")
    assert not store.runs.renew(mine, LEASE)
    assert not store.runs.attach(mine, "process 8")
    assert not store.runs.record(mine, PackagingStatus(state="failed"))
    assert store.packagings.get("wine").status.state == "running"
    assert store.runs.renew(yours, OVER)
    assert [lease.owner for lease in store.runs.claim("me", 1, LEASE)] == ["me"]


def test_status_of_an_ended_packaging_does_not_change(store: Store) -> None:
    create(store)
    [lease] = store.runs.claim("me", 1, LEASE)
    store.runs.attach(lease, "process 7")
    assert store.runs.record(lease, PackagingStatus(state="succeeded"))
    assert not store.runs.record(lease, PackagingStatus(state="failed"))
    assert not store.runs.renew(lease, LEASE)
    assert store.runs.claim("me", 1, LEASE) == []
    run = store.runs.get("wine")
    assert (run.state, run.handle, run.owner) == ("succeeded", "process 7", None)
    assert store.packagings.counts() == {"succeeded": 1}


@pytest.mark.parametrize("own", [[], [{"name": "image", "value": "r.io/own:1"}]])
def test_put_results_are_kept_unless_the_run_has_results(store: Store, own: list[dict[str, str]]) -> None:
    create(store)
    [lease] = store.runs.claim("me", 1, LEASE)
    store.packagings.put_results("wine", [NamedValue(name="image", value="r.io/put:1")])
    ended = PackagingStatus.model_validate({"state": "succeeded", "results": own})
    for status in (PackagingStatus(state="running"), ended):
        assert store.runs.record(lease, status)
    [result] = store.packagings.get("wine").status.results
    assert result.value == ("r.io/own:1" if own else "r.io/put:1")
    assert store.packagings.edit(NewPackaging.model_validate(packaging())).status.results == []


def test_unreadable_packaging_fails_without_blocking_others(store: Store) -> None:
    for name in ("newer", "torn", "sealed", "sound"):
        create(store, name)
    [first] = store.runs.claim("me", 1, LEASE)
    store.runs.attach(first, "process 7")
    store.runs.renew(first, OVER)
    store.connections.create(Connection.model_validate(connection("other", password="x")))
    with store.database.writing() as transaction:
        spec = transaction.execute(text("SELECT spec FROM packagings WHERE id = 'newer'")).scalar_one()
        transaction.execute(text("""UPDATE packagings SET spec = '{"targets": 5}' WHERE id = 'newer'"""))
        transaction.execute(text("UPDATE packagings SET spec = '{' WHERE id = 'torn'"))
        transaction.execute(text("UPDATE connections SET sealed = 'an unknown key' WHERE id = 'other'"))
        other = spec.replace('"registry"', '"other"')
        transaction.execute(text("UPDATE packagings SET spec = :spec WHERE id = 'sealed'"), {"spec": other})
    assert [lease.id for lease in store.runs.claim("me", 4, LEASE)] == ["sound"]
    assert store.runs.claim("me", 4, LEASE) == []
    assert [each.handle for each in store.runs.orphans()] == ["process 7"]
    assert store.packagings.counts() == {"failed": 3, "scheduling": 1}
    status = store.packagings.get("sealed").status
    assert (status.reason, status.exit_code) == ("usage", UsageError.exit_code)
    assert "the encryption key does not match the database" in status.message
    run = store.runs.get("newer")
    assert (run.state, run.owner, run.handle) == ("failed", None, None)


def test_edited_packaging_waits_for_the_end_of_its_orphaned_run(store: Store) -> None:
    create(store)
    [old] = store.runs.claim("me", 1, LEASE)
    store.runs.attach(old, "process 7")
    store.runs.record(old, PackagingStatus(state="running"))
    edited = store.packagings.edit(NewPackaging.model_validate(packaging()))
    assert edited.status.state == "scheduling"
    assert not store.runs.record(old, PackagingStatus(state="succeeded"))
    assert store.runs.claim("me", 1, LEASE) == []
    [abandoned] = store.runs.orphans()
    assert (abandoned.packaging_id, abandoned.handle, abandoned.owner) == ("wine", "process 7", "me")
    store.runs.remove_orphan(abandoned)
    [new] = store.runs.claim("me", 1, LEASE)
    assert new.generation > old.generation
    assert new.handle is None


def test_run_of_a_deleted_packaging_is_orphaned_even_before_its_start(store: Store) -> None:
    create(store)
    [lease] = store.runs.claim("me", 1, LEASE)
    store.packagings.delete("wine")
    assert not store.runs.attach(lease, "process 7")
    assert [each.handle for each in store.runs.orphans()] == [None]
    create(store)
    assert store.runs.claim("me", 1, LEASE) == []
    store.runs.remove_orphan(store.runs.orphans()[0])
    [again] = store.runs.claim("me", 1, LEASE)
    assert again.generation > lease.generation


def test_deleted_packaging_without_a_run_leaves_no_orphan(store: Store) -> None:
    create(store)
    store.packagings.delete("wine")
    assert store.runs.orphans() == []
    with pytest.raises(EntityNotFoundError):
        store.packagings.get("wine")


def test_reopened_database_has_all_entities(tmp_path: Path, store: Store) -> None:
    created = create(store)
    store.close()
    again = make_store(tmp_path)
    assert again.packagings.get("wine") == created
    assert again.connections.get("registry").value.spec.password.get_secret_value() == "s3cret-marker"
    again.close()


def test_wrong_key_is_reported_at_the_start(tmp_path: Path, store: Store) -> None:
    store.close()
    other = base64.urlsafe_b64encode(os.urandom(32)).decode()
    with pytest.raises(UsageError, match="the encryption key does not match the database"):
        make_store(tmp_path, other)
    # The first key encrypts, every key decrypts: so a key is rotated.
    both = open_store(f"sqlite:///{tmp_path / 'packager.db'}", SecretCipher([other, KEY], "both"))
    assert both.connections.get("registry").value.spec.password.get_secret_value() == "s3cret-marker"
    both.close()


def test_first_key_is_used_for_all_secrets_after_a_rotation(tmp_path: Path, store: Store) -> None:
    store.close()
    fresh = base64.urlsafe_b64encode(os.urandom(32)).decode()
    url = f"sqlite:///{tmp_path / 'packager.db'}"
    open_store(url, SecretCipher([fresh, KEY], "both keys")).close()
    again = open_store(url, SecretCipher([fresh], "the new key"))  # the old one was taken away
    kept = again.connections.get("registry").value
    assert kept.spec.password.get_secret_value() == "s3cret-marker"
    again.close()
    with pytest.raises(UsageError, match="the encryption key does not match"):
        make_store(tmp_path)


def test_newer_database_is_refused(tmp_path: Path, store: Store) -> None:
    with store.database.writing() as transaction:
        transaction.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(UsageError, match="newer than this version"):
        make_store(tmp_path)


def test_database_file_is_private_and_secrets_are_encrypted(tmp_path: Path, store: Store) -> None:
    store.close()
    assert (tmp_path / "packager.db").stat().st_mode & 0o777 == 0o600
    for file in tmp_path.iterdir():
        assert b"s3cret-marker" not in file.read_bytes()


def test_secrets_are_registered_once_when_they_come_into_use(tmp_path: Path) -> None:
    registered: list[set[str]] = []
    cipher = SecretCipher([KEY], "the test's key")

    def opened() -> Store:
        return open_store(f"sqlite:///{tmp_path / 'other.db'}", cipher, lambda secrets: registered.append(set(secrets)))

    store = opened()
    spec = {"type": "docker", "uri": "r.io", "password": "pass-word", "keySecret": "hush"}
    store.connections.create(Connection.model_validate({"id": "registry", "spec": spec}))
    assert registered == [{"pass-word", "hush"}]
    store.connections.find_all(["registry"])
    store.close()
    assert registered == [{"pass-word", "hush"}]
    store = opened()
    store.connections.list(0, 10, {})
    assert len(registered) == 1
    store.connections.find_all(["registry"])
    assert registered[1:] == [{"pass-word", "hush"}]
    store.close()


def test_database_connections_have_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def connect(**parameters: object) -> None:
        asked.append(parameters)
        raise psycopg.OperationalError("refused")

    monkeypatch.setattr(psycopg, "connect", lambda *_args, **parameters: connect(**parameters))
    engine = make_engine(read_url("postgresql://u:s3cret@db/x?connect_timeout=3"))
    with pytest.raises(OperationalError):
        engine.connect()
    assert asked[0]["connect_timeout"] == "3"  # as the address has it
    assert asked[0]["tcp_user_timeout"] == 30_000


def test_key_file_is_created_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "key"
    sealed = make_key_file(path).encrypt({"a": "b"})
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key_file(path).decrypt(sealed) == {"a": "b"}
    assert [each.name for each in path.parent.iterdir()] == ["key"]
    path.chmod(0o604)
    with pytest.raises(UsageError, match="every user can access"):
        read_key_file(path)


@pytest.mark.parametrize("keys", [[], ["short"], [KEY, "!" * 44], ["é" * 44]])
def test_invalid_key_is_refused(keys: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        SecretCipher(keys, "the file")
    for key in keys:
        assert key not in raised.value.message


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cret@h/x", "no url s3cret", "sqlite://", "sqlite:///:memory:", "postgresql://u:s3cret@h:x/y"]
)
def test_invalid_database_url_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_url(url)
    assert "s3cret" not in raised.value.message
