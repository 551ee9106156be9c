"""The log of a Job on this service's disk: fetched when someone wants it, and in any case when the Job has ended."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from packager.api.log_files import LogWriter
from packager.errors import EntityNotFoundError, PackagerError
from packager.kube.log_follower import Follower
from packager.system.folders import remove_folder

if TYPE_CHECKING:
    from pathlib import Path

    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_LONGEST_SECONDS = 30 * 86_400.0
_READY_SECONDS = 10.0  # how long a reader waits for what the log holds already
_LAST_SECONDS = 60.0  # how long the end of a log that is being followed may take to come


class JobLog:
    """Fetches one Job's log through the API server, once for all who read it."""

    def __init__(self, cluster: Cluster, packaging_id: str, uid: str, folder: Path, *, most_bytes: int) -> None:
        """Write the log of the Job of that uid below `folder`."""
        self.log = folder / "log"
        self._complete = folder / "complete"
        self._most_bytes = most_bytes
        self._follower = Follower(cluster=cluster, packaging_id=packaging_id, uid=uid, on_line=self._write)
        self._writer: LogWriter | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._left = False

    def begin(self) -> None:
        """See that it is being fetched, unless it is there; returns when what there is by now is on disk."""
        with self._lock:
            if self._complete.exists() or self._left:
                return
            if self._thread is None or not self._thread.is_alive():
                self._open()
                self._ready.clear()
                self._thread = threading.Thread(target=self._follow, daemon=True, name="job-log")
                self._thread.start()
        self._ready.wait(_READY_SECONDS)

    def finish(self) -> None:
        """Fetch the rest of it, as the Job has ended."""
        thread = self._thread
        if thread is not None:
            thread.join(_LAST_SECONDS)
        with self._lock:
            if self._complete.exists() or self._left or (self._thread is not None and self._thread.is_alive()):
                return
            try:
                self._open()
                self._follower.read_log()
            except PackagerError as error:
                log.warning("the log of %s can't be fetched: %s", self._follower.packaging_id, error.message)
            except OSError as error:  # a full disk must not keep a Job from having ended
                log.warning("the log of %s can't be kept: %s", self._follower.packaging_id, error.strerror)
            with suppress(OSError):
                self._complete.touch()
            self._close()

    def leave(self) -> None:
        """Write nothing more."""
        with self._lock:
            self._left = True
            self._close()

    def _follow(self) -> None:
        try:
            self._follower.read_log()
            self._ready.set()
            self._follower.follow(_LONGEST_SECONDS)
        except EntityNotFoundError:
            log.debug("the Job of %s is gone", self._follower.packaging_id)
        except PackagerError as error:
            log.warning("the log of %s breaks off: %s", self._follower.packaging_id, error.message)
        except OSError as error:
            log.warning("the log of %s can't be kept: %s", self._follower.packaging_id, error.strerror)
        finally:
            self._ready.set()

    def _open(self) -> None:
        """Begin anew in a new process: the cluster has the whole log still, and what is here may be only a part."""
        if self._writer is None:
            if self.log.exists():
                remove_folder(self.log)
            self._writer = LogWriter(self.log, most_bytes=self._most_bytes)

    def _write(self, line: str) -> None:
        if self._writer is not None and not self._left:
            self._writer.write_line(line)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
