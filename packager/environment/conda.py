"""`dependencies: conda`: an environment from the model's conda file, without conda."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from packager.environment import Environment
from packager.environment.bytecode import Compilation, compile_modules
from packager.environment.cache.local import check_cache
from packager.environment.conda_file import CondaFile, read_conda_file
from packager.environment.conda_solver import LinkRequest, link_environment
from packager.environment.disk import full_disk
from packager.environment.lock import lock_digest, lock_text, pip_packages
from packager.environment.relocate import Relocation, clean_conda_meta
from packager.environment.uv import Uv
from packager.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path, PurePosixPath

    from packager.environment import ImageTarget
    from packager.logs.progress import Reporter
    from packager.settings import Settings
    from packager.system.process import Runner

__all__ = ["CondaFile", "make_conda_environment", "read_conda_file"]

_log = logging.getLogger(__name__)


def make_conda_environment(  # noqa: PLR0913  (a stage's inputs, each another stage's output)
    conda_file: Path,
    *,
    artifact_root: Path,
    envs_location: PurePosixPath,
    workspace: Path,
    target: ImageTarget,
    settings: Settings,
    run: Runner,
    reporter: Reporter,
    environ: Mapping[str, str] | None = None,
) -> Environment:
    """Solve a conda file for the image, link it, and add its pip section, all for `envs_location/<name>`.

    The files go to `workspace/environment`. Equal inputs give equal files, whatever the workspace. From `environ`, uv
    and the builds it starts get only PATH, certificates and proxies.

    Raises:
        DependenciesError: The file is invalid.
        SolveError, ChannelError, InstallError: A later step failed.
        UsageError: The cache folder is not writable.
        DiskFullError: No space is left.
    """
    asked = read_conda_file(conda_file, settings, artifact_root=artifact_root)
    workspace = workspace.resolve()
    staging, prefix = workspace / "environment", envs_location / asked.name
    with full_disk("making the conda environment"):
        check_cache(settings, "conda", "uv", "bytecode")
        linked = link_environment(
            LinkRequest(
                conda_file=asked,
                staging=staging,
                prefix=prefix,
                workspace=workspace,
                target=target,
                settings=settings,
                reporter=reporter,
            )
        )
        python = linked.record_of("python")
        if python is None:
            raise InstallError("the solved conda environment has no Python")
        version = ".".join(str(python.version).split(".")[:2])
        inside = python.python_site_packages_path or f"lib/python{version}/site-packages"
        site_packages = staging / inside
        if asked.pip_requirements:
            with reporter.stage(f"installing {len(asked.pip_requirements)} pip requirements"):
                uv = Uv(
                    run=run,
                    settings=settings,
                    target=target,
                    workspace=workspace,
                    folder=conda_file.resolve().parent,
                    file=conda_file.name,
                    environ=environ or {},
                )
                uv.install(asked.requirements, "--python", str(staging / "bin" / "python"), "--break-system-packages")
        with reporter.stage("relocating the environment to its path in the image"):
            clean_conda_meta(staging, linked.public_url)
            Relocation(staging=staging, prefix=prefix, site_packages=site_packages).move()
            lock = lock_text(target.platform, linked, pip_packages(site_packages))
            digest = lock_digest(lock, target.platform, prefix)
        with reporter.stage("compiling modules"):
            compile_modules(
                Compilation(
                    interpreter=staging / "bin" / "python",
                    version=version,
                    folder=site_packages.parent,
                    destination=prefix / site_packages.parent.relative_to(staging),
                    workspace=workspace,
                    interpreter_folders=(staging, staging / "bin", staging / "lib"),
                    cache=settings.cache_dir / "bytecode",
                ),
                run,
            )
    return Environment(
        root=staging,
        prefix=prefix,
        python=prefix / "bin" / "python",
        python_version=version,
        site_packages=prefix / inside,
        lock=lock,
        lock_digest=digest,
        variables=asked.variables,
    )
