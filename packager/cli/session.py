"""What is around every command: settings, logging, signals, and errors that end in an exit code."""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from packager.cli.options import EngineName
from packager.console import set_up_logging
from packager.engines.buildah import BuildahEngine
from packager.engines.kaniko import JOB_IMAGE_MARK, KanikoEngine
from packager.errors import Interrupted, PackagerError
from packager.pipeline import Tools
from packager.process import Runner, run_command, stop_signals
from packager.redaction import Redactor
from packager.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from packager.console import LogFormat
    from packager.engines import Engine
    from packager.progress import Reporter
    from packager.result import Outputs

log = logging.getLogger(__name__)
_ENGINES: dict[EngineName, Callable[[Settings, Runner, Mapping[str, str]], Engine]] = {
    EngineName.buildah: BuildahEngine,
    EngineName.kaniko: KanikoEngine,
}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command works with."""

    settings: Settings
    redactor: Redactor
    reporter: Reporter

    def tools(self, name: EngineName | None) -> Tools:
        """Set the engine up, and what the pipeline needs besides."""
        run = partial(run_command, grace=self.settings.stop_grace)
        chosen = name or (EngineName.kaniko if JOB_IMAGE_MARK.exists() else EngineName.buildah)
        engine = _ENGINES[chosen](self.settings, run, os.environ)
        return Tools(
            settings=self.settings,
            engine=engine,
            run=run,
            reporter=self.reporter,
            environ=os.environ,
            learn=self.redactor.add,
        )


@contextmanager
def open_session(log_format: LogFormat, *, verbose: bool, outputs: Outputs | None = None) -> Iterator[Session]:
    """Set up logging and signals around a command; turn its errors into messages and exit codes."""
    redactor = Redactor()
    reporter = set_up_logging(log_format, redactor, verbose=verbose)
    try:
        with stop_signals():
            settings = Settings.from_env(os.environ)
            redactor.add(settings.secrets())
            if outputs is not None:
                outputs.prepare()
            yield Session(settings=settings, redactor=redactor, reporter=reporter)
    except Interrupted as interruption:
        _fail(interruption.as_error(), redactor, outputs)
    except PackagerError as error:
        _fail(error, redactor, outputs)
    except Exception as error:  # noqa: BLE001  (the last resort: a bug still ends in one message and exit code 1)
        log.debug("%s", traceback.format_exc())
        what = f"unexpected {type(error).__name__}: {error}"
        _fail(PackagerError(what, hint="this is a bug; run it with --verbose and report it"), redactor, outputs)


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
