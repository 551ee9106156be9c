"""What the runtime's `self-check` and the end of its process say of a model."""

from __future__ import annotations

import json
import logging
import re
import signal
from typing import TYPE_CHECKING, Any

from packager.check.sandbox import WRITING_HINT
from packager.errors import ModelCheckError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from packager.image.plan import ImageConfig
    from packager.system.process import Completed

log = logging.getLogger(__name__)

# What glibc's loader says; the base image is another machine, which may have it.
_NOT_HERE = re.compile(
    r"[^\s:']+: cannot open shared object file|version [`'](?:GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found"
)
_NOT_WRITABLE = re.compile(r"Permission denied|Read-only file system|cannot cache function")
_NO_MODULE = re.compile(r"No module named '([^']+)'")
_SIGNALS = 128
_HINT = "mend the model, whose traceback is above, or package it unchecked with --no-check (PACKAGER_CHECK=never)"
_MEMORY_HINT = (
    "most likely the memory ran out: give the packaging more, or package it unchecked with --no-check "
    "(PACKAGER_CHECK=never)"
)


def report_words(config: ImageConfig) -> tuple[str, ...]:
    """Return the runtime's arguments for a report on the model as the image will run it."""
    command_line = (*config.entrypoint[2:], *config.cmd)
    if command_line == ("cli",):
        command_line += ("predict", "INPUT_FILE", "OUTPUT_DIR")
    return ("cli", "self-check", "--format", "json", "--for", *command_line)


class UnavailableError(Exception):
    """It can't be told here whether the model serves; the text says why."""


def judge(done: Completed, *, back: Callable[[str], str] = str, pip: bool = False, in_image: bool = False) -> None:
    """Log that the model serves, or say why it doesn't.

    Args:
        done: The process of `self-check`, with its standard output captured.
        back: Puts the image's paths in the place of those here.
        pip: Whether the packages of the base's own Python are missing here.
        in_image: Whether it ran in the image, where nothing can be missing but by the model's own fault.

    Raises:
        ModelCheckError: It can't serve.
        UnavailableError: It can't be told from here.
    """
    report = _report(done.stdout)
    if done.returncode == 0 and report.get("status") == "ok":
        took = sum(value for value in report.get("seconds", {}).values() if isinstance(value, int | float))
        log.info("the model serves: loaded in %.1f s, its example %s", took, report.get("sample"))
        return
    error = back(str(report.get("error", "")))
    if not in_image and (found := _NOT_HERE.search(error)):
        raise UnavailableError(f"this machine is not the base image: {found[0]}")
    if pip and (missing := _NO_MODULE.search(error)):
        raise UnavailableError(f"its requirements don't bring the module {missing[1]!r}; the base image may")
    show(back(line) for line in done.output.splitlines())
    if error:
        raise ModelCheckError(
            f"the model can't serve: {error}", hint=WRITING_HINT if _NOT_WRITABLE.search(error) else _HINT
        )
    code = done.returncode
    if in_image and code > _SIGNALS and code - _SIGNALS in set(signal.Signals):
        code = _SIGNALS - code  # as a shell counts, and Buildah too
    if code < 0:
        name = signal.Signals(-code).name
        hint = _MEMORY_HINT if name == "SIGKILL" else _HINT
        raise ModelCheckError(f"the model can't serve: its process was ended by {name}", hint=hint)
    raise ModelCheckError(
        f"the model can't serve: it ended its process by itself, with the exit code {code}", hint=_HINT
    )


def _report(text: str) -> dict[str, Any]:
    """Read the report, which is the last line."""
    try:
        report = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def show(lines: Iterable[str]) -> None:
    """Put what the model wrote into the log."""
    if text := "\n".join(lines):
        log.error("the model wrote:\n%s", text)
