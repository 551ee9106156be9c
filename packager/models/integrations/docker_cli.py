"""docker-cli: an image that predicts in batch."""

from __future__ import annotations

from packager.models.integrations.base import Command, ImageArguments, IntegrationType


class CliArguments(ImageArguments):
    """The arguments of docker-cli."""


def command(_arguments: ImageArguments) -> Command:
    """Return how a CLI image is started: as the base's user, because it writes into a folder the caller mounts."""
    return Command(args=("cli",))


INTEGRATION_TYPE = IntegrationType(
    name="docker-cli", entry_point="odahu-flow-pack-to-cli", arguments=CliArguments, command=command
)
