"""The command line of the runtime."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from . import (
    batch,
    batch_input,
    batch_output,
    batching,
    fast_json,
    isolation,
    log,
    process,
    request_validation,
    selfcheck,
)

if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn, Sequence, Tuple

_VENDOR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "vendor")
_OPTIONAL = ("setproctitle", "inotify")  # gunicorn would import them from the model's environment
_EXIT_CODES = """\
exit codes: 0 done, 2 wrong arguments, 3 the input file can't be used, 4 the model failed, 5 the result can't be
written, 130 and 143 stopped by SIGINT and SIGTERM"""
_PREDICT = """\
The suffix of a file selects its format: .json, .jsonl or .ndjson (JSON lines), .csv, .tsv, .parquet (with pyarrow in
the model's environment); any other file is JSON. All formats but JSON are predicted in chunks, so that files of any
size fit into memory. With exit code 0 the result is complete; otherwise it is absent, except on standard output.
"""


def prepare(arguments: Sequence[str]) -> Callable[[], int]:
    """Parse the arguments and import all that the command needs; return a function that runs it.

    Raises:
        SystemExit: 0 after `--help`, 2 for wrong arguments.
    """
    process.open_standard_files()
    parser = _parser()
    options = parser.parse_args(arguments)
    os.register_at_fork(after_in_child=_reset_signals)
    if options.command == "rest":
        try:
            request_validation.RequestLimits.from_env(os.environ)
        except ValueError as error:
            parser.error(str(error))
        style = os.environ.get("ODAHU_LOG_FORMAT") or "text"
        if style not in ("text", "json"):
            parser.error(f"ODAHU_LOG_FORMAT must be text or json, not {style!r}")
        log.use_json(use=style == "json")
        _complete_environment()
        server, core = _import_server()
        batches = batching.BatchLimits(options.batch_max_size, options.batch_max_latency_ms / 1000)
        settings = server.Settings(
            options.host, options.port, options.workers, options.threads, options.timeout, core, batches
        )
        return partial(server.serve, settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _complete_environment()
    if options.action == "predict":
        return _until_done(partial(batch.predict, _batch_options(parser, options)))
    if options.action == "self-check":
        return _until_done(partial(selfcheck.self_check, options.format, options.command_line), process.exit_now)
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
    rest.add_argument(
        "--threads", type=_number(1), default=4, help="requests that a process predicts at once (%(default)s)"
    )
    help_text = "seconds a request may take; 0 for no limit (%(default)s)"
    rest.add_argument("--timeout", type=_number(0), default=60, help=help_text)
    help_text = "maximum of rows in a call shared by requests of a matrix model; 1: no sharing (%(default)s)"
    rest.add_argument("--batch-max-size", type=_number(1), default=1, help=help_text)
    help_text = "milliseconds that a request waits for others to share its call (%(default)s)"
    rest.add_argument("--batch-max-latency-ms", type=_number(0), default=0, help=help_text)


def _add_cli(cli: argparse.ArgumentParser) -> None:
    cli.description = "Make predictions with the model in this image."
    cli.epilog = _EXIT_CODES
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = cli.add_subparsers(dest="action", metavar="{predict,info,self-check}", required=True)
    predict = actions.add_parser("predict", help="Make predictions using GPPI model")
    predict.description = _PREDICT
    predict.epilog = _EXIT_CODES
    predict.formatter_class = argparse.RawDescriptionHelpFormatter
    predict.add_argument(
        "input_file", metavar="INPUT_FILE", help='JSON: {"columns": [...], "data": [[...]]}; or a table; - is stdin'
    )
    help_text = "folder that result.json (or .csv, ...) is written into, or a file with such a suffix; - is stdout"
    predict.add_argument("output_dir", metavar="OUTPUT_DIR", help=help_text)
    help_text = f"{', '.join(batch_input.FORMATS)}; default: from the suffix"
    predict.add_argument("--input-format", choices=batch_input.FORMATS, default="", metavar="FORMAT", help=help_text)
    help_text = "the same; default: from the suffix of a file, else the input's"
    predict.add_argument("--output-format", choices=batch_input.FORMATS, default="", metavar="FORMAT", help=help_text)
    help_text = f"maximum of rows per call of the model; default: {batch.CHUNK_ROWS}, of a JSON document all"
    predict.add_argument("--chunk-rows", type=_number(1), metavar="ROWS", help=help_text)
    predict.add_argument("--delimiter", default="", help="delimiter of CSV; default: a comma, for .tsv a tab")
    predict.add_argument("--no-header", action="store_true", help="CSV input has no header")
    predict.add_argument("--no-progress", action="store_true", help="show no progress, even on a terminal")
    actions.add_parser("info", help="Show model input/output data schema")
    check = actions.add_parser("self-check", help="Load the model and predict the example of its info()")
    check.add_argument("--format", choices=("text", "json"), default="text", help="of the report (%(default)s)")
    help_text = "check for a container with this command line: its sys.argv, and the server's threads"
    check.add_argument("--for", dest="command_line", nargs=argparse.REMAINDER, metavar="WORD", help=help_text)


def _batch_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> batch.Options:
    delimiter = options.delimiter.replace("\\t", "\t")
    if delimiter and (len(delimiter) != 1 or delimiter in '"\r\n'):
        parser.error(f"argument --delimiter: {options.delimiter!r} is not a single character that can separate cells")
    return batch.Options(
        input_file=options.input_file,
        output=options.output_dir,
        input_format=options.input_format,
        output_format=options.output_format,
        chunk_rows=options.chunk_rows,
        delimiter=delimiter,
        header=not options.no_header,
        progress=not options.no_progress,
    )


def _number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return number


def _complete_environment() -> None:
    warning = process.complete_environment(os.environ)
    if warning:
        log.write("WARNING", warning)


def _import_server() -> Tuple[Any, Any]:
    concurrency = os.environ.pop("WEB_CONCURRENCY", None)  # gunicorn reads it at import, and fails on invalid values
    try:
        with isolation.private("gunicorn", _VENDOR, absent=_OPTIONAL), isolation.private("granian", _VENDOR):
            with isolation.private("orjson", _VENDOR):
                fast_json.use(isolation.load_orjson(_VENDOR))
            return importlib.import_module(".server", __package__), isolation.load_granian(_VENDOR)
    finally:
        if concurrency is not None:
            os.environ["WEB_CONCURRENCY"] = concurrency


def _until_done(
    action: Callable[[], int], end: Callable[[int], NoReturn] = process.exit_after_hooks
) -> Callable[[], int]:
    def run() -> NoReturn:
        code = action()
        os.dup2(log.STDERR, 1)  # so that output of the model at exit does not become a part of the result
        end(code)

    return run


def _reset_signals() -> None:
    """Give a process that the model forks Python's own signal handlers.

    With ours a worker of multiprocessing could miss the SIGTERM that ends its pool, and the pool would wait forever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, _frame: Any) -> NoReturn:
    batch_output.remove_parts()
    process.exit_now(128 + number)
