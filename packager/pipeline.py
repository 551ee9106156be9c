"""The story: archive -> request -> plan -> engine -> result, one verb a stage."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypedDict

from packager import __version__
from packager.artifact import ArtifactLimits, open_artifact
from packager.context import write_context
from packager.engines import RegistryAccess
from packager.environment import ImageTarget
from packager.environment.conda import make_conda_environment, read_conda_file
from packager.environment.pip import make_pip_environment
from packager.environment.server import Server, choose_server, fetch_granian
from packager.errors import DependenciesError, DiskFullError, UsageError, is_disk_full
from packager.interruption import private_folder
from packager.plan import LAYER_TIME
from packager.planner import PACKAGES_FOLDER, RUNTIME_FOLDER, Dependencies, Prepared, base_conda, make_plan
from packager.registry.authfile import auth_file
from packager.request import Overrides, make_request
from packager.result import PackagingResult
from packager.runtime_layer import check_python, gunicorn_version, runtime_contents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packager.artifact import Artifact
    from packager.engines import Engine
    from packager.environment import Environment
    from packager.models.packaging import PackagingManifest
    from packager.plan import BaseImage, ImagePlan
    from packager.process import Runner
    from packager.progress import Reporter
    from packager.request import PackagingRequest
    from packager.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be packaged: a model archive (zip or folder), the packaging, and what the command line adds."""

    model: Path
    manifest: PackagingManifest
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the work is done with."""

    settings: Settings
    engine: Engine
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]


class EnvironmentInputs(TypedDict):
    """What both ways of making an environment take."""

    artifact_root: Path
    workspace: Path
    target: ImageTarget
    settings: Settings
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]


def package(job: Job, tools: Tools) -> PackagingResult:
    """Package a model and put the image at its destination.

    Raises:
        PackagerError: Any of its classes; nothing is left behind but caches.
    """
    with workspace(tools.settings) as work, _prepare(job, tools, work) as prepared:
        with tools.reporter.stage("Writing the build context"):
            context = write_context(prepared.plan, work / "context", ours=work)
        with tools.reporter.stage(
            f"Building with {tools.engine.name} and delivering to {prepared.request.destination}"
        ):
            built = tools.engine.build(prepared.plan, context, prepared.request.destination, prepared.access)
    return PackagingResult.of(built)


def render_context(job: Job, tools: Tools, folder: Path) -> ImagePlan:
    """Write the build context into a new folder, and build nothing.

    Raises:
        PackagerError: Any of its classes; the folder is then not there.
    """
    with workspace(tools.settings) as work, _prepare(job, tools, work) as prepared:
        with tools.reporter.stage("Writing the build context"):
            try:
                write_context(prepared.plan, folder, ours=work)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return prepared.plan


@dataclass(frozen=True, kw_only=True)
class _PreparedJob:
    request: PackagingRequest
    plan: ImagePlan
    access: RegistryAccess


@contextmanager
def _prepare(job: Job, tools: Tools, work: Path) -> Iterator[_PreparedJob]:
    settings, reporter = tools.settings, tools.reporter
    with reporter.stage(f"Reading the model {job.model}"):
        artifact = open_artifact(job.model, work, limits=ArtifactLimits.from_settings(settings), reporter=reporter)
    request = make_request(job.manifest, artifact.manifest.model, job.overrides)
    connections = [connection for connection in (request.push, request.pull) if connection is not None]
    with auth_file(request.push, request.pull, work) as auth:
        access = RegistryAccess(auth_file=auth, insecure_hosts=frozenset(settings.insecure_registries))
        log.debug("connections: %s", ", ".join(connection.id for connection in connections) or "none")
        with reporter.stage(f"Looking into the base image {request.base}"):
            base = tools.engine.inspect_base(request.base, access)
        with reporter.stage("Preparing the model's dependencies"):
            dependencies = make_dependencies(request, artifact, base, tools, work)
        server = make_server(request, dependencies, tools, work)
        prepared = Prepared(
            model=artifact.root,
            manifest=artifact.manifest,
            dependencies=dependencies,
            runtime=runtime_contents(RUNTIME_FOLDER, server.vendor if server else None),
            server=str(server or ""),
            base=base,
            created=_source_time(settings) or artifact.created,
            timestamp=_source_time(settings) or LAYER_TIME,
            packager_version=__version__,
        )
        yield _PreparedJob(request=request, plan=make_plan(request, prepared), access=access)


def make_dependencies(
    request: PackagingRequest, artifact: Artifact, base: BaseImage, tools: Tools, work: Path
) -> Dependencies:
    """Install the model's dependencies for the image, or say how the base's own conda will.

    Raises:
        DependenciesError: The file is wrong, can't be satisfied or fetched, or the base image doesn't fit it.
    """
    binaries, settings = artifact.manifest.binaries, tools.settings
    file = artifact.root / str(binaries.dependencies_path)
    envs_location = PurePosixPath(request.arguments.dockerfile_conda_envs_location)
    if binaries.dependencies == "conda" and not request.arguments.dockerfile_add_conda_installation:
        conda_file = read_conda_file(file, settings, artifact_root=artifact.root)
        return base_conda(base, envs_location, conda_file.to_yaml(), conda_file.variables)
    glibc = base.glibc or settings.glibc
    if glibc is None:
        raise DependenciesError(
            f"the C library of the base image {base.reference} can't be told, or it isn't glibc",
            hint="use a base image with glibc (Debian, Ubuntu, RHEL, ...), or name its version in PACKAGER_GLIBC",
        )
    inputs: EnvironmentInputs = {
        "artifact_root": artifact.root,
        "workspace": work,
        "target": ImageTarget(platform=settings.platform, glibc=glibc, python=base.python or settings.base_python),
        "settings": settings,
        "run": tools.run,
        "reporter": tools.reporter,
        "environ": tools.environ,
    }
    if binaries.dependencies == "pip":
        environment = make_pip_environment(file, prefix=PACKAGES_FOLDER, **inputs)
        return _installed(environment, packages=environment.site_packages)
    return _installed(make_conda_environment(file, envs_location=envs_location, **inputs), packages=None)


def make_server(request: PackagingRequest, dependencies: Dependencies, tools: Tools, work: Path) -> Server | None:
    """Choose what the image answers HTTP with, and fetch it for the image's Python; None where it doesn't answer.

    Raises:
        DependenciesError: It can't be fetched, or what the settings ask for doesn't run on that Python.
    """
    if request.application.command(request.arguments).port is None:
        return None
    settings, python = tools.settings, dependencies.python_version
    if choose_server(settings.server, python) == "granian":
        server = fetch_granian(
            python, workspace=work, settings=settings, run=tools.run, reporter=tools.reporter, environ=tools.environ
        )
    else:
        server = Server(name="gunicorn", version=gunicorn_version())
    log.info("the image serves with %s on Python %s", server, python or "of the base's environment")
    return server


def _installed(environment: Environment, *, packages: PurePosixPath | None) -> Dependencies:
    check_python(environment.python_version)
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


def _source_time(settings: Settings) -> datetime | None:
    """The time that SOURCE_DATE_EPOCH sets for everything (reproducible-builds.org/docs/source-date-epoch)."""
    if settings.source_date_epoch is None:
        return None
    return datetime.fromtimestamp(settings.source_date_epoch, timezone.utc)


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """Make a private temporary folder, and take it away at the end whatever happens.

    Raises:
        DiskFullError: There is no space for it.
        UsageError: The folder that it should lie in can't be used.
    """
    below = settings.work_dir or Path(tempfile.gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder("packager-", below))
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    f"no space left in {below}", hint="name a larger disk in PACKAGER_WORK_DIR"
                ) from error
            raise UsageError(
                f"no temporary folder can be made in {below}: {error.strerror}",
                hint="name a writable folder in PACKAGER_WORK_DIR",
            ) from error
        yield folder
