"""The common part of docker-rest and docker-cli: arguments, targets, and the definition of an integration type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, field_validator
from pydantic.alias_generators import to_camel

from packager.models.connection import REGISTRY_TYPES
from packager.models.packaging import TargetSchema
from packager.models.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

PUSH = "docker-push"
PULL = "docker-pull"

REGISTRY_TARGETS = (
    TargetSchema(name=PUSH, connection_types=REGISTRY_TYPES, required=True),
    TargetSchema(name=PULL, connection_types=REGISTRY_TYPES, required=False),
)


class ImageArguments(BaseModel):
    """The arguments of all images: the single source of validation, defaults, schema and docs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, validate_default=True
    )

    image_name: StrictStr = Field(
        default="{{ Name }}-{{ Version }}:{{ RandomUUID }}",
        max_length=1024,
        description=(
            "This option provides a way to specify the Docker image name. You can hardcode the full name or specify a "
            "template. Available template values: Name (Model Name), Version (Model Version), RandomUUID. "
            "Examples: myservice:123, {{ Name }}:{{ Version }}"
        ),
    )
    dockerfile_base_image: StrictStr = Field(default="python:3.6", description="Base image for Dockerfile")
    dockerfile_add_conda_installation: StrictBool = Field(
        default=True, description="Add conda installation code to Dockerfile"
    )
    dockerfile_conda_envs_location: StrictStr = Field(
        default="/opt/conda/envs/",
        description="Conda env location in Dockerfile",
        pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+/?$",
        max_length=200,
    )

    check: Literal["auto", "always", "never"] = Field(
        default="auto",
        description=(
            "Load the model and predict its example before the image is pushed: auto (if possible), always (fail if "
            "not possible) or never"
        ),
    )

    @field_validator("dockerfile_base_image")
    @classmethod
    def _is_reference(cls, value: str) -> str:
        Reference.parse_base(value)
        return value


@dataclass(frozen=True, kw_only=True)
class Command:
    """The part of an image's config that depends on the integration type.

    Attributes:
        args: The runtime's fixed arguments, for the entrypoint.
        options: The arguments that users may override at container start, for the command.
        variables: Environment variables of the image.
        port: The listening port, or None.
        user: `uid:gid`, or None to keep the base image's user.
    """

    args: tuple[str, ...]
    options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    port: int | None = None
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class IntegrationType:
    """A type of packaging integration: its names, arguments and targets, and the command of its images.

    Attributes:
        name: The integration's ID, `docker-rest`.
        entry_point: The program that the platform starts, `odahu-flow-pack-to-rest`.
        arguments: The model that validates its arguments.
        command: Returns the image's command for validated arguments.
    """

    name: str
    entry_point: str
    arguments: type[ImageArguments]
    command: Callable[[ImageArguments], Command]
    targets: tuple[TargetSchema, ...] = REGISTRY_TARGETS
