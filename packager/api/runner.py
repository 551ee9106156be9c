"""What runs packagings in this service, put together from its settings: executor, supervisor, and their logs."""

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

_MOST_JOBS = 10_000  # in a cluster its own quotas decide


class Runner:
    """Runs the packagings of a store from `start` to `close`, and opens their logs."""

    def __init__(self, runs: RunRepository, executor: Executor, rules: SupervisorConfig, settings: ApiSettings) -> None:
        """Take what to run, with what and how."""
        self.executor = executor
        self.supervisor = Supervisor(runs, executor, rules)
        self.logs = LogBroadcaster(RunLogs(runs, executor), most_streams=settings.max_log_streams)

    @classmethod
    def from_settings(cls, settings: ApiSettings, runs: RunRepository, environ: Mapping[str, str]) -> Runner:
        """Set up the executor that is asked for.

        Raises:
            UsageError: Its folder can't be used.
            ClusterUnreachableError: No cluster is configured.
        """
        executor: Executor
        if settings.executor == "local":
            executor, owner, most = *_local(settings, environ), settings.workers
        else:
            executor, owner, most = *_kubernetes(settings, environ), _MOST_JOBS
        lease = timedelta(seconds=settings.lease_seconds)
        rules = SupervisorConfig(
            owner=owner,
            most_running=most,
            lease=lease,
            log_days=settings.log_days,
            stop_seconds=settings.stop_seconds,
        )
        return cls(runs, executor, rules, settings)

    def start(self) -> None:
        """Begin to run packagings, first those that an earlier process of this service had begun."""
        self.supervisor.start()

    def stop(self) -> None:
        """Begin to end: start nothing more, and end the logs that are followed; in the thread of the event loop."""
        self.supervisor.stop()
        self.logs.stop()

    def close(self) -> None:
        """Run nothing more; what runs goes on by itself, and the next process of this service finds it."""
        if self.supervisor.close():  # else its threads still need what is this process's alone
            self.executor.close()


class RunLogs:
    """Where the log of each packaging is."""

    def __init__(self, runs: RunRepository, executor: Executor) -> None:
        """Take where runs are noted, and who has their logs."""
        self._runs = runs
        self._executor = executor

    def __call__(self, packaging_id: str) -> LogState | None:
        """Look for the log of a packaging; None: there is no such packaging.

        Raises:
            PackagerError: It can't be had now.
        """
        try:
            run = self._runs.get(packaging_id)
        except EntityNotFoundError:
            return None
        folder = self._executor.log(run.handle) if run.handle else None
        return LogState(generation=run.generation, is_over=run.state in FINAL, folder=folder)


def _local(settings: ApiSettings, environ: Mapping[str, str]) -> tuple[Executor, str]:
    from packager.api.executors.local import LocalExecutor, LocalSettings  # noqa: PLC0415  (only what is needed)

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
            f"logs can't be kept in {settings.logs_dir}: {error.strerror}", hint="set PACKAGER_API_DATA_DIR"
        ) from error
    return executor, f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
