"""Compiling an environment's modules ahead, so that images with a read-only root start fast."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.environment.relocate import files_with
from packager.errors import InstallError, ToolMissingError

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from packager.process import Runner

_log = logging.getLogger(__name__)
_OLDEST = (3, 7)  # the first with bytecode that doesn't depend on times
_DEEPEST = "50"


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """A folder of modules and where it will lie in the image.

    Attributes:
        interpreter: A Python of the same version as the image's, or None when this machine has none.
        version: `3.11`.
    """

    interpreter: Path | None
    version: str
    folder: Path
    destination: PurePosixPath
    workspace: Path


def compile_modules(compiling: Compiling, run: Runner) -> bool:
    """Write `.pyc` files that name the modules by their paths in the image; tell whether that was possible.

    They hold a hash and are never checked against the source: the files' times in the image don't matter. Modules that
    don't compile (templates, Python 2) are left alone.

    Raises:
        InstallError: The compiler itself failed, or wrote a path of this machine.
    """
    interpreter = compiling.interpreter
    if interpreter is None or not _runs(interpreter, compiling, run):
        _log.info("modules are not compiled: no Python %s of the image's platform runs here", compiling.version)
        return False
    if tuple(int(part) for part in compiling.version.split(".")) < _OLDEST:
        _log.info("modules are not compiled: Python %s has no bytecode that is independent of times", compiling.version)
        return False
    empty = compiling.workspace / "compile"
    empty.mkdir(exist_ok=True)
    argv = [str(interpreter), "-B", "-s", "-S", "-m", "compileall", "-qq", "-f", "-r", _DEEPEST, "-j", "0"]
    argv += ["--invalidation-mode", "unchecked-hash", "-d", str(compiling.destination), str(compiling.folder)]
    done = run(argv, env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}, cwd=empty)
    if done.returncode not in (0, 1):  # 1: some module has a syntax error
        raise InstallError(f"the environment's modules can't be compiled:\n{done.output}")
    for path in files_with(sorted(compiling.folder.rglob("*.pyc")), str(compiling.folder).encode()):
        raise InstallError(f"{path.relative_to(compiling.folder)} has the path of the folder that it was compiled in")
    return True


def _runs(interpreter: Path, compiling: Compiling, run: Runner) -> bool:
    if not interpreter.exists():
        return False
    try:
        done = run([str(interpreter), "-I", "-S", "-B", "-c", "pass"], env={}, cwd=compiling.workspace)
    except ToolMissingError:  # a program for another machine
        return False
    return done.returncode == 0
