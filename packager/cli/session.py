"""The frame of every command: settings, logging, signals, a private folder, and errors as exit codes."""

from __future__ import annotations

import logging
import os
import secrets
import select
import shutil
import sys
import tempfile
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from packager.engines.kaniko import JOB_IMAGE_MARK
from packager.engines.selection import EngineName, Platform, choose_engine
from packager.errors import READER_GONE, DiskFullError, Interrupted, PackagerError, UsageError, is_disk_full
from packager.logs.console import set_up_logging
from packager.logs.redaction import Redactor
from packager.pipeline import PipelineContext
from packager.settings import Settings, read_platform
from packager.sources.stores.location import parse_model
from packager.sources.stores.store_secrets import environment_secrets, netrc_secrets
from packager.system.process import run_command
from packager.system.signals import ignore_stops, raise_on_stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packager.engines import Engine
    from packager.engines.selection import EngineRequirements
    from packager.logs.progress import LogFormat, Reporter
    from packager.models.connection import Connection
    from packager.result import Outputs
    from packager.sources.stores.location import RemoteModel
    from packager.system.process import Runner

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command works with.

    Attributes:
        work: A private folder, which is removed after the command; only for commands that asked for one.
    """

    settings: Settings
    work: Path
    redactor: Redactor
    reporter: Reporter

    def locate(self, model: str, connections: Iterable[Connection] = ()) -> Path | RemoteModel:
        """Locate MODEL; a connection whose URI is a prefix of its location opens it. Its secrets are redacted.

        Raises:
            UsageError: The location is not supported.
        """
        found = parse_model(model, insecure_hosts=self.settings.insecure_stores)
        if isinstance(found, Path):
            return found
        opened = found.opened_by(connections)
        self.redactor.add(opened.secrets())
        return opened

    def pipeline_context(
        self, asked: EngineName, *, platform: str | None = None, refresh: bool = False, check: bool | None = None
    ) -> PipelineContext:
        """Make the context of the pipeline.

        Raises:
            UsageError: The platform is not supported.
        """
        changes: dict[str, object] = {"platform": read_platform(platform)} if platform else {}
        if refresh:
            changes["refresh_environment"] = True
        if check is not None:
            changes["check"] = "always" if check else "never"
        settings = self.settings.model_copy(update=changes)
        run = partial(run_command, grace=settings.stop_grace)
        choose = partial(_set_up_engine, asked, settings, run)
        return PipelineContext(
            settings=settings,
            work=self.work,
            choose_engine=choose,
            run=run,
            reporter=self.reporter,
            environ=os.environ,
            learn=self.redactor.add,
        )


def _set_up_engine(asked: EngineName, settings: Settings, run: Runner, requirements: EngineRequirements) -> Engine:
    """Choose the engine and import only its module."""
    platform = Platform(job_image=JOB_IMAGE_MARK.exists(), cluster="KUBERNETES_SERVICE_HOST" in os.environ)
    name, reason = choose_engine(asked, requirements, platform)
    log.info("engine %s: %s", name.value, reason)
    if name is EngineName.oci:
        from packager.engines.oci import OciEngine

        return OciEngine(settings, run, os.environ)
    if name is EngineName.kaniko:
        from packager.engines.kaniko import KanikoEngine

        return KanikoEngine(settings, run, os.environ)
    from packager.engines.buildah import BuildahEngine

    return BuildahEngine(settings, run, os.environ, checks_model=requirements.check)


@contextmanager
def open_session(
    log_format: LogFormat, *, verbose: bool, outputs: Outputs | None = None, working: typer.Context | None = None
) -> Iterator[Session]:
    """Set up logging and signals around a command; turn its errors into messages and exit codes.

    With the context of a command that works in a private folder, that is made: the one that the outer process chose.
    """
    redactor = Redactor()
    reporter = set_up_logging(log_format, redactor, verbose=verbose)
    try:
        with ExitStack() as stack:
            stack.callback(ignore_stops)  # after the command a stop comes too late
            raise_on_stop()
            settings = Settings.from_env(os.environ)
            redactor.add([*settings.secrets(), *environment_secrets(os.environ), *netrc_secrets(os.environ)])
            if outputs is not None:
                outputs.prepare()
            work = Path()
            if working is not None:
                work = stack.enter_context(_work_folder(settings, working.obj))
                settings = settings.model_copy(update={"work_dir": work})  # everything temporary lies in it
            yield Session(settings=settings, work=work, redactor=redactor, reporter=reporter)
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


@contextmanager
def _work_folder(settings: Settings, chosen: str | None) -> Iterator[Path]:
    """Create the private folder that the outer process has chosen, or another one without an outer process."""
    below = Path(chosen).parent if chosen else settings.work_dir or Path(tempfile.gettempdir())
    folder = Path(chosen or below / f"packager-{secrets.token_hex(16)}")
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left in {below}", hint="name a larger disk in PACKAGER_WORK_DIR") from error
        raise UsageError(
            f"no temporary folder can be made in {below}: {error.strerror}",
            hint="name a writable folder in PACKAGER_WORK_DIR",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what resists is left to the outer process


def _unexpected(error: Exception) -> PackagerError:
    log.debug("%s", traceback.format_exc())
    what = f"unexpected {type(error).__name__}: {error}"
    return PackagerError(what, hint="this is a bug; run it with --verbose and report it")


def _reader_is_gone() -> bool:
    """Return whether standard output is the broken pipe; if so, discard the rest of the output.

    docs.python.org/3/library/signal.html, "Note on SIGPIPE".
    """
    output = sys.stdout.fileno()
    watched = select.poll()
    watched.register(output, 0)  # errors are always reported
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
            log.warning("cannot write the termination log %s: %s", outputs.termination_log, cause.strerror)
    raise typer.Exit(error.exit_code)
