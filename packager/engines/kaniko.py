"""The Kaniko engine: builds in this process's own root file system and pushes, all in one command.

Kaniko unpacks the base image over the root of the container that it runs in and deletes what was there, so it is only
started inside the packager's Job image. It can't set the times that a plan asks for: links, folders and the image
itself get the time of the build, so equal plans give equal layers where the cache has them, but not equal digests.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packager.engines import BuiltImage, cache_repository, check_cache_repository
from packager.engines.base_inspection import inspect_remote_base
from packager.engines.kaniko_command import KanikoBuild, build_args, kaniko_failure, read_line, scrubbed
from packager.errors import BuildError, ImageNotFoundError, UsageError
from packager.models.reference import LOCAL_STORAGE
from packager.registry.authfile import auth_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packager.image.plan import BaseImage, ImagePlan
    from packager.models.reference import Destination, Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings
    from packager.system.process import Runner

log = logging.getLogger(__name__)

JOB_IMAGE_MARK = Path("/kaniko/.packager-job-image")  # the Job image has it, and nothing else
_ALWAYS = ("/kaniko", "/var/run", "/etc/mtab")
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNT_POINT = 4  # the field of a line of /proc/PID/mountinfo (proc(5))


def own_paths(context: Path, settings: Settings) -> list[PurePosixPath]:
    """Return Kaniko's own paths, and ours that it is told to leave alone."""
    return [PurePosixPath(path) for path in (*_ALWAYS, context.parent, settings.cache_dir)]


def read_mounts(mountinfo: str) -> list[PurePosixPath]:
    """Return the mount points of a `/proc/PID/mountinfo`, the root left out."""
    fields = (line.split(" ") for line in mountinfo.splitlines())
    points = [row[_MOUNT_POINT] for row in fields if len(row) > _MOUNT_POINT]
    return [PurePosixPath(_OCTAL.sub(lambda found: chr(int(found[1], 8)), point)) for point in points if point != "/"]


def check_destinations(plan: ImagePlan, left_alone: Iterable[PurePosixPath]) -> None:
    """Refuse a plan that puts files where Kaniko leaves everything as it is.

    Raises:
        BuildError: It does; names the layer and the path.
    """
    paths = list(left_alone)
    for layer in plan.layers:
        for content in layer.contents:
            hidden = next((path for path in paths if content.destination.is_relative_to(path)), None)
            if hidden is not None:
                raise BuildError(
                    f"the layer {layer.name!r} goes to {content.destination}, and Kaniko leaves {hidden} as it is: "
                    "the image would not have it",
                    hint="choose another dockerfileCondaEnvsLocation, mount nothing there in the Job, or use another "
                    "engine",
                )


EXECUTOR = Path("/kaniko/executor")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOUNTS = Path("/proc/self/mountinfo")


class KanikoEngine:
    """Builds with Kaniko; needs root in a container of its own, and no privileges beyond. An `Engine`."""

    name = "kaniko"
    reads_context = True
    checks_model = False

    def __init__(
        self, settings: Settings, run: Runner, environ: Mapping[str, str], *, mark: Path = JOB_IMAGE_MARK
    ) -> None:
        """Take the settings, the way to run commands, and the environment of which Kaniko gets its part.

        Raises:
            UsageError: The cache repository that is set is none.
        """
        self._settings = settings
        self._run = run
        self._environ = environ
        self._mark = mark
        check_cache_repository("PACKAGER_KANIKO_CACHE_REPO", settings.kaniko_cache_repo)

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return where a build writes to: the image, and the layer cache."""
        if destination.transport != "docker":
            return ()
        if not self._settings.kaniko_cache:
            return (destination.reference,)
        return (destination.reference, cache_repository(destination.reference, self._settings.kaniko_cache_repo))

    def environment_repository(self, destination: Destination) -> Reference | None:  # noqa: ARG002
        """Return None: a Dockerfile has no place for a finished layer."""
        return None

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Find the base image in its registry; there is no local storage that it could lie in.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
            BuildError: It's for another platform.
            DiskFullError: There is no space to look into it.
        """
        if reference.host == LOCAL_STORAGE:
            raise ImageNotFoundError(
                f"the base image {reference} names a local storage, which the Kaniko engine doesn't have",
                hint="push it to a registry and name it there in dockerfileBaseImage, or use --engine buildah",
            )
        return inspect_remote_base(reference, access, self._settings)

    def build(self, plan: ImagePlan, context: Path, destination: Destination, access: RegistryAccess) -> BuiltImage:
        """Build the context and push the image. What a failed run wrote as its digest is not believed.

        Raises:
            UsageError: This is not the packager's Job image, whose root alone may be replaced.
            BuildStepError, OutOfMemoryError, DiskFullError, BuildError: The build failed.
            ImageNotFoundError: The base was removed since.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The pull or the push failed.
            ToolMissingError: The executor is not installed.
        """
        if destination.transport != "docker":
            raise BuildError(
                f"the Kaniko engine can't write {destination}; it pushes to registries",
                hint="give a docker:// output, or use --engine buildah",
            )
        self._check_place()
        mounts = read_mounts(_MOUNTS.read_text(errors="replace")) if _MOUNTS.exists() else []
        check_destinations(plan, [*own_paths(context, self._settings), *mounts])
        if self._settings.kaniko_cache:
            cache = cache_repository(destination.reference, self._settings.kaniko_cache_repo)
            log.info("layers are cached in %s", cache)
        with (
            TemporaryDirectory(prefix="kaniko-", dir=context.parent, ignore_cleanup_errors=True) as folder,
            auth_file(access.keychain, Path(folder)) as logins,
        ):
            digest_file = Path(folder, "digest")
            build = KanikoBuild(
                base=plan.base.reference, context=context, destination=destination.reference, digest_file=digest_file
            )
            words = build_args(build, self._settings, access)
            done = self._run([self._executor(), *words], env=scrubbed(self._environ, logins), on_line=_log_line)
            if done.returncode != 0:
                output = "\n".join(read_line(line)[1] for line in done.output.splitlines())
                raise kaniko_failure(plan.base.reference, destination.reference, replace(done, output=output))
            return BuiltImage(destination=destination, digest=_read_digest(digest_file))

    def _executor(self) -> str:
        if self._settings.kaniko_executor is not None:
            return str(self._settings.kaniko_executor)
        return str(EXECUTOR) if EXECUTOR.exists() else EXECUTOR.name

    def _check_place(self) -> None:
        if not self._settings.kaniko_force and not self._mark.exists():
            raise UsageError(
                "Kaniko replaces the root file system of whatever it runs in, and this isn't the packager's Job image",
                hint="run it in that image, or use --engine buildah; PACKAGER_KANIKO_FORCE=true is for a container "
                "that may be destroyed, and never for a machine",
            )


def _read_digest(file: Path) -> str:
    try:
        digest = file.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        digest = ""
    if not _DIGEST.fullmatch(digest):
        raise BuildError(f"kaniko wrote no digest but {digest[:80]!r}")
    return digest


def _log_line(line: str) -> None:
    level, message = read_line(line)
    if message:
        log.log(level, "%s", message)
