"""What is around every command: settings, logging, signals, and errors that end in an exit code."""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from packager.engines.kaniko import JOB_IMAGE_MARK
from packager.engines.selection import EngineName, HostInfo, choose_engine
from packager.errors import READER_GONE, DiskFullError, Interrupted, PackagerError, is_disk_full
from packager.logs.console import set_up_logging
from packager.logs.redaction import Redactor
from packager.pipeline import Tools
from packager.settings import Settings, read_platform
from packager.sources.stores.location import parse_model
from packager.sources.stores.store_secrets import environment_secrets, netrc_secrets
from packager.system.process import run_command, stop_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packager.engines import Engine
    from packager.engines.selection import EngineRequirements
    from packager.logs.console import LogFormat
    from packager.logs.progress import Reporter
    from packager.models.connection import Connection
    from packager.result import Outputs
    from packager.sources.stores.location import RemoteModel
    from packager.system.process import Runner

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command works with."""

    settings: Settings
    redactor: Redactor
    reporter: Reporter

    def locate(self, model: str, connections: Iterable[Connection] = ()) -> Path | RemoteModel:
        """Read what MODEL names; a connection whose URI it lies below opens it. Its secrets are kept out of the log.

        Raises:
            UsageError: It is no location that we know.
        """
        found = parse_model(model, insecure_hosts=self.settings.insecure_stores)
        if isinstance(found, Path):
            return found
        opened = found.opened_by(connections)
        self.redactor.add(opened.secrets())
        return opened

    def tools(
        self, asked: EngineName, *, platform: str | None = None, refresh: bool = False, check: bool | None = None
    ) -> Tools:
        """Set up what the pipeline works with.

        Raises:
            UsageError: The platform is none that we know.
        """
        changes: dict[str, object] = {"platform": read_platform(platform)} if platform else {}
        if refresh:
            changes["refresh_environment"] = True
        if check is not None:
            changes["check"] = "always" if check else "never"
        settings = self.settings.model_copy(update=changes)
        run = partial(run_command, grace=settings.stop_grace)
        choose = partial(_set_up_engine, asked, settings, run)
        return Tools(
            settings=settings,
            choose_engine=choose,
            run=run,
            reporter=self.reporter,
            environ=os.environ,
            learn=self.redactor.add,
        )


def _set_up_engine(asked: EngineName, settings: Settings, run: Runner, requirements: EngineRequirements) -> Engine:
    """Choose the engine; only its own module is imported."""
    host = HostInfo(in_job_image=JOB_IMAGE_MARK.exists(), in_cluster="KUBERNETES_SERVICE_HOST" in os.environ)
    name, reason = choose_engine(asked, requirements, host)
    log.info("engine %s: %s", name.value, reason)
    if name is EngineName.oci:
        from packager.engines.oci import OciEngine  # noqa: PLC0415  (only what is needed)

        return OciEngine(settings, run, os.environ)
    if name is EngineName.kaniko:
        from packager.engines.kaniko import KanikoEngine  # noqa: PLC0415

        return KanikoEngine(settings, run, os.environ)
    from packager.engines.buildah import BuildahEngine  # noqa: PLC0415

    return BuildahEngine(settings, run, os.environ, checks_model=requirements.check)


@contextmanager
def open_session(log_format: LogFormat, *, verbose: bool, outputs: Outputs | None = None) -> Iterator[Session]:
    """Set up logging and signals around a command; turn its errors into messages and exit codes."""
    redactor = Redactor()
    reporter = set_up_logging(log_format, redactor, verbose=verbose)
    try:
        with stop_signals():
            settings = Settings.from_env(os.environ)
            redactor.add([*settings.secrets(), *environment_secrets(os.environ), *netrc_secrets(os.environ)])
            if outputs is not None:
                outputs.prepare()
            yield Session(settings=settings, redactor=redactor, reporter=reporter)
    except Interrupted as interruption:
        _fail(interruption.as_error(), redactor, outputs)
    except PackagerError as error:
        _fail(error, redactor, outputs)
    except BrokenPipeError as error:
        if not _reader_is_gone():
            _fail(_unexpected(error), redactor, outputs)
        raise typer.Exit(READER_GONE) from None
    except OSError as error:
        full = DiskFullError("no space left on device", hint="free disk space or set PACKAGER_WORK_DIR")
        _fail(full if is_disk_full(error) else _unexpected(error), redactor, outputs)
    except Exception as error:  # noqa: BLE001  (the last resort: a bug still ends in one message and exit code 1)
        _fail(_unexpected(error), redactor, outputs)


def _unexpected(error: Exception) -> PackagerError:
    log.debug("%s", traceback.format_exc())
    what = f"unexpected {type(error).__name__}: {error}"
    return PackagerError(what, hint="this is a bug; run it with --verbose and report it")


def _reader_is_gone() -> bool:
    """Tell whether standard output is the pipe that broke; what is left for it goes nowhere then.

    docs.python.org/3/library/signal.html, "Note on SIGPIPE".
    """
    output = sys.stdout.fileno()
    watched = select.poll()
    watched.register(output, 0)  # errors are always told
    if not any(state & select.POLLERR for _, state in watched.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _fail(error: PackagerError, redactor: Redactor, outputs: Outputs | None) -> None:
    clean = error.rewritten(redactor.clean)
    log.error("%s", clean.message)
    if clean.hint:
        log.error("hint: %s", clean.hint)
    if outputs is not None:
        try:
            outputs.write_error(clean)
        except OSError as cause:
            log.warning("the termination log %s can't be written: %s", outputs.termination_log, cause.strerror)
    raise typer.Exit(error.exit_code)
