"""The Buildah engine: builds into the local container storage, then pushes from there.

The image is made in OCI format, so that its digest is the same in a registry, a layout and an archive. Intermediate
images stay in the storage as the layer cache of the next build (see `layer_cache`); a reused layer keeps the time that
it was first built with.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from packager.engines import BuiltImage
from packager.engines.base_inspection import ARCHITECTURES
from packager.engines.buildah_commands import Session, access_words
from packager.engines.host import Machine, choose_isolation, scrubbed
from packager.engines.layer_cache import UseLock, cache_name
from packager.engines.local_outputs import (
    add_docker_manifest,
    check_layout_target,
    files_at,
    publish_layout,
    staging_beside,
)
from packager.engines.registry_files import registries_conf
from packager.engines.rootfs import DEFAULT_PATH
from packager.engines.session_record import killed_sessions, recorded
from packager.errors import BuildError
from packager.image.plan import BaseImage
from packager.registry.authfile import auth_file
from packager.registry.uploads import push_layout
from packager.system.retries import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from packager.image.plan import ImagePlan
    from packager.models.reference import Destination, Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings
    from packager.system.process import Runner

log = logging.getLogger(__name__)


class BuildahEngine:
    """Builds with Buildah; needs root or a user namespace. An `Engine`."""

    name = "buildah"
    reads_context = True

    def __init__(
        self, settings: Settings, run: Runner, environ: Mapping[str, str], *, checks_model: bool = True
    ) -> None:
        """Take the settings, the way to run commands, and the environment of which Buildah gets its part."""
        self.checks_model = checks_model
        self._settings = settings
        self._run = run
        self._environ = environ
        self._architecture = ARCHITECTURES[settings.platform]
        self._storage: Path | None = None

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return where a build writes to."""
        return (destination.reference,) if destination.transport == "docker" else ()

    def environment_repository(self, destination: Destination) -> Reference | None:  # noqa: ARG002
        """Return None: a Dockerfile has no place for a finished layer."""
        return None

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Pull the base image and look into it.

        An image of the host `localhost` is only looked for in the local storage. One with a digest is pulled when it's
        not there; one with a tag always, so that the tag means what it means in the registry (what is there already is
        not fetched again). When the registry can't be reached, a local image serves instead, with a warning.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
            BuildError: It's for another platform, or Buildah failed.
            DiskFullError: The storage is full.
            ToolMissingError: Buildah is not installed.
        """
        with self._session(access) as session:
            image = session.find(reference, access, self._architecture)
            architecture = str(image["OCIv1"].get("architecture") or self._architecture)
            if architecture != self._architecture:
                raise BuildError(
                    f"the base image {reference} is for {architecture}, not for {self._settings.platform}",
                    hint="name a base image for that platform, or set PACKAGER_PLATFORM",
                )
            config = image["OCIv1"].get("config") or {}
            env = tuple((name, value) for name, _, value in (entry.partition("=") for entry in config.get("Env") or ()))
            facts = session.look_into(str(image["FromImageID"]), dict(env).get("PATH") or DEFAULT_PATH)
        return BaseImage(
            reference=reference,
            digest=reference.digest or str(image.get("FromImageDigest") or "") or None,
            glibc=facts.get("glibc"),
            python=facts.get("python"),
            env=env,
            user=str(config.get("User") or ""),
        )

    def build(self, plan: ImagePlan, context: Path, destination: Destination, access: RegistryAccess) -> BuiltImage:
        """Build `context/Dockerfile` on the base that `inspect_base` pulled, and put the image at its destination.

        A local destination is written beside its place and moved there when it's whole; a layout that exists is
        extended.

        Raises:
            BuildStepError, OutOfMemoryError, DiskFullError, BuildError: The build failed.
            ModelCheckError: The model can't serve in the image; it's looked for where commands have run in that.
            ImageNotFoundError: The base was removed since.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed.
            ToolMissingError: Buildah is not installed.
        """
        if destination.transport == "oci" and destination.path is not None:
            check_layout_target(destination.path)
        with self._session(access) as session:
            lock = UseLock(session.storage or self._settings.cache_dir)
            with lock.using():
                isolation = choose_isolation(
                    self._settings.buildah_isolation,
                    Machine.look(self._environ),
                    environ=self._environ,
                    has_run_steps=bool(plan.run_steps),
                )
                image_id = session.build(plan, context, isolation)
                if plan.run_steps and self.checks_model:
                    session.check(image_id, plan, isolation, self._settings.check_seconds)
                session.name(image_id, cache_name(destination.reference.repository, time.time_ns()))
                digest = _deliver(session, image_id, destination, access, plan.timestamp)
            with lock.removing() as alone:
                if alone:
                    session.remove_stale_images()
        return BuiltImage(destination=destination, digest=digest)

    @contextmanager
    def _session(self, access: RegistryAccess) -> Iterator[Session]:
        """Give a private temporary folder to Buildah's commands; afterwards no trace of them is left.

        The working containers of sessions that were killed are removed first.
        """
        below = self._settings.work_dir
        with ExitStack() as stack:
            with files_at(below or Path(gettempdir())):
                folder = Path(
                    stack.enter_context(TemporaryDirectory(prefix="buildah-", dir=below, ignore_cleanup_errors=True))
                )
                env = scrubbed(self._environ, temporary=folder)
                if conf := registries_conf(access):
                    (folder / "registries.conf").write_text(conf)
                    env["CONTAINERS_REGISTRIES_CONF"] = str(folder / "registries.conf")
            session = Session(run=self._run, env=env, folder=folder)
            self._storage = self._storage or session.find_storage()
            if self._storage is not None:
                session = replace(session, storage=self._storage)
                stack.enter_context(recorded(self._storage, session.mark))
                for killed in killed_sessions(self._storage):
                    if session.remove_containers(killed.mark):
                        killed.forget()
            try:
                yield session
            except BaseException:
                session.remove_containers()
                raise


def _deliver(
    session: Session, image_id: str, destination: Destination, access: RegistryAccess, timestamp: datetime
) -> str:
    """Put an image at its destination and return its digest."""
    path = destination.path
    if destination.transport == "docker" or path is None:
        return _push(session, image_id, destination.reference, access)
    with files_at(path), staging_beside(path) as staging:
        # Relative names, because the path of a transport can't hold a colon.
        where = f"{destination.transport}:image:{destination.reference.tagged}"
        digest = session.push(image_id, where, cwd=staging)
        if destination.transport == "oci-archive":
            add_docker_manifest(staging / "image", destination.reference, timestamp)
        if destination.transport == "oci":
            publish_layout(staging / "image", path)
        else:
            (staging / "image").chmod(0o644)
            (staging / "image").replace(path)
    return digest


def _push(session: Session, image_id: str, reference: Reference, access: RegistryAccess) -> str:
    """Push with Buildah; after a retryable failure, upload its image by ourselves.

    Buildah starts over with each attempt, and so never ends where every few requests fail.
    """
    certificates = session.certificates(reference, access)
    try:
        with auth_file(access.keychain, session.folder) as logins:
            words = access_words(reference, access, logins, certificates)
            return session.push(image_id, f"docker://{reference}", words, host=reference.host)
    except RetryableError as trouble:
        log.warning("%s; trying each request again by ourselves", trouble.error.message)
        session.push(image_id, f"oci:layout:{reference.tag or 'latest'}", cwd=session.folder)
        return push_layout(session.folder / "layout", reference, access)
