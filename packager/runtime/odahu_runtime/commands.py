"""The arguments, and what they start."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from . import batch, batching, ending, fast_json, isolation, limits, log, native

if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn, Sequence, Tuple

_VENDOR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "vendor")
_OPTIONAL = ("setproctitle", "inotify")  # gunicorn would take them from the model's environment
_EXIT_CODES = """\
exit codes: 0 done, 2 wrong arguments, 3 the input file can't be used, 4 the model failed, 5 the result can't be
written, 130 and 143 stopped by SIGINT and SIGTERM"""


def prepare(arguments: Sequence[str]) -> Callable[[], int]:
    """Read the arguments and import all that they need; the answer runs it and returns the exit code.

    Raises:
        SystemExit: 0 after `--help`, 2 for wrong arguments.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "rest":
        try:
            limits.Limits.from_env(os.environ)
        except ValueError as error:
            parser.error(str(error))
        style = os.environ.get("ODAHU_LOG_FORMAT") or "text"
        if style not in ("text", "json"):
            parser.error(f"ODAHU_LOG_FORMAT must be text or json, not {style!r}")
        log.use_json(use=style == "json")
        server, core = _import_server()
        batches = batching.Limits(options.batch_max_size, options.batch_max_latency_ms / 1000)
        settings = server.Settings(
            options.host, options.port, options.workers, options.threads, options.timeout, core, batches
        )
        return partial(server.serve, settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if options.action == "predict":
        return _until_done(partial(batch.predict, options.input_file, options.output_dir))
    return _until_done(batch.info)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtime", description="Serve or run the GPPI model of this image.")
    commands = parser.add_subparsers(dest="command", metavar="{rest,cli}", required=True)
    _add_rest(commands.add_parser("rest", help="serve the model over HTTP"))
    _add_cli(commands.add_parser("cli", prog="model", help="predict on a file, or show the model's schemas"))
    return parser


def _add_rest(rest: argparse.ArgumentParser) -> None:
    rest.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")  # noqa: S104
    rest.add_argument("--port", type=_number(1, 65535), default=5000, help="port to listen on (%(default)s)")
    rest.add_argument("--workers", type=_number(1), default=1, help="processes, each with its own model (%(default)s)")
    rest.add_argument("--threads", type=_number(1), default=4, help="requests a process predicts at once (%(default)s)")
    help_text = "seconds a request may take; 0 for no limit (%(default)s)"
    rest.add_argument("--timeout", type=_number(0), default=60, help=help_text)
    help_text = "rows that requests may share in a call of a matrix model; 1: each has its own (%(default)s)"
    rest.add_argument("--batch-max-size", type=_number(1), default=1, help=help_text)
    help_text = "milliseconds that a request waits for others to share a call with (%(default)s)"
    rest.add_argument("--batch-max-latency-ms", type=_number(0), default=0, help=help_text)


def _add_cli(cli: argparse.ArgumentParser) -> None:
    cli.description = "Make predictions with the model in this image."
    cli.epilog = _EXIT_CODES
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = cli.add_subparsers(dest="action", metavar="{predict,info}", required=True)
    predict = actions.add_parser("predict", help="Make predictions using GPPI model")
    predict.add_argument("input_file", metavar="INPUT_FILE", help='JSON: {"columns": [...], "data": [[...]]}')
    predict.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder that result.json is written into")
    actions.add_parser("info", help="Show model input/output data schema")


def _number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return number


def _import_server() -> Tuple[Any, Any]:
    concurrency = os.environ.pop("WEB_CONCURRENCY", None)  # gunicorn reads it as it is imported, and fails on nonsense
    try:
        with isolation.private("gunicorn", _VENDOR, absent=_OPTIONAL), isolation.private("granian", _VENDOR):
            with isolation.private("orjson", _VENDOR):
                fast_json.use(native.orjson(_VENDOR))
            return importlib.import_module(".server", __package__), native.granian(_VENDOR)
    finally:
        if concurrency is not None:
            os.environ["WEB_CONCURRENCY"] = concurrency


def _until_done(action: Callable[[], int]) -> Callable[[], int]:
    return lambda: ending.finish(action())


def _stop(number: int, _frame: Any) -> NoReturn:
    ending.leave(128 + number)
