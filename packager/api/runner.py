"""The executor, the supervisor and the logs of this service, created from its settings."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

from packager.api.entities import FINAL
from packager.api.logs import LogBroadcaster, LogState
from packager.api.supervisor import Supervisor, SupervisorConfig
from packager.errors import EntityNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.api.config import ApiSettings
    from packager.api.executors.base import Executor
    from packager.api.store.run_repository import RunRepository

_MAX_JOBS = 10_000  # the quotas of the cluster limit them


class Runner:
    """Runs the packagings of a store from `start` to `close`, and opens their logs."""

    def __init__(
        self, runs: RunRepository, executor: Executor, config: SupervisorConfig, settings: ApiSettings
    ) -> None:
        """Run the packagings of a repository with an executor."""
        self.executor = executor
        self.supervisor = Supervisor(runs, executor, config)
        self.logs = LogBroadcaster(RunLogs(runs, executor), max_streams=settings.max_log_streams)

    @classmethod
    def from_settings(cls, settings: ApiSettings, runs: RunRepository, environ: Mapping[str, str]) -> Runner:
        """Create the configured executor.

        Raises:
            UsageError: Its folder is unusable.
            ClusterUnreachableError: No cluster is configured.
        """
        executor: Executor
        if settings.executor == "local":
            executor, owner, limit = *_local(settings, environ), settings.workers
        else:
            executor, owner, limit = *_kubernetes(settings, environ), _MAX_JOBS
        config = SupervisorConfig(
            owner=owner,
            max_running=limit,
            lease=timedelta(seconds=settings.lease_seconds),
            log_days=settings.log_days,
            stop_seconds=settings.stop_seconds,
        )
        return cls(runs, executor, config, settings)

    def start(self) -> None:
        """Start to run packagings, first those of an earlier process of this service."""
        self.supervisor.start()

    def stop(self) -> None:
        """Start nothing more and end the log streams; call it in the thread of the event loop."""
        self.supervisor.stop()
        self.logs.stop()

    def close(self) -> None:
        """Stop supervising; runs continue, and the next process of this service takes them over."""
        if self.supervisor.close():  # else its threads still use the executor
            self.executor.close()


class RunLogs:
    """Finds the log of a packaging."""

    def __init__(self, runs: RunRepository, executor: Executor) -> None:
        """Look up runs in a repository, and their logs in an executor."""
        self._runs = runs
        self._executor = executor

    def __call__(self, packaging_id: str) -> LogState | None:
        """Return the state of a log; None: the packaging does not exist.

        Raises:
            PackagerError: The log is unavailable at the moment.
        """
        try:
            run = self._runs.get(packaging_id)
        except EntityNotFoundError:
            return None
        folder = self._executor.log(run.handle) if run.handle else None
        return LogState(generation=run.generation, is_complete=run.state in FINAL, folder=folder)


def _local(settings: ApiSettings, environ: Mapping[str, str]) -> tuple[Executor, str]:
    from packager.api.executors.local import LocalExecutor, LocalSettings  # noqa: PLC0415  (only the configured one)

    executor = LocalExecutor(
        LocalSettings(
            folder=settings.data_dir / "runs",
            environ=environ,
            models=settings.models_dir,
            engine=settings.engine,
            log_bytes=settings.log_bytes,
        )
    )
    return executor, f"{socket.gethostname()}/{executor.node}"


def _kubernetes(settings: ApiSettings, environ: Mapping[str, str]) -> tuple[Executor, str]:
    from packager.api.executors.kubernetes import KubernetesExecutor  # noqa: PLC0415
    from packager.kube.cluster import Access, connect  # noqa: PLC0415  (75 MB)

    cluster = connect(Access(namespace=settings.namespace or None), environ)
    try:
        executor = KubernetesExecutor(cluster, settings.logs_dir, log_bytes=settings.log_bytes)
    except OSError as error:
        raise UsageError(
            f"cannot store logs in {settings.logs_dir}: {error.strerror}", hint="set PACKAGER_API_DATA_DIR"
        ) from error
    return executor, f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
