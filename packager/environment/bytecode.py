"""Compiling an environment's modules ahead, so that images with a read-only root start fast."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.environment.relocate import files_with
from packager.errors import InstallError, ToolMissingError

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from packager.system.process import Runner

_log = logging.getLogger(__name__)
_MIN_PYTHON = (3, 7)  # the first with bytecode that doesn't depend on times
_MAX_DEPTH = "50"
_MAX_ARCHIVES = 8  # environments whose bytecode is kept; each is about a tenth of its environment


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A folder of modules and where it will lie in the image.

    Attributes:
        interpreter: A Python of the same version as the image's, or None when this machine has none.
        version: `3.11`.
        interpreter_folders: The folders whose files make up a staged interpreter (its program, its libraries).
        cache: The folder that keeps bytecode between runs.
    """

    interpreter: Path | None
    version: str
    folder: Path
    destination: PurePosixPath
    workspace: Path
    cache: Path
    interpreter_folders: tuple[Path, ...] = ()

    def digest(self) -> str:
        """Digest every module, and everything that the interpreter loads while it compiles.

        The content counts, not what a package says of it: a package with another's name and RECORD must not get its
        bytecode into the environment of the next model.
        """
        total = hashlib.sha256(f"1\0{self.version}\0{self.destination}\0".encode())
        staged = bool(self.interpreter_folders)
        total.update(b"" if staged else sys.version.encode())
        files = [path for folder in self.interpreter_folders for path in sorted(folder.iterdir())]
        for place, folders, names in os.walk(self.folder):
            folders.sort()
            paths = [Path(place, name) for name in sorted(names)]
            loaded = staged and "site-packages" not in place[len(str(self.folder)) :]
            files += [path for path in paths if loaded or path.suffix == ".py"]
        for path in files:
            if path.is_file():
                total.update(f"{os.path.relpath(path, self.folder)}\0".encode() + _file_digest(path))
        return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def compile_modules(compiling: Compilation, run: Runner) -> bool:
    """Write `.pyc` files that name the modules by their paths in the image; tell whether that was possible.

    They hold a hash and are never checked against the source: the files' times in the image don't matter. Modules that
    don't compile (templates, Python 2) are left alone. The same modules are compiled once: packaging the next version
    of a model in an unchanged environment takes the bytecode from the cache.

    Raises:
        InstallError: The compiler itself failed, or wrote a path of this machine.
    """
    for path in compiling.folder.rglob("__pycache__/*.pyc"):
        path.unlink()  # of conda packages and builds: tied to times that the image's files won't have
    kept = compiling.cache / f"{compiling.digest()}.tar"
    if kept.exists() and _restore(kept, compiling.folder):
        _log.info("modules were compiled before: taking the bytecode from the cache")
        return True
    interpreter = compiling.interpreter
    if interpreter is None or not _can_run(interpreter, compiling, run):
        _log.info("modules are not compiled: no Python %s of the image's platform runs here", compiling.version)
        return False
    if tuple(int(part) for part in compiling.version.split(".")) < _MIN_PYTHON:
        _log.info("modules are not compiled: Python %s has no bytecode that is independent of times", compiling.version)
        return False
    empty = compiling.workspace / "compile"
    empty.mkdir(exist_ok=True)
    argv = [str(interpreter), "-B", "-s", "-S", "-m", "compileall", "-qq", "-f", "-r", _MAX_DEPTH, "-j", "0"]
    argv += ["--invalidation-mode", "unchecked-hash", "-d", str(compiling.destination), str(compiling.folder)]
    done = run(argv, env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}, cwd=empty)
    if done.returncode not in (0, 1):  # 1: some module has a syntax error
        raise InstallError(f"the environment's modules can't be compiled:\n{done.output}")
    modules = sorted(compiling.folder.rglob("__pycache__/*.pyc"))
    for path in files_with(modules, str(compiling.folder).encode()):
        raise InstallError(f"{path.relative_to(compiling.folder)} has the path of the folder that it was compiled in")
    if modules:
        _save(modules, compiling.folder, kept)
    return True


def _restore(kept: Path, folder: Path) -> bool:
    """Put the bytecode of an archive of our own at its place."""
    try:
        with tarfile.open(kept, "r:") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None:
                    continue
                path = folder / member.name
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file)
                path.chmod(member.mode)
        os.utime(kept)
    except (tarfile.TarError, EOFError) as error:  # cut off by a crash of the machine, say
        _log.warning("the cached bytecode %s is damaged, compiling anew: %s", kept, error)
        kept.unlink(missing_ok=True)
        return False
    return True


def _save(modules: list[Path], folder: Path, kept: Path) -> None:
    """Keep bytecode for the next run, and forget what hasn't been used for longest."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    try:
        with tarfile.open(partial, "w:") as archive:
            for path in modules:
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    with suppress(FileNotFoundError):  # another run forgets as well
        for old in sorted(kept.parent.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-_MAX_ARCHIVES]:
            old.unlink()


def _can_run(interpreter: Path, compiling: Compilation, run: Runner) -> bool:
    if not interpreter.exists():
        return False
    try:
        done = run([str(interpreter), "-I", "-S", "-B", "-c", "pass"], env={}, cwd=compiling.workspace)
    except ToolMissingError:  # a program for another machine
        return False
    return done.returncode == 0
