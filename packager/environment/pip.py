"""`dependencies: pip`: requirements installed for the base image's Python."""

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
_INTERPRETER = "/usr/bin/env python3"  # the base image's Python, wherever it is installed


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
    """Install a requirements file for the base image's Python without running it; from wheels only.

    The modules go to `workspace/packages`; `python` of the result is `python3`.

    Raises:
        DependenciesError: The file is invalid, or the base image's Python is unknown.
        SolveError, ChannelError, InstallError: A later step failed.
        UsageError: The cache folder is not writable.
        DiskFullError: No space is left.
    """
    if target.python is None:
        raise DependenciesError(
            "cannot detect python3 in the base image, which the model's pip dependencies need",
            hint="use a base image with Python, or set its version, as in PACKAGER_BASE_PYTHON=3.11",
        )
    check_python(target.python)
    asked = read_requirements(_lines(requirements), file=requirements, root=artifact_root)
    if built := [line for line in asked.formats if line.startswith("--no-binary") and not line.endswith(":none:")]:
        raise DependenciesError(
            f"{requirements.name}: {sanitize(repr(built[0]))} requires a source build, but only wheels are supported",
            hint="remove the option, or use `dependencies: conda`, which can build from source",
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
        with reporter.stage("relocating the packages to their path in the image"):
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
            f"{path.name} is missing",
            hint="add it to the archive, or correct `binaries.requirements_path` in the model's manifest",
        ) from error
    except OSError as error:
        raise DependenciesError(f"{path.name} can't be read: {error.strerror or error}") from error
