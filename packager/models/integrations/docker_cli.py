"""docker-cli: images for batch predictions."""

from __future__ import annotations

from packager.models.integrations.base import Command, ImageArguments, IntegrationType


class CliArguments(ImageArguments):
    """The arguments of docker-cli."""


def command(_arguments: ImageArguments) -> Command:
    """Return the command of a CLI image; it keeps the base's user, because it writes into a mounted folder."""
    return Command(args=("cli",))


INTEGRATION_TYPE = IntegrationType(
    name="docker-cli", entry_point="odahu-flow-pack-to-cli", arguments=CliArguments, command=command
)
