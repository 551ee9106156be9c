"""The service as its users start it, to be killed; its store, to look into; and quick packagings for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from packager.api.entities import NewIntegration, NewPackaging
from packager.api.executors.local import LocalExecutor, LocalSettings
from packager.api.store import open_store
from packager.api.store.encryption import make_key_file, read_key_file
from packager.api.supervisor import Supervisor, SupervisorConfig
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from tests.integration.packaging import ROOT, zip_folder
from tests.integration.plain_http import PLAIN
from tests.integration.proc import processes_with
from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.api.store import Store
    from packager.models.connection import Connection
    from tests.integration.front import FaultProxy
    from tests.integration.registry import Registry


@dataclass(kw_only=True)
class Place:
    """Where one service has what it keeps, and how it is started."""

    data: Path
    models: Path
    environ: dict[str, str]
    database: str = ""
    max_running: int = 6
    lease: timedelta = timedelta(seconds=5)
    settings: dict[str, str] = field(default_factory=dict)
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)
    key: Path | None = None
    port: int = field(default_factory=free_port)

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return self.data / "runs"

    @property
    def key_file(self) -> Path:
        return self.key or self.data / "key"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def open_store(self) -> Store:
        self.data.mkdir(exist_ok=True)
        key = self.key_file
        cipher = read_key_file(key) if key.exists() else make_key_file(key)
        return open_store(self.database or f"sqlite:///{self.data}/packager.db", cipher)

    def start(self) -> subprocess.Popen[bytes]:
        """Start `packager api`."""
        own = {
            "DATA_DIR": str(self.data),
            "MODELS_DIR": str(self.models),
            "WORKERS": str(self.max_running),
            "LISTEN": f"127.0.0.1:{self.port}",
            "LEASE_SECONDS": str(self.lease.total_seconds()),
            "ENGINE": "oci",
            **({"DATABASE_URL": self.database, "KEY_FILE": str(self.key_file)} if self.database else {}),
            **self.settings,
        }
        environ = {**self.environ, **{f"PACKAGER_API_{name}": value for name, value in own.items()}}
        with self._output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "packager", "api"],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.services.append(process)
        return process

    def wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        def is_up() -> bool:
            assert process.poll() is None, self.log()
            try:
                return httpx.get(f"{self.url}/configuration", verify=PLAIN).status_code < 500
            except httpx.TransportError:
                return False

        wait_until(is_up, 180)

    @property
    def _output(self) -> Path:
        return self.data.with_suffix(".log")

    def log(self) -> str:
        return self._output.read_text()

    def close(self) -> None:
        for process in self.services:
            process.kill()
            process.wait()
        self.kill_runs()

    def kill_runs(self) -> None:
        """Kill all that runs here; some of it ends by itself when its parent does."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def processes(self, part: str = "") -> list[int]:
        """The processes of this place's runs, by their work folder in their environment."""
        return processes_with("environ", f"PACKAGER_WORK_DIR={self.folder.absolute()}/{part}".encode())


def put_entities(store: Store, registry: Connection) -> None:
    """What packagings name: the packagers' own integration, and the connection of a registry."""
    document = integration_document(INTEGRATION_TYPES["docker-rest"], "packager:test")
    store.integrations.create(NewIntegration.model_validate(document))
    store.connections.create(registry)


def pushing_through(front: FaultProxy, registry: Registry) -> Connection:
    """A connection with which no run ends as long as the front is stalled."""
    return replace(registry, host=front.host).connection("api")


def packaging(packaging_id: str, base: str, **arguments: Any) -> NewPackaging:
    """A packaging whose image is named as it is itself."""
    spec = {
        "integrationName": "docker-rest",
        "artifactName": "model.zip",
        "targets": [{"name": "docker-push", "connectionName": "registry"}],
        "arguments": {"dockerfileBaseImage": base, "imageName": packaging_id + ":1", **arguments},
    }
    return NewPackaging.model_validate({"id": packaging_id, "spec": spec})


def wait_until(what: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


def state_of(store: Store, packaging_id: str) -> str:
    return store.packagings.get(packaging_id).status.state


def put_model(model: Path, models: Path) -> None:
    """Put the archive of a model where packagings find it."""
    models.mkdir(exist_ok=True)
    zip_folder(model, models / "model.zip")


@contextmanager
def supervisor(place: Place, store: Store) -> Iterator[Supervisor]:
    """A supervisor in this process."""
    settings = LocalSettings(folder=place.folder, environ=place.environ, models=place.models, engine="oci")
    executor = LocalExecutor(settings)
    rules = SupervisorConfig(owner=executor.node, max_running=place.max_running, lease=place.lease, pause=0.2)
    running = Supervisor(store.runs, executor, rules)
    running.start()
    try:
        yield running
    finally:
        running.close()
        executor.close()
