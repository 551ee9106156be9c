"""Packagings on this machine: a `packager run` each, which lives on when the service ends and is found again.

A run is a folder and an outer process with its worker, which hold the folder's lock as long as they live. Everything
that tells what a run is doing is in the folder, and nothing in this process's memory.
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
_OWN_SETTINGS = "PACKAGER_API_"  # the service's; a packaging must not see them
_KIND = "local"
_KILLED = 137
_STOPPED = (130, 143)  # by SIGINT or SIGTERM: when the machine goes down everything gets one
_MOST_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How packagings are run on this machine.

    Attributes:
        folder: Where the runs' folders lie; one service's alone.
        environ: The environment that packagings get, without the service's own settings.
        models: A folder with model archives, for packagings that name no outputConnection.
        engine: As `packager run --engine` has it.
        log_bytes: How much of each log is kept.
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
    """What a run's folder is called: `wine.7.1`, the first attempt at the seventh generation of the packaging wine."""

    packaging_id: str
    generation: int
    attempt: int

    def __str__(self) -> str:
        """Return the folder's name."""
        return f"{self.packaging_id}.{self.generation}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> RunName | None:
        """Read a folder's name; None when it is no run's."""
        packaging_id, _, rest = text.partition(".")
        generation, _, attempt = rest.partition(".")
        if not (packaging_id and generation.isdecimal() and attempt.isdecimal()):
            return None
        return cls(packaging_id=packaging_id, generation=int(generation), attempt=int(attempt))


class LocalExecutor:
    """Runs packagings on this machine."""

    resync_seconds = 1.0

    def __init__(self, settings: LocalSettings) -> None:
        """Take the folder for this process alone.

        Raises:
            UsageError: Another service has it, or it can't be written.
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
                f"another `packager api` runs its packagings in {settings.folder}", hint="give each a folder of its own"
            ) from None
        except OSError as error:
            raise UsageError(
                f"packagings can't be run in {settings.folder}: {error.strerror}", hint="name a writable folder"
            ) from error

    def close(self) -> None:
        """Let go of the folder; what runs goes on."""
        os.close(self._lock)

    def start(self, lease: Lease, /) -> str:
        """Start a packaging, or find the one that was started already, and return its handle.

        After a lost run, start another attempt.

        Raises:
            RequestError: It can't be run as it is.
            BuildError: It was lost too often.
            DiskFullError, PackagerError: This machine can't run it now.
        """
        name = self._next_name(lease)
        folder = self._folder(name)
        if not folder.is_held() and _status(folder) is None:
            self._prepare_and_start(lease.manifest(), folder)
        return self._handle(name)

    def _next_name(self, lease: Lease) -> RunName:
        last = self._name(lease.handle) if lease.handle else None
        attempt = last.attempt + 1 if last and last.generation == lease.generation else 1
        if attempt > _MOST_ATTEMPTS:
            raise BuildError(
                f"the run of packaging {lease.id!r} was lost {_MOST_ATTEMPTS} times: killed, or the machine went down",
                hint="see whether the machine has memory enough; edit the packaging to run it again",
            )
        return RunName(packaging_id=lease.id, generation=lease.generation, attempt=attempt)

    def _prepare_and_start(self, manifest: PackagingManifest, folder: RunFolder) -> None:
        model = self._model(manifest)
        words = ["run", *([str(model)] if model else []), folder.manifest.name, "--engine", self._settings.engine]
        words += ["--termination-log", str(folder.termination_log), "--log-format", "plain"]
        folder.end_run(self._settings.grace, self._reap)  # of an outer process that was killed as it began
        try:
            folder.make()
            _write(folder.manifest, json.dumps(plain(manifest)))
            _write(folder.order, json.dumps({"words": words, "logBytes": self._settings.log_bytes}))
            held = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
                shim = [sys.executable, "-m", _SHIM, str(folder.path)]
                pid = start_detached(shim, env=self._environ(folder), held=held, errors=folder.errors)
            finally:
                os.close(held)  # the run has it as well
        except OSError as error:
            with suppress(OSError):
                remove_folder(folder.path)
            what = f"the run of {manifest.subject} can't be started in {folder.path}: {error.strerror}"
            if is_disk_full(error):
                raise DiskFullError(what, hint="make room there") from error
            raise PackagerError(what, hint="it is tried again") from error
        with self._reaping:
            self._started.add(pid)

    def _model(self, manifest: PackagingManifest) -> Path | None:
        """Return the archive below the folder of models; None where a connection says where it is."""
        if manifest.model_holder is not None:
            return None
        name = PurePosixPath(manifest.training_zip_name)
        if self._settings.models is None or not name.parts or name.is_absolute() or ".." in name.parts:
            raise RequestError(
                f"{manifest.subject}: nothing says where the model archive {str(name)!r} is stored",
                hint="name a connection of the type s3, gcs or azureblob in spec.outputConnection, or give the service "
                "a folder of models, below which artifactName is a path",
            )
        return self._settings.models.absolute() / name

    def _environ(self, folder: RunFolder) -> dict[str, str]:
        kept = {name: value for name, value in self._settings.environ.items() if not name.startswith(_OWN_SETTINGS)}
        places = {"PACKAGER_WORK_DIR": str(folder.work), "TMPDIR": str(folder.work)}
        return {**kept, **places}

    def observe(self, handle: str) -> PackagingStatus | None:
        """Tell what has become of a run; None when it is not of this machine, or was killed."""
        self._reap()
        name = self._name(handle)
        if name is None:
            return None
        folder = self._folder(name)
        if folder.is_held():
            return PackagingStatus(state="running")
        status = _status(folder)
        if status is None:
            folder.take_secrets_away()
        return status

    def stop(self, handle: str) -> None:
        """End a run and return when nothing of it runs any more; no error when there is nothing to end.

        Raises:
            PackagerError: It doesn't end.
        """
        name = self._name(handle)
        if name is None:
            return
        folder = self._folder(name)
        folder.end_run(self._settings.grace, self._reap)
        if folder.path.exists():
            folder.take_secrets_away()

    def log(self, handle: str) -> Path | None:
        """Return the folder that a run's log is in; None when it is not of this machine."""
        name = self._name(handle)
        return self._folder(name).log if name else None

    def finalize(self, handle: str) -> None:
        """Keep of an ended run nothing but its log; everything else is in the store by now."""
        name = self._name(handle)
        if name is not None:
            self._folder(name).keep_log_only()

    def purge(self, handle: str) -> None:
        """Remove all that is left of a run that doesn't run any more."""
        name = self._name(handle)
        if name is not None and self._folder(name).path.exists():
            remove_folder(self._folder(name).path)

    def find(self, packaging_id: str, generation: int) -> list[str]:
        """Return the handles of all runs of one generation of a packaging."""
        return [
            left.handle for left in self.runs() if (left.packaging_id, left.generation) == (packaging_id, generation)
        ]

    def runs(self) -> Iterator[LeftoverRun]:
        """Give every run that has left anything here."""
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
        """Do nothing: a look costs so little that everything is looked at all the time."""

    def _handle(self, name: RunName) -> str:
        return f"{_KIND}/{self.node}/{name}"

    def _name(self, handle: str) -> RunName | None:
        kind, _, rest = handle.partition("/")
        node, _, name = rest.partition("/")
        return RunName.parse(name) if (kind, node) == (_KIND, self.node) else None

    def _folder(self, name: RunName) -> RunFolder:
        return RunFolder(self._settings.folder.absolute() / str(name))

    def _reap(self) -> None:
        """Let the outer processes that have ended leave the process table; nobody needs their exit codes."""
        with self._reaping:
            for pid in list(self._started):
                try:
                    ended, _ = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    ended = pid
                if ended:
                    self._started.discard(pid)


def _status(folder: RunFolder) -> PackagingStatus | None:
    """Tell how a run has ended; None where nothing of it says so."""
    code = folder.exit_code()
    if results := folder.results():  # written only when the image is pushed, whatever came after that
        values = [NamedValue(name=name, value=value) for name, value in results.items()]
        return PackagingStatus(state="succeeded", exit_code=0, results=values)
    if code is None or code in _STOPPED:
        return None
    if code == _KILLED:
        message = "it was killed by SIGKILL, as the kernel does where memory is short; its log ends there"
        return PackagingStatus(state="failed", exit_code=code, reason="Killed", message=message)
    if error := folder.error():
        message = with_hint(error.get("message", ""), error.get("hint", ""))
        return PackagingStatus(state="failed", exit_code=code, reason=error.get("code", "error"), message=message)
    message = f"it ended with exit code {code} and no word; its log may say more"
    return PackagingStatus(state="failed", exit_code=code, reason="Error", message=message)


def _node(folder: Path) -> str:
    """Return this folder's own random name, which no other service's folder has."""
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
