"""Fetching a model from its store: streamed to a file, resumed after a cut connection, checked before it's used."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from packager.errors import ArtifactError, DiskFullError, is_disk_full
from packager.sources.stores.checksums import Verifier, user_checksum
from packager.sources.stores.store import changed
from packager.sources.stores.tls import authorities, ssl_context
from packager.system.retries import RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from packager.logs.progress import Reporter
    from packager.settings import Settings
    from packager.sources.stores.location import RemoteModel
    from packager.sources.stores.store import Opened, Source

log = logging.getLogger(__name__)

_DISK_HINT = "PACKAGER_WORK_DIR names a folder on a larger disk"
_ATTEMPTS = 5
_PROGRESS = 1 << 20  # bytes after which a cut connection doesn't count as a failed attempt


@contextmanager
def fetched(
    model: Path | RemoteModel, workspace: Path, *, settings: Settings, environ: Mapping[str, str], reporter: Reporter
) -> Iterator[Path]:
    """Give the path of a model on this machine's disk; a fetched one is removed after the block.

    Raises:
        ArtifactError: The object is missing, too large, damaged, or was changed meanwhile.
        StorageError: The store refuses, or can't be reached.
        RequestError: The connection is wrong.
        DiskFullError: There is no space for it.
    """
    if isinstance(model, Path):
        yield model
        return
    folder = workspace / "download"
    folder.mkdir()
    try:
        with open_source(model, folder, settings=settings, environ=environ) as source:
            archive = folder / "model.zip"
            transfer = Transfer(source=source, model=model, target=archive, limit=settings.artifact_max_download_bytes)
            transfer.run(reporter)
        yield archive
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left in {workspace}", hint=_DISK_HINT) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_source(
    model: RemoteModel, workspace: Path, *, settings: Settings, environ: Mapping[str, str]
) -> Iterator[Source]:
    """Open the store of a model.

    Raises:
        RequestError, StorageError: As for `fetched`.
    """
    # Only the scheme's own modules are imported: boto3 and obstore take a good part of a second.
    pem = authorities(settings.ca_file, environ)
    if model.is_web:
        from packager.sources.stores.https import WebSource  # noqa: PLC0415

        web = WebSource(
            model, context=ssl_context(pem), environ=environ, insecure_hosts=frozenset(settings.insecure_stores)
        )
        with closing(web):
            yield web
        return
    from packager.sources.stores.objects import ClientEnvironment, ObjectSource  # noqa: PLC0415

    client_environment = ClientEnvironment(environ=environ, authorities=pem, workspace=workspace)
    if model.scheme == "s3":
        from packager.sources.stores.s3 import open_store  # noqa: PLC0415
    elif model.scheme == "gs":
        from packager.sources.stores.gcs import open_store  # noqa: PLC0415
    else:
        from packager.sources.stores.azure import open_store  # noqa: PLC0415
    with closing(ObjectSource(open_store(model, client_environment), model.key)) as source:
        yield source


@dataclass(kw_only=True)
class Transfer:
    """The download of one object into a file.

    Attributes:
        limit: The largest size in bytes that is fetched.
        sleep: Waits between two attempts.
    """

    source: Source
    model: RemoteModel
    target: Path
    limit: int
    sleep: Callable[[float], None] = time.sleep
    done: int = field(default=0, init=False)
    size: int | None = field(default=None, init=False)
    _validator: str = field(default="", init=False)
    _verifier: Verifier | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def run(self, reporter: Reporter) -> None:
        """Fetch and check the object.

        Raises:
            ArtifactError, StorageError, DiskFullError: As for `fetched`.
        """
        try:
            with self.target.open("wb") as file, ExitStack() as stack:
                task = _LateTask(reporter, f"Fetching {self.model.name}", stack)
                policy = RetryPolicy(attempts=_ATTEMPTS, sleep=self.sleep)
                while not self._ended:  # each stretch that makes progress gets all attempts
                    policy.call(lambda: self._fetch_stretch(file, task), "download")
        except RetryableError as failure:
            raise failure.error from failure
        except OSError as error:
            if is_disk_full(error):
                raise self._disk_full() from error
            raise
        self._check()

    def _fetch_stretch(self, file: BinaryIO, task: _LateTask) -> None:
        """Fetch until the object or the connection ends; a cut after some progress is not a failed attempt."""
        begun = self.done
        try:
            with self.source.open(self.done if self._validator else 0, self._validator) as opened:
                self._begin(opened, file, task)
                for chunk in opened.chunks:
                    self._keep(chunk, file, task)
        except RetryableError as failure:
            if self.done - begun < _PROGRESS or not self._validator:
                raise
            log.warning("%s; continuing at byte %d", failure.error.message, self.done)
            return
        if self.size is not None and self.done != self.size:
            raise ArtifactError(
                f"{self.model} came with {self.done} bytes instead of {self.size}",
                hint="run it again; if it happens again, look into the store's log",
            )
        self._ended = True

    def _begin(self, opened: Opened, file: BinaryIO, task: _LateTask) -> None:
        first = self._verifier is None
        if not first and (opened.size != self.size or opened.validator != self._validator):
            raise changed(self.source.access)
        if opened.start != self.done or self._verifier is None:
            # The store can't begin later, or gives no validator to detect a changed object with.
            task.advance(opened.start - self.done)
            file.seek(opened.start)
            file.truncate()
            self.done = opened.start
            expected = user_checksum(self.model.sha256)
            self._verifier = Verifier([*expected, *self.source.checksums()])
        if not first:
            return
        self.size, self._validator = opened.size, opened.validator
        if self.size is not None:
            self._check_size(self.size)
            if shutil.disk_usage(self.target.parent).free < self.size:
                raise self._disk_full()
        task.start(self.size)

    def _keep(self, chunk: bytes, file: BinaryIO, task: _LateTask) -> None:
        file.write(chunk)
        if self._verifier is not None:
            self._verifier.update(chunk)
        self.done += len(chunk)
        task.advance(len(chunk))
        self._check_size(self.done)

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            raise ArtifactError(
                f"{self.model} is larger than {self.limit} bytes",
                hint="raise PACKAGER_ARTIFACT_MAX_DOWNLOAD_BYTES, if that is its intended size",
            )

    def _check(self) -> None:
        verifier = self._verifier or Verifier([])
        verifier.check(str(self.model))
        by = ", ".join(verifier.algorithms)
        log.info(
            "%s: %d bytes, checked by %s", self.model, self.done, by or "its size only: the store gives no checksum"
        )

    def _disk_full(self) -> DiskFullError:
        needed = "" if self.size is None else f" ({self.size} bytes)"
        return DiskFullError(
            f"no space left in {self.target.parent} for {self.model}{needed}",
            hint=_DISK_HINT,
        )


class _LateTask:
    """The reporter's task, which starts when the size is known."""

    def __init__(self, reporter: Reporter, title: str, stack: ExitStack) -> None:
        self._reporter, self._title, self._stack = reporter, title, stack
        self._advance: Callable[[int], None] | None = None

    def start(self, total: int | None) -> None:
        self._advance = self._stack.enter_context(self._reporter.task(self._title, total))

    def advance(self, amount: int) -> None:
        if self._advance is not None and amount:
            self._advance(amount)
