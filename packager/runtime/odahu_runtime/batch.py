"""The commands `predict` and `info`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import batch_input, batch_output, inputs, outputs, parquet, progress_bar
from .batch_input import Source
from .batch_output import OutputError
from .inputs import InputError
from .model import Model, ModelError
from .request_validation import RequestLimits, RequestValidator

if TYPE_CHECKING:
    from typing import IO, Any, Callable, Iterator, List, Optional, Tuple

    from .batch_input import Chunk, Progress
    from .inputs import Batch
    from .schema_validation import SchemaValidator

OK, BAD_INPUT, MODEL_FAILED, NOT_WRITTEN = 0, 3, 4, 5
CHUNK_ROWS = 10_000
_STDOUT = "-"
_EVERYTHING = 1 << 62  # rows
_SHOWN_LINES = 10

_unwritten: List[Any] = []


class Options(NamedTuple):
    """The options of `predict`.

    Attributes:
        input_file: A file, or `-`.
        output: A folder, a file, or `-`.
        input_format: One of `batch_input.FORMATS`; empty: from the file's suffix.
        output_format: The same; empty: from the suffix of a file, else the input's.
        chunk_rows: Maximum of rows per call of the model; None: all of a JSON document, else `CHUNK_ROWS`.
        delimiter: Of CSV input and output; empty: a tab for `.tsv`, else a comma.
        header: Whether CSV input has a header.
        progress: Whether to show progress on a terminal.
    """

    input_file: str
    output: str
    input_format: str = ""
    output_format: str = ""
    chunk_rows: Optional[int] = None
    delimiter: str = ""
    header: bool = True
    progress: bool = True


class _Target(NamedTuple):
    path: str
    form: str
    delimiter: str


def predict(options: Options) -> int:
    """Write the predictions: all or none (`-` is written as they come)."""
    return run(lambda stdout: _predict(options, stdout))


def info() -> int:
    """Print the schemas of the model's input and output."""
    return run(_info)


def run(command: Callable[[int], str]) -> int:
    """Print the result of a command, or one error message, after the model's traceback if there is one.

    The command gets the file descriptor of standard output; all that it prints goes to stderr.
    """
    try:
        with _stdout_is_stderr() as stdout:
            answer = command(stdout)
        if answer:
            print_text(answer)
    except (InputError, parquet.MissingError) as error:
        return _fail(error, BAD_INPUT)
    except ModelError as error:
        if error.details != str(error):
            _print_error(error.details)
        return _fail(error, MODEL_FAILED)
    except OutputError as error:
        return _fail(error, NOT_WRITTEN)
    return OK


def print_text(text: str) -> None:
    """Print a text.

    Raises:
        OutputError: Standard output is closed, or its reader has gone.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        _unwritten.append(sys.stdout)  # kept, since closing it would write its buffer
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise OutputError(f"Standard output can't be written: {error.strerror}") from error


def _predict(options: Options, stdout: int) -> str:
    form = options.input_format or batch_input.format_of(options.input_file)
    target = _target(options, form)
    whole = form == target.form == "json" and options.chunk_rows is None
    source = Source(
        options.input_file,
        form,
        options.chunk_rows or (_EVERYTHING if form == "json" else CHUNK_ROWS),
        options.delimiter or ("\t" if options.input_file.lower().endswith(".tsv") else ","),
        options.header,
    )
    if form == "parquet" and source.path == batch_input.STDIN:
        raise InputError("Parquet can't be read from standard input: it is read from its end; give a file")
    limits = _limits()
    with batch_input.opened(source) as (stream, read):
        text = _text(stream, source) if form == "json" else ""
        batch = _batch(text, source) if whole else None
        model = Model.from_env(os.environ)
        validator = RequestValidator.of_model(model, limits, _print_error).schema_validator
        if batch is not None:
            batch = _validate(validator, batch, source.name)
            result = model.predict(batch, indent=2).encode() + b"\n"
            with _opened(target, stdout) as out:
                out.write(result)
        else:
            chunks, position = _chunks(stream, text, source, model, read)
            _stream(
                model,
                _validate_all(validator, batch_input.checked(chunks, source), source),
                source,
                target,
                stdout,
                position,
                options,
            )
    return "" if target.path == _STDOUT else f"Prediction is successful. Result file: {target.path}"


def _limits() -> RequestLimits:
    try:
        return RequestLimits.from_env(os.environ)
    except ValueError as error:
        raise InputError(str(error)) from error


def _validate(validator: SchemaValidator, batch: Batch, name: str, first: int = 0) -> Batch:
    """Return the rows as the model takes them; `first` is the number of the first row.

    Raises:
        InputError: They don't match the model's columns; says where.
    """
    try:
        return validator.apply(batch, first)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _validate_all(validator: SchemaValidator, chunks: Iterator[Chunk], source: Source) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk._replace(batch=_validate(validator, chunk.batch, source.name, chunk.first))


def _target(options: Options, form: str) -> _Target:
    """Return where the result goes, and its format.

    Raises:
        OutputError: It can't be written there.
    """
    path = options.output
    named = path != _STDOUT and not os.path.isdir(path) and batch_input.known_suffix(path)
    out_form = options.output_format or (batch_input.format_of(path) if named else form)
    delimiter = options.delimiter or ("\t" if named and path.lower().endswith(".tsv") else ",")
    if path == _STDOUT:
        if out_form == "parquet":
            raise OutputError("Parquet can't be written to standard output; give a folder or a file")
        return _Target(path, out_form, delimiter)
    folder = os.path.dirname(path) or "." if named else path
    if not os.path.isdir(folder):
        name = os.path.basename(path) if named else f"result.{out_form}"
        raise OutputError(f"There is no folder {folder} to write {name} into; mount one there")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"The user {os.getuid()} may not write into {folder}")
    return _Target(path if named else os.path.join(path, f"result.{out_form}"), out_form, delimiter)


def _chunks(
    stream: IO[bytes], text: str, source: Source, model: Model, position: Callable[[], Progress]
) -> Tuple[Iterator[Chunk], Callable[[], Progress]]:
    if source.form == "parquet":
        return parquet.read(stream, source)
    if source.form == "json":
        return batch_input.read_document(_parsed(text, source), source), position
    described = model.columns()[0]
    if source.form == "csv":
        return batch_input.read_csv(stream, source, described), position
    return batch_input.read_lines(stream, source, described, model.mode), position


def _stream(  # noqa: PLR0913, PLR0917  (input, output and options)
    model: Model,
    chunks: Iterator[Chunk],
    source: Source,
    target: _Target,
    stdout: int,
    position: Callable[[], Progress],
    options: Options,
) -> None:
    """Predict chunk by chunk, with one chunk in memory."""
    line = progress_bar.ProgressBar(position, shown=options.progress and progress_bar.on_terminal())
    try:
        with _opened(target, stdout) as out:
            writer = _writer(out, target)
            try:
                rows = _copy(model, chunks, source, writer, line)
            except BaseException:
                writer.abort()
                raise
    except BaseException:
        line.clear()
        raise
    line.update(rows, done=True)


def _copy(
    model: Model, chunks: Iterator[Chunk], source: Source, writer: batch_output.Writer, line: progress_bar.ProgressBar
) -> int:
    columns: Optional[List[Any]] = None
    rows = 0
    for chunk in chunks:
        predicted, names = _predicted(model, chunk, source)
        if columns is not None and names != columns:
            where = f"{source.name}: rows {chunk.first}-{chunk.last}"
            raise ModelError(f"{where}: the model returned the columns {names}, and {columns} before")
        columns = names
        writer.write(predicted, names)
        rows = chunk.last
        line.update(rows)
    if not rows:
        raise InputError(f"{source.name} has no rows")
    writer.finish()
    return rows


def _predicted(model: Model, chunk: Chunk, source: Source) -> Tuple[List[Any], List[Any]]:
    where = f"{source.name}: rows {chunk.first}-{chunk.last}"
    try:
        predicted, names = model.values(*model.predict_raw(chunk.batch))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except ModelError as error:
        raise ModelError.of(f"{where}: {error}", error) from error
    if not isinstance(predicted, list) or len(predicted) != len(chunk.batch.data):
        got = f"{len(predicted)} rows" if isinstance(predicted, list) else type(predicted).__name__
        raise ModelError(f"{where}: the model returned {got} for {len(chunk.batch.data)}")
    return predicted, names


def _writer(out: IO[bytes], target: _Target) -> batch_output.Writer:
    if target.form == "csv":
        return batch_output.CsvWriter(out, target.delimiter)
    if target.form == "parquet":
        return parquet.ParquetWriter(out)
    return batch_output.JsonWriter(out) if target.form == "json" else batch_output.LinesWriter(out)


@contextmanager
def _opened(target: _Target, stdout: int) -> Iterator[IO[bytes]]:
    if target.path != _STDOUT:
        with batch_output.written(target.path) as stream:
            yield stream
        return
    try:
        with open(stdout, "wb", closefd=False) as stream:
            yield stream
    except OSError as error:
        raise OutputError(f"Standard output can't be written: {error.strerror}") from error


def _info(_stdout: int) -> str:
    given, returned = Model.from_env(os.environ).schemas()
    return f"Input schema:\n{outputs.dumps(given, indent=4)}\nOutput schema:\n{outputs.dumps(returned, indent=4)}"


def _text(stream: IO[bytes], source: Source) -> str:
    try:
        return stream.read().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"The input file {source.name} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The input file {source.name} is not UTF-8: {error.reason} at byte {error.start}") from error


def _parsed(text: str, source: Source) -> Any:
    try:
        document, lines = inputs.parse_tolerant(text)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from error
    if lines:
        shown = ", ".join(map(str, lines[:_SHOWN_LINES])) + (", ..." if len(lines) > _SHOWN_LINES else "")
        _print_error(f"Warning: {source.name}: ignored a comma after the last item, line {shown}")
    return document


def _batch(text: str, source: Source) -> inputs.Batch:
    document = _parsed(text, source)
    try:
        return inputs.read_batch(document)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from error


@contextmanager
def _stdout_is_stderr() -> Iterator[int]:
    """Send all that the model prints, also from native code, to stderr; yield the real standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield kept
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _fail(error: Exception, code: int) -> int:
    _print_error(f"Error: {error}")
    return code


def _print_error(text: Any) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
