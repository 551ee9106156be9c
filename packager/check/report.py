"""The result of the runtime's `self-check`: its report, or the way its process ended."""

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

# Messages of glibc's loader; the base image may have what is missing on this machine.
_NOT_HERE = re.compile(
    r"[^\s:']+: cannot open shared object file|version [`'](?:GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found"
)
_NOT_WRITABLE = re.compile(r"Permission denied|Read-only file system|cannot cache function")
_NO_MODULE = re.compile(r"No module named '([^']+)'")
_SIGNALS = 128
_HINT = "fix the model (its traceback is above), or skip the check with --no-check (PACKAGER_CHECK=never)"
_MEMORY_HINT = (
    "most likely out of memory: give the packaging more memory, or skip the check with --no-check "
    "(PACKAGER_CHECK=never)"
)


def report_args(config: ImageConfig) -> tuple[str, ...]:
    """Return the runtime's arguments for a `self-check` of the model, as the image will run it."""
    command_line = (*config.entrypoint[2:], *config.cmd)
    if command_line == ("cli",):
        command_line += ("predict", "INPUT_FILE", "OUTPUT_DIR")
    return ("cli", "self-check", "--format", "json", "--for", *command_line)


class CheckUnavailableError(Exception):
    """The check is not possible on this machine; the text says why."""


def raise_for_report(
    done: Completed, *, to_image: Callable[[str], str] = str, pip: bool = False, in_image: bool = False
) -> dict[str, Any]:
    """Log and return the report of a model that serves; raise for any other.

    Args:
        done: The process of `self-check`, with its standard output captured.
        to_image: Replaces local paths by the image's.
        pip: Whether the packages of the base image's Python are missing here.
        in_image: Whether it ran in the image, where anything missing is the model's fault.

    Raises:
        ModelCheckError: The model can't serve.
        CheckUnavailableError: The failure may be due to this machine.
    """
    report = parse_report(done.stdout)
    if done.returncode == 0 and report.get("status") == "ok":
        took = sum(value for value in report.get("seconds", {}).values() if isinstance(value, int | float))
        log.info("the model serves: loaded in %.1f s, its example: %s", took, report.get("sample"))
        return report
    error = to_image(str(report.get("error", "")))
    if not in_image and (found := _NOT_HERE.search(error)):
        raise CheckUnavailableError(f"this machine is not the base image: {found[0]}")
    if pip and (missing := _NO_MODULE.search(error)):
        raise CheckUnavailableError(f"its requirements lack the module {missing[1]!r}, which the base image may have")
    log_output(to_image(line) for line in done.output.splitlines())
    if error:
        raise ModelCheckError(
            f"the model can't serve: {error}", hint=WRITING_HINT if _NOT_WRITABLE.search(error) else _HINT
        )
    code = done.returncode
    if in_image and code > _SIGNALS and code - _SIGNALS in set(signal.Signals):
        code = _SIGNALS - code  # shells and Buildah report signals so
    if code < 0:
        name = signal.Signals(-code).name
        hint = _MEMORY_HINT if name == "SIGKILL" else _HINT
        raise ModelCheckError(f"the model can't serve: its process was killed by {name}", hint=hint)
    raise ModelCheckError(f"the model can't serve: it ended its own process with exit code {code}", hint=_HINT)


def parse_report(text: str) -> dict[str, Any]:
    """Parse the report, which is the last line of the output; empty without one."""
    try:
        report = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def log_output(lines: Iterable[str]) -> None:
    """Log the model's output."""
    if text := "\n".join(lines):
        log.error("the model wrote:\n%s", text)
