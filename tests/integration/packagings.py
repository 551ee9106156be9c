"""The service's store and supervisor in a process of their own, to be killed; and quick packagings for them.

`python -m tests.integration.packagings DATABASE KEY FOLDER MODELS MOST_RUNNING` runs packagings till it is ended.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.api.entities import NewIntegration, NewPackaging
from packager.api.executors.local import LocalExecutor, LocalSettings
from packager.api.executors.run_processes import MARK
from packager.api.store.database import open_store
from packager.api.store.sealing import make_key_file
from packager.api.supervisor import Rules, Supervisor
from packager.applications import APPLICATIONS
from packager.applications.schema import integration
from packager.descendants import processes
from tests.integration.packaging import ROOT, zip_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.api.store.database import Store
    from packager.models.connection import Connection

LEASE = timedelta(seconds=5)


@dataclass(kw_only=True)
class Place:
    """Where a service has what it keeps."""

    database: str
    key: Path
    folder: Path
    models: Path
    environ: dict[str, str]
    most_running: int = 6
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def open_store(self) -> Store:
        return open_store(self.database, make_key_file(self.key))

    def start(self) -> subprocess.Popen[bytes]:
        words = [self.database, str(self.key), str(self.folder), str(self.models), str(self.most_running)]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.packagings", *words],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.services.append(process)
        return process

    def log(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def close(self) -> None:
        for process in self.services:
            process.kill()
            process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def processes(self, part: str = "") -> list[int]:
        """The processes of this place's runs, by the mark in their environment."""
        mark = f"{MARK}={self.folder.absolute()}/{part}".encode()
        found = []
        for entry in processes().values():
            try:
                environ = Path("/proc", str(entry.pid), "environ").read_bytes()
            except OSError:
                continue
            if mark in environ and not entry.is_dead:
                found.append(entry.pid)
        return found


def put_entities(store: Store, registry: Connection) -> None:
    """What packagings name: the packagers' own integration, and the connection of a registry."""
    document = integration(APPLICATIONS["docker-rest"], "packager:test")
    store.integrations.create(NewIntegration.model_validate(document))
    store.connections.create(registry)


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
    rules = Rules(owner=executor.node, most_running=place.most_running, lease=LEASE, pause=0.2)
    running = Supervisor(store.packagings, executor, rules)
    running.start()
    try:
        yield running
    finally:
        running.close()
        executor.close()


def main() -> None:
    database, key, folder, models, most_running = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    place = Place(
        database=database,
        key=Path(key),
        folder=Path(folder),
        models=Path(models),
        environ=dict(os.environ),
        most_running=int(most_running),
    )
    store = place.open_store()
    with supervisor(place, store):
        logging.getLogger("ready").info("ready")
        ended.wait()


if __name__ == "__main__":
    main()
