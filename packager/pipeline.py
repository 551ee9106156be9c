"""The pipeline: model -> request -> engine -> login -> base -> environment -> plan -> check -> build -> result.

Each stage is a function that takes and gives frozen values. What a stage opens is closed when the run ends.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from packager import __version__
from packager.check.model_check import ModelCheck, choose_mode
from packager.engines.selection import EngineRequirements
from packager.environment.cache.local import LocalEnvironments
from packager.environment.cache.registry import EnvironmentStore
from packager.environment.dependencies import DependencyMaker, needs_run_step
from packager.image.context import write_context
from packager.image.plan import LAYER_TIME
from packager.image.planner import ENVIRONMENT_LAYER, RUNTIME_FOLDER, PlanInputs, make_plan
from packager.image.runtime_layer import runtime_contents
from packager.models.reference import LOCAL_STORAGE
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.docker_config import read_user_config
from packager.registry.keychain import Keychain, LoginContext
from packager.registry.uploads import check_push
from packager.request import Overrides, make_request
from packager.result import PackagingResult
from packager.sources.model import opened_model
from packager.system.signals import ignore_stops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from packager.engines import BuiltImage, Engine
    from packager.image.plan import BaseImage, ImagePlan
    from packager.image.planner import Dependencies
    from packager.logs.progress import Reporter
    from packager.models.connection import Connection
    from packager.models.packaging import PackagingManifest
    from packager.models.reference import Destination, Reference
    from packager.request import PackagingRequest
    from packager.settings import CheckMode, Settings
    from packager.sources.artifact import Artifact
    from packager.sources.stores.location import RemoteModel
    from packager.system.process import Runner

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackagingInput:
    """What is to be packaged: a model (zip, folder or object in a store), the packaging, and the command line's."""

    model: Path | RemoteModel
    manifest: PackagingManifest
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, kw_only=True)
class PipelineContext:
    """What every stage may use.

    Attributes:
        work: A private folder, which is removed after the run.
        choose_engine: Sets up the engine that meets the requirements, and logs why it is that one.
        learn: Takes secrets, for redaction.
    """

    settings: Settings
    work: Path
    choose_engine: Callable[[EngineRequirements], Engine]
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]
    learn: Callable[[Iterable[str]], None]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """A model, and what was asked to be made of it."""

    model: Artifact
    request: PackagingRequest
    check: CheckMode

    @property
    def engine_requirements(self) -> EngineRequirements:
        """What the image needs of the engine that builds it."""
        return EngineRequirements(
            run_steps=needs_run_step(self.request, self.model),
            local_base=self.request.base.in_local_storage,
            local_output=self.request.destination.transport != "docker",
            check=self.check != "never",
        )


@dataclass(frozen=True, kw_only=True)
class PreparedEnvironment:
    """The model's dependencies and the server for its image.

    Attributes:
        server: The name and version of what serves; empty for an image that doesn't.
        vendor: The folder with the server's own packages, if it has any.
        key: Under which the dependencies are to be kept in the store; empty when they are not.
        store: Where environments are kept between runs, with an engine that can use them.
        local: Where their files are kept on this machine.
    """

    dependencies: Dependencies
    server: str
    vendor: Path | None
    key: str
    store: EnvironmentStore | None
    local: LocalEnvironments


def package(packaging: PackagingInput, context: PipelineContext) -> PackagingResult:
    """Package a model and put the image at its destination.

    Raises:
        PackagerError: Any of its classes; nothing is left behind but caches.
    """
    with ExitStack() as stack:
        asked = stack.enter_context(read_request(packaging, context))
        engine = context.choose_engine(asked.engine_requirements)
        access = log_in(asked.request, engine, context)
        prepare_push(asked.request, engine, access, context)
        base = inspect_base(asked.request, engine, access, context)
        environment = make_environment(asked, engine, base, access, context)
        inputs = plan_inputs(asked.model, base, environment, context)
        plan = make_plan(asked.request, inputs)
        outcome = prepare_check(asked, engine, environment, access, context).check(plan, inputs)
        built = build(plan, asked.request.destination, engine, access, context)
        keep_environment(environment, built)
        return PackagingResult.of(built, outcome)


def render_context(packaging: PackagingInput, context: PipelineContext, folder: Path) -> ImagePlan:
    """Write the build context into a new folder, and build nothing.

    Raises:
        PackagerError: Any of its classes; the folder is then not there.
    """
    with ExitStack() as stack:
        asked = stack.enter_context(read_request(packaging, context))
        engine = context.choose_engine(asked.engine_requirements)
        access = log_in(asked.request, engine, context)
        base = inspect_base(asked.request, engine, access, context)
        environment = make_environment(asked, engine, base, access, context)
        plan = make_plan(asked.request, plan_inputs(asked.model, base, environment, context))
        with context.reporter.stage("Writing the build context"):
            try:
                write_context(plan, folder, ours=context.work)
                ignore_stops()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return plan


@contextmanager
def read_request(packaging: PackagingInput, context: PipelineContext) -> Iterator[ModelRequest]:
    """Open the model for the block, and read what is asked to be made of it."""
    opened = opened_model(
        packaging.model, context.work, settings=context.settings, environ=context.environ, reporter=context.reporter
    )
    with opened as model:
        request = make_request(packaging.manifest, model.manifest.model, packaging.overrides)
        check = choose_mode(context.settings.check, request.arguments.check)
        yield ModelRequest(model=model, request=request, check=check)


def log_in(request: PackagingRequest, engine: Engine, context: PipelineContext) -> RegistryAccess:
    """Collect the logins, and find out how the registries are reached."""
    trust = Trust.from_settings(context.settings)
    repositories = engine.repositories(request.destination)
    hosts = [place.host for place in (*trust.endpoints(request.base), *repositories)]
    logins = LoginContext(
        base=request.base,
        user=read_user_config(context.environ),
        hosts=tuple(dict.fromkeys(host for host in hosts if host != LOCAL_STORAGE)),
        environ=context.environ,
        register_secrets=context.learn,
    )
    connections = [connection.id for connection in (request.push, request.pull) if connection is not None]
    log.debug("connections: %s", ", ".join(connections) or "none")
    keychain = Keychain.open(request.push, request.pull, logins)
    insecure_hosts = find_insecure_hosts((request.base, *repositories), trust)
    return RegistryAccess(keychain=keychain, trust=trust, insecure_hosts=insecure_hosts)


def inspect_base(
    request: PackagingRequest, engine: Engine, access: RegistryAccess, context: PipelineContext
) -> BaseImage:
    """Find out what the base image has."""
    with context.reporter.stage(f"Looking into the base image {request.base}"):
        return engine.inspect_base(request.base, access)


def make_environment(
    asked: ModelRequest, engine: Engine, base: BaseImage, access: RegistryAccess, context: PipelineContext
) -> PreparedEnvironment:
    """Make the model's dependencies, or find those of an earlier run, and fetch the server."""
    settings, request = context.settings, asked.request
    repository, store = engine.environment_repository(request.destination), None
    if repository is not None:
        age = timedelta(days=settings.environment_max_age)
        store = EnvironmentStore(repository=repository, access=access, longest_age=age)
    maker = DependencyMaker(
        settings=settings,
        run=context.run,
        reporter=context.reporter,
        environ=context.environ,
        workspace=context.work,
        store=store,
    )
    with context.reporter.stage("Preparing the model's dependencies"):
        dependencies, key = maker.make(request, asked.model, base)
        server = maker.make_server(request, dependencies)
    return PreparedEnvironment(
        dependencies=dependencies,
        server=str(server or ""),
        vendor=server.vendor if server else None,
        key=key,
        store=store,
        local=LocalEnvironments.from_settings(settings),
    )


def plan_inputs(
    model: Artifact, base: BaseImage, environment: PreparedEnvironment, context: PipelineContext
) -> PlanInputs:
    """Collect what the image is planned from."""
    source_time = _source_time(context.settings)
    return PlanInputs(
        model=model.root,
        sizes=model.sizes,
        packed=model.packed,
        manifest=model.manifest,
        dependencies=environment.dependencies,
        runtime=runtime_contents(RUNTIME_FOLDER, environment.vendor),
        server=environment.server,
        base=base,
        created=source_time or model.created,
        timestamp=source_time or LAYER_TIME,
        packager_version=__version__,
    )


def prepare_check(
    asked: ModelRequest,
    engine: Engine,
    environment: PreparedEnvironment,
    access: RegistryAccess,
    context: PipelineContext,
) -> ModelCheck:
    """Set up the check of the model; no login is on the disk meanwhile."""
    return ModelCheck(
        settings=context.settings,
        environ=context.environ,
        reporter=context.reporter,
        workspace=context.work,
        access=access,
        mode=asked.check,
        environments=environment.local,
        in_image=engine.checks_model,
    )


def build(
    plan: ImagePlan, destination: Destination, engine: Engine, access: RegistryAccess, context: PipelineContext
) -> BuiltImage:
    """Make the image and put it at its destination; a stop that comes after that comes too late."""
    folder = context.work / "context"
    if engine.reads_context:
        with context.reporter.stage("Writing the build context"):
            write_context(plan, folder, ours=context.work)
    with context.reporter.stage(f"Building with {engine.name} and delivering to {destination}"):
        built = engine.build(plan, folder, destination, access)
        ignore_stops()
    return built


def keep_environment(environment: PreparedEnvironment, built: BuiltImage) -> None:
    """Keep an environment that was made for the next runs."""
    root, prefix = environment.dependencies.root, environment.dependencies.prefix
    for layer in built.layers:
        if environment.store is not None and environment.key and layer.name == ENVIRONMENT_LAYER:
            environment.store.keep(environment.key, environment.dependencies, layer)
            if root is not None and prefix is not None:
                environment.local.keep(layer, prefix, root)


def prepare_push(request: PackagingRequest, engine: Engine, access: RegistryAccess, context: PipelineContext) -> None:
    """See that the push will be accepted; where ECR is the registry, create the repositories that it needs.

    Raises:
        RegistryAuthError, RegistryUnreachableError, RegistryError: It won't.
    """
    repositories = engine.repositories(request.destination)
    if repositories:
        create_repositories(request.push, repositories, context)
        with context.reporter.stage(f"Asking {repositories[0].host} whether we may push"):
            check_push(repositories[0], access)


def create_repositories(push: Connection | None, repositories: Sequence[Reference], context: PipelineContext) -> None:
    """Create the ECR repositories that the engine is going to push to; other registries make theirs themselves.

    Raises:
        RequestError, RegistryAuthError, RegistryUnreachableError, RegistryError: They can't be created.
    """
    if push is None or push.spec.type != "ecr" or not context.settings.ecr_create_repositories:
        return
    from packager.registry.ecr_repositories import ensure_repositories  # noqa: PLC0415  (boto3 takes half a second)

    image, *caches = repositories
    with context.reporter.stage(f"Looking for the repository {image.repository}"):
        ensure_repositories(push, image, caches[0] if caches else None, context.settings, context.learn)


def _source_time(settings: Settings) -> datetime | None:
    """The time that SOURCE_DATE_EPOCH sets for everything (reproducible-builds.org/docs/source-date-epoch)."""
    if settings.source_date_epoch is None:
        return None
    return datetime.fromtimestamp(settings.source_date_epoch, timezone.utc)
