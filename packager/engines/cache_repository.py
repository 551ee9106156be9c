"""The repository beside an image's own that holds what is kept for the next builds."""

from __future__ import annotations

from packager.errors import UsageError
from packager.models.reference import DOCKER_HUB, Reference


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
