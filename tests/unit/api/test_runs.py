from __future__ import annotations

import fcntl
import json
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy.exc import OperationalError

from packager.api.entities import NewIntegration, NewPackaging, PackagingStatus
from packager.api.executors.base import LeftoverRun
from packager.api.executors.kubernetes import JobHandle, JobLog
from packager.api.executors.local import LocalExecutor, LocalSettings, RunName
from packager.api.executors.run_folder import RunFolder
from packager.api.garbage_collector import GarbageCollector
from packager.api.store import Store, open_store
from packager.api.store.encryption import make_key_file
from packager.api.supervisor import Supervisor, SupervisorConfig
from packager.errors import BuildError, ClusterUnreachableError, PackagerError, RequestError, UsageError
from packager.models.connection import Connection
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from packager.api.store.leases import Lease
    from packager.kube.cluster import Cluster

SPEC = {
    "integrationName": "docker-rest",
    "artifactName": "wine-1.0.zip",
    "targets": [{"name": "docker-push", "connectionName": "registry"}],
}
LEASE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db", make_key_file(tmp_path / "key"))
    opened.integrations.create(
        NewIntegration.model_validate(integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1"))
    )
    spec = {"type": "docker", "uri": "r.io/models", "password": "pass-word"}
    opened.connections.create(Connection.model_validate({"id": "registry", "spec": spec}))
    yield opened
    opened.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(LocalSettings(folder=tmp_path / "runs", environ={"HOME": "/nowhere"}, grace=0.1))
    yield executor
    executor.close()


def create(store: Store, packaging_id: str = "wine") -> None:
    store.packagings.create(NewPackaging.model_validate({"id": packaging_id, "spec": SPEC}))


def status_of(store: Store, packaging_id: str = "wine") -> PackagingStatus:
    return store.packagings.get(packaging_id).status


# RunRepository on this machine


def folder_of(local: LocalExecutor, tmp_path: Path, name: str = "wine.7.1") -> tuple[RunFolder, str]:
    folder = RunFolder(tmp_path / "runs" / name)
    folder.make()
    folder.lock.touch()
    return folder, f"local/{local.node}/{name}"


def test_run_is_active_while_its_lock_is_held(local: LocalExecutor, tmp_path: Path) -> None:
    folder, handle = folder_of(local, tmp_path)
    with folder.lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert local.observe(handle) == PackagingStatus(state="running")
        assert local.observe(handle) == PackagingStatus(state="running"), "a look takes the lock away"
    assert local.observe(handle) is None


@pytest.mark.parametrize(
    ("code", "files", "expected"),
    [
        (0, {"result.json": {"image": "r.io/a:1"}}, ("succeeded", 0, "", "")),
        (None, {"result.json": {"image": "r.io/a:1"}}, ("succeeded", 0, "", "")),  # killed when all was done
        (
            31,
            {"termination.json": {"error": {"code": "registry-auth", "message": "no", "hint": "log in"}}},
            ("failed", 31, "registry-auth", "no\nhint: log in"),
        ),
        (137, {}, ("failed", 137, "Killed", "the packager was killed by SIGKILL")),
        (1, {"termination.json": "half of it"}, ("failed", 1, "Error", "the packager ended with exit code 1")),
        (1, {"termination.json": {"error": "a word"}}, ("failed", 1, "Error", "the packager ended with exit code 1")),
        (143, {"termination.json": {"error": {"code": "interrupted", "message": "by SIGTERM"}}}, None),
        (143, {}, None),
        (None, {}, None),
    ],
)
def test_status_is_read_from_the_folder_of_the_run(
    local: LocalExecutor,
    tmp_path: Path,
    code: int | None,
    files: dict[str, object],
    expected: tuple[str, int, str, str] | None,
) -> None:
    folder, handle = folder_of(local, tmp_path)
    for name, content in files.items():
        (folder.path / name).write_text(json.dumps(content)[: -3 if isinstance(content, str) else None])
    if code is not None:
        folder.write_exit_code(code)
    status = local.observe(handle)
    if expected is None:
        assert status is None
        return
    assert status is not None
    assert (status.state, status.exit_code, status.reason) == expected[:3]
    assert status.message.startswith(expected[3])


def test_ended_run_leaves_only_its_log(local: LocalExecutor, tmp_path: Path) -> None:
    folder, handle = folder_of(local, tmp_path)
    for path in (folder.manifest, folder.order, folder.result, folder.errors, folder.work / "model.zip"):
        path.write_text("pass-word")
    folder.log.mkdir()
    (folder.log / f"{0:015d}").write_text("a line\n")
    local.finalize(handle)
    assert [path.name for path in folder.path.iterdir()] == ["log"]
    local.purge(handle)
    assert not folder.path.exists()
    local.purge(handle)
    local.stop(handle)


def test_runs_of_other_machines_are_ignored(local: LocalExecutor, tmp_path: Path) -> None:
    folder, _ = folder_of(local, tmp_path)
    for handle in ("local/0123456789ab/wine.7.1", "kubernetes/ml/wine/uid", "local/", "nonsense", "local/x/../../etc"):
        assert local.observe(handle) is None
        assert local.log(handle) is None
        local.stop(handle)
        local.finalize(handle)
        local.purge(handle)
    assert folder.path.exists()


def test_runs_lists_all_folders(local: LocalExecutor, tmp_path: Path) -> None:
    _, handle = folder_of(local, tmp_path)
    _, other = folder_of(local, tmp_path, "wine.7.2")
    folder_of(local, tmp_path, "barley.7.1")
    (tmp_path / "runs" / "lost+found").mkdir()
    assert {run.packaging_id for run in local.runs()} == {"wine", "barley"}
    assert sorted(local.find("wine", 7)) == [handle, other]
    assert local.find("wine", 8) == []
    assert all(abs(run.changed - time.time()) < 60 for run in local.runs())


def test_folder_of_runs_cannot_be_shared(local: LocalExecutor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another `packager api`"):
        LocalExecutor(LocalSettings(folder=tmp_path / "runs", environ={}))
    node = local.node
    local.close()
    again = LocalExecutor(LocalSettings(folder=tmp_path / "runs", environ={}))
    assert again.node == node
    again.close()


def test_packaging_without_a_model_store_is_refused(local: LocalExecutor, store: Store) -> None:
    create(store)
    (lease,) = store.runs.claim("one", 1, LEASE)
    with pytest.raises(RequestError, match=r"the store of the model archive 'wine-1\.0\.zip' is unknown"):
        local.start(lease)
    lost = replace(lease, handle=f"local/{local.node}/wine.{lease.generation}.3")
    with pytest.raises(BuildError, match="was lost 3 times"):
        local.start(lost)
    assert list(local.runs()) == []


@pytest.mark.parametrize("text", ["", "wine", "wine.1", "wine.1.x", ".1.1", "wine.1.1.1", "wine.-1.1"])
def test_name_of_another_folder_is_not_a_run(text: str) -> None:
    assert RunName.parse(text) is None


def test_handle_round_trip() -> None:
    name = RunName(packaging_id="wine", generation=7, attempt=2)
    assert RunName.parse(str(name)) == name
    job = JobHandle(namespace="ml", name="wine", uid="1-2")
    assert JobHandle.parse(str(job)) == job
    assert JobHandle.parse("local/1/wine.7.1") is None


# The supervisor


@dataclass
class Memory:
    """An executor whose runs are what the test says they are."""

    resync_seconds: float = 0.0
    statuses: dict[str, PackagingStatus | None] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    finalized: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    left: list[LeftoverRun] = field(default_factory=list)
    failures: list[PackagerError] = field(default_factory=list)
    on_start: Callable[[], object] = lambda: None

    def start(self, lease: Lease) -> str:
        if self.failures:
            raise self.failures.pop(0)
        attempt = int(lease.handle.rpartition(".")[2]) + 1 if lease.handle else 1
        handle = f"{lease.id}.{lease.generation}.{attempt}"
        if handle not in self.started:
            self.started.append(handle)
        self.statuses.setdefault(handle, PackagingStatus(state="running"))
        self.on_start()
        return handle

    def observe(self, handle: str) -> PackagingStatus | None:
        return self.statuses.get(handle)

    def stop(self, handle: str) -> None:
        self.stopped.append(handle)

    def log(self, handle: str) -> Path | None:
        raise AssertionError(handle)

    def finalize(self, handle: str) -> None:
        self.finalized.append(handle)

    def purge(self, handle: str) -> None:
        self.purged.append(handle)

    def find(self, packaging_id: str, generation: int) -> list[str]:
        return [handle for handle in self.started if handle.startswith(f"{packaging_id}.{generation}.")]

    def runs(self) -> Iterator[LeftoverRun]:
        return iter(self.left)

    def watch(self, on_change: Callable[[str], None]) -> None:
        del on_change

    def close(self) -> None:
        pass


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def supervisor(store: Store, memory: Memory) -> Iterator[Supervisor]:
    made = Supervisor(store.runs, memory, SupervisorConfig(owner="one", max_running=2, lease=LEASE, retry_seconds=0.01))
    yield made
    made.close()


def go_on(supervisor: Supervisor, until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        supervisor.round()
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.005)


def test_packaging_is_scheduled_run_and_finalized(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    create(store)
    go_on(supervisor, lambda: status_of(store).state == "running")
    (handle,) = memory.started
    assert store.runs.get("wine").handle == handle
    end = PackagingStatus(state="failed", exit_code=31, reason="registry-auth", message="no")
    memory.statuses[handle] = end
    go_on(supervisor, lambda: status_of(store).is_final and not supervisor.running)
    assert status_of(store) == end
    assert memory.finalized == [handle]
    assert memory.stopped == []


def test_final_status_is_stored_after_a_database_outage(
    store: Store, memory: Memory, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    go_on(supervisor, lambda: status_of(store).state == "running")
    record = store.runs.record
    failed: list[PackagingStatus] = []

    def away_once(lease: Lease, status: PackagingStatus) -> bool:
        if not failed:
            failed.append(status)
            assert memory.finalized == []
            raise OperationalError("UPDATE", {}, OSError("the database is away"))
        return record(lease, status)

    monkeypatch.setattr(store.runs, "record", away_once)
    end = PackagingStatus(state="succeeded", exit_code=0)
    memory.statuses[memory.started[0]] = end
    go_on(supervisor, lambda: not supervisor.running)
    assert failed == [end]
    assert status_of(store) == end
    assert len(memory.started) == 1


def test_failing_claim_does_not_delay_the_runs(
    store: Store, memory: Memory, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    go_on(supervisor, lambda: status_of(store).state == "running")

    def claim(*_args: object) -> None:
        raise UsageError("the key doesn't fit")

    monkeypatch.setattr(store.runs, "claim", claim)
    memory.statuses[memory.started[0]] = PackagingStatus(state="succeeded", exit_code=0)

    def has_ended() -> bool:
        with pytest.raises(UsageError):
            supervisor.round()
        return status_of(store).is_final

    deadline = time.monotonic() + 30
    while not has_ended():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.005)


def test_runs_never_exceed_the_limit(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    for number in range(5):
        create(store, f"wine-{number}")
    go_on(supervisor, lambda: len(memory.started) == 2)
    for _ in range(20):
        supervisor.round()
    assert len(memory.started) == supervisor.running == 2


def test_started_run_without_a_stored_handle_is_not_started_again(store: Store, memory: Memory) -> None:
    create(store)
    (lease,) = store.runs.claim("one", 1, LEASE)
    memory.start(lease)  # and the service was killed
    again = Supervisor(store.runs, memory, SupervisorConfig(owner="one", lease=LEASE))
    store.runs.release_all("one")
    go_on(again, lambda: status_of(store).state == "running")
    assert len(memory.started) == 1
    again.close()


def test_lost_run_gets_another_attempt(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    create(store)
    go_on(supervisor, lambda: status_of(store).state == "running")
    memory.statuses[memory.started[0]] = None
    go_on(supervisor, lambda: len(memory.started) == 2 and store.runs.get("wine").handle == memory.started[1])
    assert memory.started[1].endswith(".2")
    assert status_of(store).state == "running"


def test_lease_that_expires_during_the_start_starts_no_second_run(
    store: Store, memory: Memory, supervisor: Supervisor
) -> None:
    begun, held = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        begun.release()
        assert held.wait(60)

    create(store)
    memory.on_start = hold
    supervisor.round()
    assert begun.acquire(timeout=60)
    store.runs.release_all("one")
    for _ in range(5):
        supervisor.round()
    held.set()
    go_on(supervisor, lambda: status_of(store).state == "running")
    assert not begun.acquire(blocking=False)


@pytest.mark.parametrize("what", ["edited", "deleted"])
def test_run_is_stopped_if_its_lease_was_lost_during_the_start(
    store: Store, memory: Memory, supervisor: Supervisor, what: str
) -> None:
    def change() -> None:
        memory.on_start = lambda: None
        if what == "deleted":
            store.packagings.delete("wine")
        else:
            store.packagings.edit(NewPackaging.model_validate({"id": "wine", "spec": SPEC}))

    create(store)
    memory.on_start = change
    go_on(supervisor, lambda: memory.purged and not store.runs.orphans())
    first = memory.started[0]
    assert first in memory.stopped
    assert first in memory.purged
    if what == "edited":
        go_on(supervisor, lambda: status_of(store).state == "running")
        assert memory.started[1] != first


def test_orphaned_run_of_another_service_is_left_to_it(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    create(store)
    (lease,) = store.runs.claim("two", 1, LEASE)
    store.runs.attach(lease, "theirs")
    store.packagings.edit(NewPackaging.model_validate({"id": "wine", "spec": SPEC}))
    for _ in range(20):
        supervisor.round()
    assert memory.stopped == memory.started == [], "the old run is to be ended by its owner first"


def test_final_start_error_fails_the_packaging(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    create(store)
    memory.failures = [RequestError("it is wrong", hint="mend it")]
    go_on(supervisor, lambda: status_of(store).is_final)
    status = status_of(store)
    assert (status.state, status.exit_code, status.reason) == ("failed", 12, "request")
    assert status.message == "it is wrong\nhint: mend it"


def test_retryable_start_error_is_retried(store: Store, memory: Memory, supervisor: Supervisor) -> None:
    create(store)
    memory.failures = [ClusterUnreachableError("no answer") for _ in range(2)]
    go_on(supervisor, lambda: status_of(store).message == "no answer")
    assert status_of(store).state == "scheduling"
    go_on(supervisor, lambda: status_of(store).state == "running")
    assert status_of(store).message == ""


def test_stop_has_a_time_limit_and_unfinished_work_is_repeated(
    store: Store, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    begun, held = threading.Event(), threading.Event()

    def hold() -> None:
        memory.on_start = lambda: None
        begun.set()
        assert held.wait(60)

    create(store)
    memory.on_start = hold
    stuck = Supervisor(store.runs, memory, SupervisorConfig(owner="one", lease=LEASE, stop_seconds=0.2))
    stuck.start()
    assert begun.wait(60)
    began = time.monotonic()
    with caplog.at_level("INFO"):
        assert not stuck.close()
    assert time.monotonic() - began < 20
    assert "is left to the next process" in caplog.text
    assert store.runs.get("wine").handle is None
    following = Supervisor(store.runs, memory, SupervisorConfig(owner="one", lease=LEASE, pause=0.01))
    following.start()
    deadline = time.monotonic() + 30
    while status_of(store).state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert following.close()
    assert store.runs.get("wine").handle == memory.started[0]
    assert len(memory.started) == 1
    held.set()
    assert stuck.close()


def test_deleted_entity_fails_the_packaging_with_a_message(store: Store, local: LocalExecutor) -> None:
    create(store)
    store.connections.delete("registry")
    running = Supervisor(store.runs, local, SupervisorConfig(owner="one", lease=LEASE))
    go_on(running, lambda: status_of(store).is_final)
    running.close()
    assert "the connection 'registry' was deleted" in status_of(store).message


# What is left over


def left(handle: str, *, days: float = 0.0) -> LeftoverRun:
    name = RunName.parse(handle)
    assert name is not None
    changed = time.time() - days * 86_400
    return LeftoverRun(packaging_id=name.packaging_id, generation=name.generation, handle=handle, changed=changed)


def test_garbage_collector_stops_leftover_runs_only(store: Store, memory: Memory) -> None:
    create(store)
    (lease,) = store.runs.claim("one", 1, LEASE)
    number = lease.generation
    memory.left = [left(f"wine.{number}.1"), left(f"wine.{number - 1}.1"), left("barley.1.1"), left("busy.1.1")]
    sweeper = GarbageCollector(store.runs, memory, is_busy=lambda name: name == "busy", log_days=30)
    sweeper.collect()
    assert memory.purged == memory.stopped == [f"wine.{number - 1}.1", "barley.1.1"], "one not noted yet may live"
    store.runs.attach(lease, f"wine.{number}.2")
    memory.left, memory.stopped = [left(f"wine.{number}.1"), left(f"wine.{number}.2")], []
    sweeper.collect()
    assert memory.stopped == [f"wine.{number}.1"]


def test_old_logs_are_removed(store: Store, memory: Memory) -> None:
    create(store)
    (lease,) = store.runs.claim("one", 1, LEASE)
    handle = f"wine.{lease.generation}.1"
    store.runs.attach(lease, handle)
    sweeper = GarbageCollector(store.runs, memory, is_busy=lambda _name: False, log_days=30)
    memory.left = [left(handle, days=100)]
    sweeper.collect()
    assert memory.purged == [], "it may still run"
    store.runs.record(lease, PackagingStatus(state="succeeded"))
    memory.left = [left(handle, days=29)]
    sweeper.collect()
    assert memory.purged == []
    memory.left = [left(handle, days=31)]
    sweeper.collect()
    assert memory.purged == [handle]
    assert memory.stopped == []


def test_stored_json_equals_the_serialized_entities(store: Store) -> None:
    create(store, "barley")
    create(store)
    (lease, _) = store.runs.claim("one", 2, LEASE)
    results = [{"name": "image", "value": 'r.io/"ä\n'}]
    store.runs.record(lease, PackagingStatus.model_validate({"state": "succeeded", "results": results}))
    entities = store.packagings.list(0, 10, {})
    assert len(entities) == 2
    assert json.loads(store.packagings.list_json(0, 10, {})) == [
        each.model_dump(by_alias=True, mode="json", exclude_none=True) for each in entities
    ]
    assert json.loads(store.packagings.get_json("wine")) == json.loads(store.packagings.list_json(0, 10, {}))[0]
    assert store.packagings.list_json(1, 10, {}) == "[]"


def test_unwritable_log_does_not_hide_the_end_of_a_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cluster = cast("Cluster", None)  # unused: the folder of the log cannot be created
    JobLog(cluster, "wine", "uid", tmp_path / "file" / "log", most_bytes=1000).finish()
    assert "cannot store the log of wine: Not a directory" in caplog.text
