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
from packager.cli.connection import connection
from packager.cli.describe import inspect, integrations, settings
from packager.cli.integration import integration
from packager.cli.options import EXIT_CODES
from packager.cli.pack import pack
from packager.cli.package import RunCommand, build, make_run, render
from packager.models.integrations import INTEGRATION_TYPES

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


@app.callback()
def _packager(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


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


def main() -> None:
    """Run `packager`."""
    _exit_after(partial(app, prog_name="packager"))


def pack_to(name: str) -> None:
    """Run the entry point of the platform for one packager."""
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    program.command(cls=RunCommand)(make_run(name))
    _exit_after(partial(program, prog_name=INTEGRATION_TYPES[name].entry_point))


def _report(failed: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, cleaned of secrets as everything that is logged; Python would write it out as it is."""
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
            except OSError:  # who should have read it has gone, or its disk is full
                code = code or int(stream is sys.stdout)
    os._exit(code)
