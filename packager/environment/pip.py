"""`dependencies: pip`: requirements installed for the base image's own Python."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.environment import Environment
from packager.environment.bytecode import Compilation, compile_modules
from packager.environment.cache.local import check_cache
from packager.environment.disk import full_disk
from packager.environment.lock import lock_digest, lock_text, pip_packages
from packager.environment.relocate import Relocation
from packager.environment.requirements import read_requirements
from packager.environment.text import read_text_file
from packager.environment.uv import Uv
from packager.errors import DependenciesError
from packager.image.runtime_layer import check_python
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.environment import ImageTarget
    from packager.logs.progress import Reporter
    from packager.settings import Settings
    from packager.system.process import Runner

PREFIX = PurePosixPath("/opt/odahu/packages")
_INTERPRETER = "/usr/bin/env python3"  # the base's own, wherever it lies


def make_pip_environment(  # noqa: PLR0913  (a stage's inputs, each another stage's output)
    requirements: Path,
    *,
    artifact_root: Path,
    workspace: Path,
    target: ImageTarget,
    settings: Settings,
    run: Runner,
    reporter: Reporter,
    prefix: PurePosixPath = PREFIX,
    environ: Mapping[str, str] | None = None,
) -> Environment:
    """Install a requirements file for the base image's Python, without that Python: wheels only, nothing is built.

    The files lie in `workspace/packages`, which is one folder of modules; `python` of the result is plain `python3`.

    Raises:
        DependenciesError: The file is wrong or the base's Python isn't known; SolveError, ChannelError and InstallError
            say what failed later.
        UsageError: The cache folder can't be written.
        DiskFullError: No space is left.
    """
    if target.python is None:
        raise DependenciesError(
            "the model has pip dependencies, and no python3 could be read in the base image",
            hint="take a base image with Python, or say its version with PACKAGER_BASE_PYTHON=3.11",
        )
    check_python(target.python)
    asked = read_requirements(_lines(requirements), file=requirements, root=artifact_root)
    if built := [line for line in asked.formats if line.startswith("--no-binary") and not line.endswith(":none:")]:
        raise DependenciesError(
            f"{requirements.name}: {sanitize(repr(built[0]))} asks for a build, and only wheels can be installed here",
            hint="leave the option away, or make the model one with `dependencies: conda`, which can build from source",
        )
    workspace = workspace.resolve()
    staging = workspace / "packages"
    staging.mkdir()
    with full_disk("installing the pip requirements"):
        check_cache(settings, "uv", "bytecode")
        if asked.lines:
            with reporter.stage(f"installing {len(asked.lines)} pip requirements"):
                uv = Uv(
                    run=run,
                    settings=settings,
                    target=target,
                    workspace=workspace,
                    folder=requirements.resolve().parent,
                    file=requirements.name,
                    environ=environ or {},
                )
                where = ["--target", str(staging), "--python", sys.executable, "--python-version", target.python]
                uv.install(asked, *where, "--only-binary", ":all:")
        (staging / ".lock").unlink(missing_ok=True)
        with reporter.stage("moving the packages to their place in the image"):
            Relocation(
                staging=staging,
                prefix=prefix,
                site_packages=staging,
                interpreter=_INTERPRETER,
                foreign=(sys.executable, str(Path(sys.executable).resolve())),
            ).move()
            lock = lock_text(target.platform, None, pip_packages(staging))
            digest = lock_digest(lock, target.platform, prefix)
        with reporter.stage("compiling modules"):
            same = target.python == f"{sys.version_info.major}.{sys.version_info.minor}"
            compile_modules(
                Compilation(
                    interpreter=Path(sys.executable) if same else None,
                    version=target.python,
                    folder=staging,
                    destination=prefix,
                    workspace=workspace,
                    cache=settings.cache_dir / "bytecode",
                ),
                run,
            )
    return Environment(
        root=staging,
        prefix=prefix,
        python=PurePosixPath("python3"),
        python_version=target.python,
        site_packages=prefix,
        lock=lock,
        lock_digest=digest,
    )


def _lines(path: Path) -> list[str]:
    try:
        return read_text_file(path).splitlines()
    except FileNotFoundError as error:
        raise DependenciesError(
            f"{path.name} is missing", hint="`binaries.requirements_path` in the model's manifest names it"
        ) from error
    except OSError as error:
        raise DependenciesError(f"{path.name} can't be read: {error.strerror or error}") from error
