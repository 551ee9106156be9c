"""The command line surface: `predict` and `info`, each one process with one answer."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import inputs, outputs
from .inputs import InputError
from .intake import Intake
from .limits import Limits
from .model import Model, ModelError

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

OK, BAD_INPUT, MODEL_FAILED, NOT_WRITTEN = 0, 3, 4, 5
_SHOWN_LINES = 10


class OutputError(Exception):
    """The result can't be written."""


def predict(input_file: str, output_dir: str) -> int:
    """Write `OUTPUT_DIR/result.json`: whole, or not at all."""
    return _run(lambda: _predict(input_file, output_dir))


def info() -> int:
    """Print the schemas of the model's input and output."""
    return _run(_info)


def _run(command: Callable[[], str]) -> int:
    """Print what the command answers; or one message for what went wrong, and the model's traceback before it."""
    try:
        with _stdout_is_stderr():
            answer = command()
    except InputError as error:
        return _fail(error, BAD_INPUT)
    except ModelError as error:
        if error.details != str(error):
            _say(error.details)
        return _fail(error, MODEL_FAILED)
    except OutputError as error:
        return _fail(error, NOT_WRITTEN)
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()
    return OK


def _predict(input_file: str, output_dir: str) -> str:
    if not os.path.isdir(output_dir):
        raise OutputError(f"There is no folder {output_dir} to write result.json into; mount one there")
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise OutputError(f"The user {os.getuid()} may not write into {output_dir}")
    try:
        limits = Limits.from_env(os.environ)
    except ValueError as error:
        raise InputError(str(error)) from error
    batch = _read(input_file)
    model = Model.from_env(os.environ)
    try:
        batch = Intake.of_model(model, limits, _say).checks.apply(batch)
    except InputError as error:
        raise InputError(f"{input_file}: {error}") from error
    result = model.predict(batch, indent=2)
    path = os.path.join(output_dir, "result.json")
    _write(path, result + "\n")
    return f"Prediction is successful. Result file: {path}"


def _info() -> str:
    given, returned = Model.from_env(os.environ).schemas()
    return f"Input schema:\n{outputs.dumps(given, indent=4)}\nOutput schema:\n{outputs.dumps(returned, indent=4)}"


def _read(path: str) -> inputs.Batch:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
    except OSError as error:
        raise InputError(f"The input file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The input file {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        document, lines = inputs.parse_tolerant(text)
        if lines:
            shown = ", ".join(map(str, lines[:_SHOWN_LINES])) + (", ..." if len(lines) > _SHOWN_LINES else "")
            _say(f"Warning: {path}: ignored a comma after the last item, line {shown}")
        return inputs.read_batch(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _write(path: str, text: str) -> None:
    part = f"{path}.{os.getpid()}.part"
    try:
        try:
            with open(part, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from error


@contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """What the model prints, in Python or below it, is no part of our answer."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _fail(error: Exception, code: int) -> int:
    _say(f"Error: {error}")
    return code


def _say(text: Any) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
