"""The engines: each makes a plan real. They share the verbs `inspect_base` and `build`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packager.errors import UsageError
from packager.models.reference import DOCKER_HUB, Reference

if TYPE_CHECKING:
    from pathlib import Path

    from packager.image.plan import BaseImage, ImagePlan, StoredLayer
    from packager.models.reference import Destination
    from packager.registry.access import RegistryAccess


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that now exists.

    Attributes:
        destination: Where it was put.
        digest: `sha256:…` of its manifest; of an engine that is a program, what it wrote when its exit code was 0.
        layers: The layers of the plan as they lie at the destination, where the engine knows them.
    """

    destination: Destination
    digest: str
    layers: tuple[StoredLayer, ...] = ()


class Engine(Protocol):
    """What every engine can do."""

    name: str
    reads_context: bool  # whether `build` wants the context folder of the plan
    checks_model: bool  # whether `build` checks the model in an image that it has run commands in

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return the registry repositories that a build for this destination writes to, the image's own first."""

    def environment_repository(self, destination: Destination) -> Reference | None:
        """Return where environments are kept for this engine between runs; None where it can't use them."""

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Find the base image, pull it where the engine needs it, and read its digest, glibc and Python.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError, ToolMissingError
        """

    def build(self, plan: ImagePlan, context: Path, destination: Destination, access: RegistryAccess) -> BuiltImage:
        """Build the image, from the context folder's Dockerfile or from the plan, and put it at its destination.

        `plan.timestamp` is the time that layers and config get, from engines that can set it.

        Raises:
            BuildStepError, DiskFullError, OutOfMemoryError, BuildError: The build failed.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed; no digest is reported.
        """


def cache_repository(destination: Reference, name: str | None) -> Reference:
    """Return the repository that is set, else one beside the destination.

    Docker Hub has no repository below another one.
    """
    if name is None:
        name = f"{destination.repository}{'-' if destination.host == DOCKER_HUB else '/'}cache"
    return Reference.parse(name, default_tag=None)


def check_cache_repository(setting: str, name: str | None) -> None:
    """Refuse a setting that names no repository.

    Raises:
        UsageError: It's no reference, or one with a tag or digest.
    """
    if name is None:
        return
    try:
        reference = Reference.parse(name, default_tag=None)
    except ValueError as error:
        raise UsageError(f"{setting}: {error}", hint="name a repository, as HOST/PATH") from error
    if str(reference) != reference.repository:
        raise UsageError(f"{setting}: {name!r} has a tag or a digest", hint="write it without")
