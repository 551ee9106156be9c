"""The commands. Only this package prints results, catches errors and exits."""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from packager import __version__
from packager.cli.api import api
from packager.cli.describe import inspect, integrations, settings
from packager.cli.entities import connection, integration
from packager.cli.options import EXIT_CODES
from packager.cli.pack import pack
from packager.cli.package import RunCommand, build, make_run, render

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Turn a trained model archive (ODAHU GPPI zip) into a container image, without a container daemon.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:  # noqa: FBT001  (Typer's callback)
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _packager(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(cls=RunCommand)(make_run(None))
for _command in (build, render, inspect, integrations, settings):
    app.command()(_command)
# The ODAHU client's aliases.
for _group, _name, *_others in (
    (pack, "pack", "packaging"),
    (connection, "connection", "conn"),
    (integration, "integration", "packaging-integration", "pi"),
):
    app.add_typer(_group, name=_name)
    for _other in _others:
        app.add_typer(_group, name=_other, hidden=True)


app.add_typer(api, name="api")


def main(application: str | None, *, folder: str | None) -> None:
    """Run `packager`, or the platform's entry point for an application, and end the process.

    `folder` is the private folder that a command may make; the outer process removes it.
    """
    program, name = app, "packager"
    if application is not None:
        program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        program.command(cls=RunCommand)(make_run(application))
        name = f"odahu-flow-pack-to-{application.removeprefix('docker-')}"
    _exit_after(partial(program, prog_name=name, obj=folder))


def _report(failed: threading.ExceptHookArgs) -> None:
    """Log the exception that ended a thread with secrets redacted; Python would print it unredacted."""
    error = failed.exc_value
    if error is not None and not isinstance(error, SystemExit):
        info = (type(error), error, failed.exc_traceback)
        log.error("a thread ended by an unexpected error", exc_info=info)


def _exit_after(program: Callable[[], object]) -> None:
    """Run a program and end the process without tearing the interpreter down.

    py-rattler's threads may still let go of Python objects then: measured, about one process in twelve that had used it
    died of SIGSEGV while exiting, after all its work, with the exit code 139.
    """
    code: object = 0
    threading.excepthook = _report
    logging.captureWarnings(capture=True)
    try:
        program()
    except SystemExit as exit_:
        code = exit_.code
    code = code if isinstance(code, int) else 0 if code is None else 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where the caller has closed it
            try:
                stream.flush()
            except OSError:  # the reader has closed the pipe, or the disk is full
                code = code or int(stream is sys.stdout)
    os._exit(code)
