"""Packagings on this machine: one `packager run` each, which outlives the service and is found again.

A run is a folder and an outer process with its worker, which lock the folder as long as they live. The folder has the
whole state of the run.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.api.entities import NamedValue, PackagingStatus, with_hint
from packager.api.executors.base import LeftoverRun
from packager.api.executors.run_folder import RunFolder
from packager.errors import BuildError, DiskFullError, PackagerError, RequestError, UsageError, is_disk_full
from packager.kube.job import plain
from packager.system.folders import remove_folder
from packager.system.process import start_detached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from packager.api.store.leases import Lease
    from packager.models.packaging import PackagingManifest

log = logging.getLogger(__name__)

_SHIM = "packager.api.executors.shim"
_OWN_SETTINGS = "PACKAGER_API_"  # hidden from packagings
_KIND = "local"
_KILLED = 137
_STOPPED = (130, 143)  # by SIGINT or SIGTERM, as at a shutdown of the machine
_MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """Settings of the local executor.

    Attributes:
        folder: Parent of the runs' folders; only one service can use it.
        environ: The environment of packagings; the settings of the service are removed.
        models: Folder of model archives for packagings without an outputConnection.
        engine: As in `packager run --engine`.
        log_bytes: Maximum size of each log.
        grace: Seconds between SIGTERM and SIGKILL when a run is stopped.
    """

    folder: Path
    environ: Mapping[str, str]
    models: Path | None = None
    engine: str = "auto"
    log_bytes: int = 256 << 20
    grace: float = 40.0


@dataclass(frozen=True, kw_only=True)
class RunName:
    """The name of a run's folder: `wine.7.1` is the first attempt of generation 7 of the packaging wine."""

    packaging_id: str
    generation: int
    attempt: int

    def __str__(self) -> str:
        """Return the name of the folder."""
        return f"{self.packaging_id}.{self.generation}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> RunName | None:
        """Parse the name of a folder; None if it is not the folder of a run."""
        packaging_id, _, rest = text.partition(".")
        generation, _, attempt = rest.partition(".")
        if not (packaging_id and generation.isdecimal() and attempt.isdecimal()):
            return None
        return cls(packaging_id=packaging_id, generation=int(generation), attempt=int(attempt))


class LocalExecutor:
    """Runs packagings on this machine."""

    resync_seconds = 1.0

    def __init__(self, settings: LocalSettings) -> None:
        """Lock the folder of the runs.

        Raises:
            UsageError: Another service uses the folder, or it is not writable.
        """
        self._settings = settings
        self._started: set[int] = set()
        self._reaping = threading.Lock()
        try:
            settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(settings.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.node = _node(settings.folder)
        except BlockingIOError:
            raise UsageError(
                f"another `packager api` uses {settings.folder}", hint="set PACKAGER_API_DATA_DIR to another folder"
            ) from None
        except OSError as error:
            raise UsageError(
                f"cannot use {settings.folder} for runs: {error.strerror}",
                hint="set PACKAGER_API_DATA_DIR to a writable folder",
            ) from error

    def close(self) -> None:
        """Unlock the folder; runs continue."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def start(self, lease: Lease, /) -> str:
        """Start a packaging, or find its run if it was started before, and return the handle.

        After a lost run, start another attempt.

        Raises:
            RequestError: The packaging can never run.
            BuildError: Its runs were lost too often.
            DiskFullError, PackagerError: The packaging cannot be started at the moment.
        """
        name = self._next_name(lease)
        folder = self._folder(name)
        if not folder.is_held() and _status(folder) is None:
            self._prepare_and_start(lease.manifest(), folder)
        return self._handle(name)

    def _next_name(self, lease: Lease) -> RunName:
        last = self._name(lease.handle) if lease.handle else None
        attempt = last.attempt + 1 if last and last.generation == lease.generation else 1
        if attempt > _MAX_ATTEMPTS:
            raise BuildError(
                f"the run of packaging {lease.id!r} was lost {_MAX_ATTEMPTS} times: killed, or by a shutdown",
                hint="check that the machine has enough memory; edit the packaging to run it again",
            )
        return RunName(packaging_id=lease.id, generation=lease.generation, attempt=attempt)

    def _prepare_and_start(self, manifest: PackagingManifest, folder: RunFolder) -> None:
        model = self._model(manifest)
        args = ["run", *([str(model)] if model else []), folder.manifest.name, "--engine", self._settings.engine]
        args += ["--termination-log", str(folder.termination_log), "--log-format", "plain"]
        folder.end_run(self._settings.grace, self._reap)  # of an outer process that was killed at its start
        try:
            folder.make()
            _write(folder.manifest, json.dumps(plain(manifest)))
            _write(folder.order, json.dumps({"args": args, "logBytes": self._settings.log_bytes}))
            held = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
                shim = [sys.executable, "-m", _SHIM, str(folder.path)]
                pid = start_detached(shim, env=self._environ(folder), held=held, errors=folder.errors)
            finally:
                os.close(held)  # the run has inherited it
        except OSError as error:
            with suppress(OSError):
                remove_folder(folder.path)
            message = f"cannot start the run of {manifest.subject} in {folder.path}: {error.strerror}"
            if is_disk_full(error):
                raise DiskFullError(message, hint="free disk space there") from error
            raise PackagerError(message, hint="the service retries it") from error
        with self._reaping:
            self._started.add(pid)

    def _model(self, manifest: PackagingManifest) -> Path | None:
        """Return the archive below the folder of models; None if a connection gives its store."""
        if manifest.model_holder is not None:
            return None
        name = PurePosixPath(manifest.training_zip_name)
        if self._settings.models is None or not name.parts or name.is_absolute() or ".." in name.parts:
            raise RequestError(
                f"{manifest.subject}: the store of the model archive {str(name)!r} is unknown",
                hint="name a connection of the type s3, gcs or azureblob in spec.outputConnection, or set "
                "PACKAGER_API_MODELS_DIR to a folder that contains the path in artifactName",
            )
        return self._settings.models.absolute() / name

    def _environ(self, folder: RunFolder) -> dict[str, str]:
        kept = {name: value for name, value in self._settings.environ.items() if not name.startswith(_OWN_SETTINGS)}
        places = {"PACKAGER_WORK_DIR": str(folder.work), "TMPDIR": str(folder.work)}
        return {**kept, **places}

    def observe(self, handle: str) -> PackagingStatus | None:
        """Return the status of a run; None if it is of another machine, or was killed."""
        self._reap()
        name = self._name(handle)
        if name is None:
            return None
        folder = self._folder(name)
        if folder.is_held():
            return PackagingStatus(state="running")
        status = _status(folder)
        if status is None:
            folder.remove_secrets()
        return status

    def stop(self, handle: str) -> None:
        """Stop a run and wait until it has ended; do nothing if it is not running.

        Raises:
            PackagerError: The run does not end.
        """
        name = self._name(handle)
        if name is None:
            return
        folder = self._folder(name)
        folder.end_run(self._settings.grace, self._reap)
        if folder.path.exists():
            folder.remove_secrets()

    def log(self, handle: str) -> Path | None:
        """Return the folder of a run's log; None if the run is of another machine."""
        name = self._name(handle)
        return self._folder(name).log if name else None

    def finalize(self, handle: str) -> None:
        """Remove everything but the log of an ended run whose status is stored."""
        name = self._name(handle)
        if name is not None:
            self._folder(name).keep_log_only()

    def purge(self, handle: str) -> None:
        """Remove everything of an ended run."""
        name = self._name(handle)
        if name is not None and self._folder(name).path.exists():
            remove_folder(self._folder(name).path)

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handles of all runs of one generation of a packaging."""
        return [
            left.handle for left in self.runs() if (left.packaging_id, left.generation) == (packaging_id, generation)
        ]

    def runs(self) -> Iterator[LeftoverRun]:
        """Return all runs that have anything on this machine."""
        for entry in os.scandir(self._settings.folder):
            if name := RunName.parse(entry.name):
                with suppress(FileNotFoundError):
                    yield LeftoverRun(
                        packaging_id=name.packaging_id,
                        generation=name.generation,
                        handle=self._handle(name),
                        changed=RunFolder(Path(entry.path)).changed(),
                    )

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Do nothing: an observation is cheap, so `resync_seconds` is short."""

    def _handle(self, name: RunName) -> str:
        return f"{_KIND}/{self.node}/{name}"

    def _name(self, handle: str) -> RunName | None:
        kind, _, rest = handle.partition("/")
        node, _, name = rest.partition("/")
        return RunName.parse(name) if (kind, node) == (_KIND, self.node) else None

    def _folder(self, name: RunName) -> RunFolder:
        return RunFolder(self._settings.folder.absolute() / str(name))

    def _reap(self) -> None:
        """Reap the outer processes that have ended."""
        with self._reaping:
            for pid in list(self._started):
                try:
                    ended, _ = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    ended = pid
                if ended:
                    self._started.discard(pid)


def _status(folder: RunFolder) -> PackagingStatus | None:
    """Return the status of an ended run; None if its outcome is unknown."""
    code = folder.exit_code()
    if results := folder.results():  # written only if the image was pushed, even if a later step failed
        values = [NamedValue(name=name, value=value) for name, value in results.items()]
        return PackagingStatus(state="succeeded", exit_code=0, results=values)
    if code is None or code in _STOPPED:
        return None
    if code == _KILLED:
        message = "the packager was killed by SIGKILL, usually by the kernel because of low memory"
        return PackagingStatus(state="failed", exit_code=code, reason="Killed", message=message)
    if error := folder.error():
        message = with_hint(error.get("message", ""), error.get("hint", ""))
        return PackagingStatus(state="failed", exit_code=code, reason=error.get("code", "error"), message=message)
    message = f"the packager ended with exit code {code} without an error message; see its log"
    return PackagingStatus(state="failed", exit_code=code, reason="Error", message=message)


def _node(folder: Path) -> str:
    """Return the random ID of this folder."""
    path = folder / ".node"
    if not path.exists():
        temporary = folder / ".node.new"
        temporary.write_text(secrets.token_hex(6), encoding="ascii")
        temporary.replace(path)
    return path.read_text(encoding="ascii").strip()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
