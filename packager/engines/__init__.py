"""The engines, which build images from plans. They share the verbs `inspect_base` and `build`."""

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
    """A built image.

    Attributes:
        destination: The image's destination.
        digest: `sha256:…` of its manifest; an external engine's digest file counts only with exit code 0.
        layers: The plan's layers as stored at the destination, if the engine knows them.
    """

    destination: Destination
    digest: str
    layers: tuple[StoredLayer, ...] = ()


class Engine(Protocol):
    """The interface of all engines."""

    name: str
    reads_context: bool  # whether `build` needs the plan's context folder
    checks_model: bool  # whether `build` checks the model in images with RUN steps

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return the registry repositories that a build for this destination writes to, the image's own first."""

    def environment_repository(self, destination: Destination) -> Reference | None:
        """Return the repository of the environment cache; None if the engine can't use it."""

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Find the base image, pull it if the engine needs that, and detect its digest, glibc and Python.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError, ToolMissingError
        """

    def build(self, plan: ImagePlan, context: Path, destination: Destination, access: RegistryAccess) -> BuiltImage:
        """Build the image from the context folder's Dockerfile or from the plan, and deliver it to its destination.

        Layers and config get the time `plan.timestamp` from engines that can set it.

        Raises:
            BuildStepError, DiskFullError, OutOfMemoryError, BuildError: The build failed.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed; no digest is reported.
        """


def cache_repository(destination: Reference, name: str | None) -> Reference:
    """Return the configured cache repository, else one derived from the destination.

    Docker Hub doesn't support nested repositories.
    """
    if name is None:
        name = f"{destination.repository}{'-' if destination.host == DOCKER_HUB else '/'}cache"
    return Reference.parse(name, default_tag=None)


def check_cache_repository(setting: str, name: str | None) -> None:
    """Reject a setting that is not a repository.

    Raises:
        UsageError: It is not a reference, or has a tag or digest.
    """
    if name is None:
        return
    try:
        reference = Reference.parse(name, default_tag=None)
    except ValueError as error:
        raise UsageError(f"{setting}: {error}", hint="set it to a repository, HOST/PATH") from error
    if str(reference) != reference.repository:
        raise UsageError(f"{setting}: {name!r} has a tag or a digest", hint="remove it")
