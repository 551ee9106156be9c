"""The command `self-check`: does the model serve?"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from . import batch
from .inputs import Batch, InputError
from .model import Model, ModelError

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

_SHOWN_NAMES = 5


def self_check(form: str, command_line: Optional[List[str]] = None) -> int:
    """Load the model, ask it for its schemas and predict their example; print a report as `text` or `json`.

    With a `command_line` the model finds it in `sys.argv`; if its first word is `rest` the model predicts twice, each
    time in another thread, as in the server.

    Returns: 0, or 4 when it can't serve; its own traceback is then on stderr.
    """
    report: Dict[str, Any] = {
        "status": "failed",
        "model": os.environ.get("ODAHU_MODEL_NAME", ""),
        "version": os.environ.get("ODAHU_MODEL_VERSION", ""),
        "python": platform.python_version(),
        "seconds": {},
    }

    if command_line:
        sys.argv[1:] = command_line
    in_thread = command_line is not None and command_line[:1] == ["rest"]

    def check(_stdout: int) -> str:
        _check(report, _run_in_threads if in_thread else _run)
        report["status"] = "ok"
        return ""

    code = batch.run(check)
    printed = batch.run(lambda _: json.dumps(report) if form == "json" else _text(report))
    return code or printed


def _run(call: Callable[[], object]) -> None:
    call()


def _run_in_threads(call: Callable[[], object]) -> None:
    for _ in range(2):  # what the first thread leaves to the model must serve the second as well
        _run_in_thread(call)


def _run_in_thread(call: Callable[[], object]) -> None:
    errors: List[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _check(report: Dict[str, Any], run: Callable[[Callable[[], object]], None]) -> None:
    with _step(report, "load"):
        model = Model.from_env(os.environ)
    report["mode"] = model.mode
    with _step(report, "info"):
        given, returned = model.columns()
        model.schemas()
        batch_, why = _sample(model)
    report["inputs"], report["outputs"] = len(given), len(returned)
    if batch_ is None:
        report["sample"] = f"not predicted: {why}"
        return
    with _step(report, "predict"):
        try:
            run(lambda: model.predict(Batch([list(row) for row in batch_.data], batch_.columns)))
        except InputError as error:
            raise ModelError(f"The example of the model's info() can't be predicted on: {error}") from error
    report["sample"] = "predicted"


@contextmanager
def _step(report: Dict[str, Any], name: str) -> Iterator[None]:
    report["step"] = name
    begin = time.monotonic()
    try:
        yield
    except ModelError as error:
        report["error"] = str(error)
        raise
    finally:
        report["seconds"][name] = round(time.monotonic() - begin, 3)
    del report["step"]


def _sample(model: Model) -> Tuple[Optional[Batch], str]:
    """Return the input example of `info()`, or why it is missing."""
    names, values, missing = model.examples()
    if not names:
        return None, "the model has no info() that describes its input"
    if missing:
        more = ", ..." if len(missing) > _SHOWN_NAMES else ""
        return None, f"info() has no example for {', '.join(missing[:_SHOWN_NAMES])}{more}"
    return Batch([values], names), ""


def _text(report: Dict[str, Any]) -> str:
    name = " ".join(part for part in (report["model"], report["version"]) if part) or "the model"
    lines = [f"{name} on Python {report['python']}: {report['status']}"]
    lines += [f"  {step}: {seconds} s" for step, seconds in report["seconds"].items()]
    if "mode" in report:
        lines.append(f"  predicts on {'a matrix' if report['mode'] == 'matrix' else 'objects'}")
    if "inputs" in report:
        lines.append(f"  columns: {report['inputs']} in, {report['outputs']} out")
    lines += [f"  {key}: {report[key]}" for key in ("sample", "error") if key in report]
    return "\n".join(lines)
