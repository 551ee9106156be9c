"""The story: archive -> request -> plan -> engine -> result, one verb a stage."""

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
from packager.environment.cache.local import LocalCache
from packager.environment.cache.registry import RegistryCache
from packager.environment.dependencies import DependencyResolver, needs_run_step
from packager.image.context import write_context
from packager.image.plan import LAYER_TIME
from packager.image.planner import ENVIRONMENT_LAYER, RUNTIME_FOLDER, Prepared, make_plan
from packager.image.runtime_layer import runtime_contents
from packager.models.reference import LOCAL_STORAGE
from packager.registry.access import RegistryAccess, find_insecure_hosts
from packager.registry.authfile import LoginContext, open_auth_file
from packager.registry.docker_config import read_user_config
from packager.registry.preflight import check_push
from packager.registry.trust import Trust
from packager.request import Overrides, make_request
from packager.result import PackagingResult
from packager.sources.model import opened_model, workspace
from packager.system.signals import finish_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from packager.engines import BuiltImage, Engine
    from packager.image.plan import ImagePlan
    from packager.image.planner import Dependencies
    from packager.logs.progress import Reporter
    from packager.models.connection import Connection
    from packager.models.packaging import PackagingManifest
    from packager.models.reference import Reference
    from packager.request import PackagingRequest
    from packager.settings import Settings
    from packager.sources.stores.location import RemoteModel
    from packager.system.process import Runner

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be packaged: a model (zip, folder or object in a store), the packaging, and the command line's."""

    model: Path | RemoteModel
    manifest: PackagingManifest
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the work is done with.

    Attributes:
        choose_engine: Sets up the engine that fits, and says which.
        learn: Takes secrets, for redaction.
    """

    settings: Settings
    choose_engine: Callable[[EngineRequirements], Engine]
    run: Runner
    reporter: Reporter
    environ: Mapping[str, str]
    learn: Callable[[Iterable[str]], None]


def package(job: Job, tools: Tools) -> PackagingResult:
    """Package a model and put the image at its destination.

    Raises:
        PackagerError: Any of its classes; nothing is left behind but caches.
    """
    with workspace(tools.settings) as work, _prepare(job, tools, work) as prepared:
        engine, destination = prepared.engine, prepared.request.destination
        context = work / "context"
        if engine.reads_context:
            with tools.reporter.stage("Writing the build context"):
                write_context(prepared.plan, context, ours=work)
        with tools.reporter.stage(f"Building with {engine.name} and delivering to {destination}"):
            built = engine.build(prepared.plan, context, destination, prepared.access)
            finish_work()  # the image is there: what is left is to keep what the next run can use, and to say so
        prepared.keep_environment(built)
    return PackagingResult.of(built, prepared.model_check)


def render_context(job: Job, tools: Tools, folder: Path) -> ImagePlan:
    """Write the build context into a new folder, and build nothing.

    Raises:
        PackagerError: Any of its classes; the folder is then not there.
    """
    with workspace(tools.settings) as work, _prepare(job, tools, work, pushes=False) as prepared:
        with tools.reporter.stage("Writing the build context"):
            try:
                write_context(prepared.plan, folder, ours=work)
                finish_work()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return prepared.plan


@dataclass(frozen=True, kw_only=True)
class _PreparedJob:
    request: PackagingRequest
    engine: Engine
    plan: ImagePlan
    access: RegistryAccess
    dependencies: Dependencies
    key: str
    store: RegistryCache | None
    environments: LocalCache
    model_check: str

    def keep_environment(self, built: BuiltImage) -> None:
        """Keep an environment that was made for the next runs."""
        root, prefix = self.dependencies.root, self.dependencies.prefix
        for layer in built.layers:
            if self.store is not None and self.key and layer.name == ENVIRONMENT_LAYER:
                self.store.save(self.key, self.dependencies, layer)
                if root is not None and prefix is not None:
                    self.environments.save(layer, prefix, root)


@contextmanager
def _prepare(job: Job, tools: Tools, work: Path, *, pushes: bool = True) -> Iterator[_PreparedJob]:
    settings, reporter = tools.settings, tools.reporter
    trust = Trust.from_settings(settings)
    with ExitStack() as stack:
        artifact = stack.enter_context(
            opened_model(job.model, work, settings=settings, environ=tools.environ, reporter=reporter)
        )
        request = make_request(job.manifest, artifact.manifest.model, job.overrides)
        mode = choose_mode(settings.check, request.arguments.check)
        connections = [connection for connection in (request.push, request.pull) if connection is not None]
        engine = tools.choose_engine(
            EngineRequirements(
                run_steps=needs_run_step(request, artifact),
                local_base=request.base.in_local_storage,
                local_output=request.destination.transport != "docker",
                check=mode != "never",
            )
        )
        logins = LoginContext(
            base=request.base,
            user=read_user_config(tools.environ),
            hosts=_hosts(request, engine, trust),
            environ=tools.environ,
            learn=tools.learn,
        )
        auth = stack.enter_context(open_auth_file(request.push, request.pull, work, logins))
        log.debug("connections: %s", ", ".join(connection.id for connection in connections) or "none")
        access = _reach_registries(request, engine, auth.path, trust)
        if pushes:
            _prepare_push(request, engine, access, tools)
        with reporter.stage(f"Looking into the base image {request.base}"):
            base = engine.inspect_base(request.base, access)
        store = _environment_store(request, engine, access, settings)
        resolver = DependencyResolver(
            settings=settings, run=tools.run, reporter=reporter, environ=tools.environ, workspace=work, store=store
        )
        with reporter.stage("Preparing the model's dependencies"):
            dependencies, key = resolver.resolve(request, artifact, base)
            server = resolver.choose_http_server(request, dependencies)
        prepared = Prepared(
            model=artifact.root,
            sizes=artifact.sizes,
            packed=artifact.packed,
            manifest=artifact.manifest,
            dependencies=dependencies,
            runtime=runtime_contents(RUNTIME_FOLDER, server.vendor if server else None),
            server=str(server or ""),
            base=base,
            created=_source_time(settings) or artifact.created,
            timestamp=_source_time(settings) or LAYER_TIME,
            packager_version=__version__,
        )
        plan = make_plan(request, prepared)
        environments = LocalCache.from_settings(settings)
        model_check = ""
        if pushes:
            model_check = ModelCheck(
                settings=settings,
                environ=tools.environ,
                reporter=reporter,
                workspace=work,
                access=access,
                hidden=auth.hidden,
                mode=mode,
                environments=environments,
                in_image=engine.checks_model,
            ).check(plan, prepared)
        auth.refresh()
        yield _PreparedJob(
            request=request,
            engine=engine,
            plan=plan,
            access=access,
            dependencies=dependencies,
            key=key,
            store=store,
            environments=environments,
            model_check=model_check,
        )


def _environment_store(
    request: PackagingRequest, engine: Engine, access: RegistryAccess, settings: Settings
) -> RegistryCache | None:
    repository = engine.environment_repository(request.destination)
    if repository is None:
        return None
    age = timedelta(days=settings.environment_max_age)
    return RegistryCache(repository=repository, access=access, max_age=age)


def _hosts(request: PackagingRequest, engine: Engine, trust: Trust) -> tuple[str, ...]:
    """Return the registries that the run speaks with."""
    places = (*trust.endpoints(request.base), *engine.repositories(request.destination))
    return tuple(dict.fromkeys(place.host for place in places if place.host != LOCAL_STORAGE))


def _reach_registries(request: PackagingRequest, engine: Engine, auth: Path, trust: Trust) -> RegistryAccess:
    """Find out how the registries are spoken to."""
    repositories = engine.repositories(request.destination)
    insecure_hosts = find_insecure_hosts((request.base, *repositories), trust)
    return RegistryAccess(auth_file=auth, trust=trust, insecure_hosts=insecure_hosts)


def _prepare_push(request: PackagingRequest, engine: Engine, access: RegistryAccess, tools: Tools) -> None:
    """See that the push will be accepted; where ECR is the registry, create the repositories that it needs.

    Raises:
        RegistryAuthError, RegistryUnreachableError, RegistryError: It won't.
    """
    repositories = engine.repositories(request.destination)
    if repositories:
        create_repositories(request.push, repositories, tools)
        with tools.reporter.stage(f"Asking {repositories[0].host} whether we may push"):
            check_push(repositories[0], access)


def create_repositories(push: Connection | None, repositories: Sequence[Reference], tools: Tools) -> None:
    """Create the ECR repositories that the engine is going to push to; other registries make theirs themselves.

    Raises:
        RequestError, RegistryAuthError, RegistryUnreachableError, RegistryError: They can't be created.
    """
    if push is None or push.spec.type != "ecr" or not tools.settings.ecr_create_repositories:
        return
    from packager.registry.ecr_repositories import ensure_repositories  # noqa: PLC0415  (boto3 takes half a second)

    image, *caches = repositories
    with tools.reporter.stage(f"Looking for the repository {image.repository}"):
        ensure_repositories(push, image, caches[0] if caches else None, tools.settings, tools.learn)


def _source_time(settings: Settings) -> datetime | None:
    """The time that SOURCE_DATE_EPOCH sets for everything (reproducible-builds.org/docs/source-date-epoch)."""
    if settings.source_date_epoch is None:
        return None
    return datetime.fromtimestamp(settings.source_date_epoch, timezone.utc)
