"""The model's dependencies for its image: cached, installed now, or left to the base image's own conda."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypedDict

from packager.environment import ImageTarget
from packager.environment.cache.registry import CacheInputs
from packager.errors import DependenciesError
from packager.image.planner import PACKAGES_FOLDER, Dependencies, base_conda
from packager.image.runtime_layer import gunicorn_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.environment import Environment
    from packager.environment.cache.registry import RegistryCache
    from packager.environment.http_server import HttpServer
    from packager.image.plan import BaseImage
    from packager.logs.progress import Reporter
    from packager.request import PackagingRequest
    from packager.settings import Settings
    from packager.sources.artifact import Artifact
    from packager.system.process import Runner

log = logging.getLogger(__name__)


class InstallInputs(TypedDict):
    """The inputs that conda and pip environments share."""

    artifact_root: Path
    workspace: Path
    target: ImageTarget
    settings: Settings
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DependencyResolver:
    """Provides the dependencies of a model, from the cache or by installing them.

    Attributes:
        workspace: A private folder.
        store: The cache of environments, with an engine that can use it.
    """

    settings: Settings
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]
    workspace: Path
    store: RegistryCache | None = None

    def resolve(self, request: PackagingRequest, artifact: Artifact, base: BaseImage) -> tuple[Dependencies, str]:
        """Return the dependencies, and the key to cache them under (empty if they must not be cached).

        Raises:
            DependenciesError: The file is invalid, can't be solved or fetched, or doesn't fit the base image.
        """
        binaries, settings = artifact.manifest.binaries, self.settings
        file = artifact.root / str(binaries.dependencies_path)
        envs_location = PurePosixPath(request.arguments.dockerfile_conda_envs_location)
        if needs_run_step(request, artifact):
            from packager.environment.conda import read_conda_file  # noqa: PLC0415  (slow to import)

            conda_file = read_conda_file(file, settings, artifact_root=artifact.root)
            return base_conda(base, envs_location, conda_file.to_yaml(), conda_file.variables), ""
        glibc = base.glibc or settings.glibc
        if glibc is None:
            raise DependenciesError(
                f"cannot detect glibc in base image {base.reference}",
                hint="use a base image with glibc (Debian, Ubuntu, RHEL, ...), or set its version in PACKAGER_GLIBC",
            )
        target = ImageTarget(platform=settings.platform, glibc=glibc, python=base.python or settings.base_python)
        prefix = PACKAGES_FOLDER if binaries.dependencies == "pip" else envs_location
        key = ""
        if self.store is not None:
            target_key = (target.platform, target.glibc, target.python or "" if binaries.dependencies == "pip" else "")
            # The layer also contains its parent folders, with their modes and owners in the base image.
            above = {str(path)[1:] for path in (prefix, *prefix.parents)}
            inputs = CacheInputs(
                kind=binaries.dependencies,
                file=file,
                artifact_root=artifact.root,
                prefix=prefix,
                target=(*target_key, *(repr(folder) for folder in base.folders if folder.path in above)),
            )
            key = inputs.key(settings)
            if settings.refresh_environment:
                log.info("solving the dependencies again, as requested")
            elif found := self.store.find(key):
                return found, ""
        return self._install(file, artifact, target, prefix, kind=binaries.dependencies), key

    def choose_http_server(self, request: PackagingRequest, dependencies: Dependencies) -> HttpServer | None:
        """Choose the image's HTTP server and fetch it for the image's Python; None for an image without one.

        Raises:
            DependenciesError: It can't be fetched, or the configured server doesn't run on that Python.
        """
        if request.integration_type.command(request.arguments).port is None:
            return None
        from packager.environment.http_server import HttpServer, choose_server, fetch_granian  # noqa: PLC0415  (slow to import)

        settings, python = self.settings, dependencies.python_version
        if choose_server(settings.server, python) == "granian":
            server = fetch_granian(
                python,
                workspace=self.workspace,
                settings=settings,
                run=self.run,
                reporter=self.reporter,
                environ=self.environ,
            )
        else:
            server = HttpServer(name="gunicorn", version=gunicorn_version())
        log.info("HTTP server: %s on Python %s", server, python or "of the base image's environment")
        return server

    def _install(
        self, file: Path, artifact: Artifact, target: ImageTarget, prefix: PurePosixPath, *, kind: str
    ) -> Dependencies:
        inputs: InstallInputs = {
            "artifact_root": artifact.root,
            "workspace": self.workspace,
            "target": target,
            "settings": self.settings,
            "run": self.run,
            "reporter": self.reporter,
            "environ": self.environ,
        }
        if kind == "pip":
            from packager.environment.pip import make_pip_environment  # noqa: PLC0415  (imported when needed)

            environment = make_pip_environment(file, prefix=prefix, **inputs)
            return _installed(environment, packages=environment.site_packages)
        from packager.environment.conda import make_conda_environment  # noqa: PLC0415  (slow to import)

        return _installed(make_conda_environment(file, envs_location=prefix, **inputs), packages=None)


def needs_run_step(request: PackagingRequest, artifact: Artifact) -> bool:
    """Return whether the base image's own conda installs the dependencies, with a RUN step."""
    conda = artifact.manifest.binaries.dependencies == "conda"
    return conda and not request.arguments.dockerfile_add_conda_installation


def _installed(environment: Environment, *, packages: PurePosixPath | None) -> Dependencies:
    return Dependencies(
        python=str(environment.python),
        python_version=environment.python_version,
        root=environment.root,
        prefix=environment.prefix,
        packages=packages,
        variables=environment.variables,
        lock=environment.lock,
        lock_digest=environment.lock_digest,
    )
