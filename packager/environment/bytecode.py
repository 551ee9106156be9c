"""Ahead-of-time compilation of an environment's modules, so that images with a read-only root start fast."""

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
_MIN_PYTHON = (3, 7)  # the first version with hash-based bytecode (PEP 552)
_MAX_DEPTH = "50"
_MAX_ARCHIVES = 8  # cached environments; each archive is about a tenth of its environment


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A folder of modules to compile for a folder of the image.

    Attributes:
        interpreter: A Python of the image's version, or None without one on this machine.
        version: `3.11`.
        interpreter_folders: The folders of a staged interpreter's program and libraries.
        cache: The folder for bytecode of earlier runs.
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

        The digest covers the files' content, not their metadata: a package with the name and RECORD of another one must
        not get its bytecode into the environment of the next model.
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
    """Write `.pyc` files that name the modules by their paths in the image; return whether that was possible.

    They are hash-based and never checked against the source, so file times in the image don't matter. Modules that
    don't compile (templates, Python 2) are skipped. Bytecode of the same modules comes from the cache, so the next
    version of a model in an unchanged environment is not compiled again.

    Raises:
        InstallError: The compiler itself failed, or wrote a path of this machine.
    """
    for path in compiling.folder.rglob("__pycache__/*.pyc"):
        path.unlink()  # from conda packages and builds: based on file times that the image won't have
    kept = compiling.cache / f"{compiling.digest()}.tar"
    if kept.exists() and _restore(kept, compiling.folder):
        _log.info("using the cached bytecode of the same modules")
        return True
    interpreter = compiling.interpreter
    if interpreter is None or not _can_run(interpreter, compiling, run):
        _log.info("modules are not compiled: no Python %s for the image's platform on this machine", compiling.version)
        return False
    if tuple(int(part) for part in compiling.version.split(".")) < _MIN_PYTHON:
        _log.info("modules are not compiled: Python %s has no hash-based bytecode", compiling.version)
        return False
    empty = compiling.workspace / "compile"
    empty.mkdir(exist_ok=True)
    argv = [str(interpreter), "-B", "-s", "-S", "-m", "compileall", "-qq", "-f", "-r", _MAX_DEPTH, "-j", "0"]
    argv += ["--invalidation-mode", "unchecked-hash", "-d", str(compiling.destination), str(compiling.folder)]
    done = run(argv, env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}, cwd=empty)
    if done.returncode not in (0, 1):  # 1: some module has a syntax error
        raise InstallError(f"cannot compile the environment's modules:\n{done.output}")
    modules = sorted(compiling.folder.rglob("__pycache__/*.pyc"))
    for path in files_with(modules, str(compiling.folder).encode()):
        raise InstallError(f"{path.relative_to(compiling.folder)} contains the path of its staging folder")
    if modules:
        _save(modules, compiling.folder, kept)
    return True


def _restore(kept: Path, folder: Path) -> bool:
    """Extract cached bytecode into the environment; return False if the archive is damaged."""
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
    except (tarfile.TarError, EOFError) as error:  # truncated by a crash, for example
        _log.warning("the cached bytecode %s is damaged; compiling again: %s", kept, error)
        kept.unlink(missing_ok=True)
        return False
    return True


def _save(modules: list[Path], folder: Path, kept: Path) -> None:
    """Cache bytecode for the next run, and remove the least recently used archives."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    try:
        with tarfile.open(partial, "w:") as archive:
            for path in modules:
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    with suppress(FileNotFoundError):  # another run removes archives too
        for old in sorted(kept.parent.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-_MAX_ARCHIVES]:
            old.unlink()


def _can_run(interpreter: Path, compiling: Compilation, run: Runner) -> bool:
    if not interpreter.exists():
        return False
    try:
        done = run([str(interpreter), "-I", "-S", "-B", "-c", "pass"], env={}, cwd=compiling.workspace)
    except ToolMissingError:  # a program for another platform
        return False
    return done.returncode == 0
