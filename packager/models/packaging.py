"""The packaging manifest that the platform hands us (`mp.json`, "K8sPackager"), and the entities in it.

Keys are camelCase; absent and null mean the same; unknown keys are ignored, because the platform adds fields.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from packager.models.connection import Connection
from packager.models.entity import Entity


class TargetName(Entity):
    """A target of a packaging: which connection serves it."""

    name: str
    connection_name: str = ""


class PackagingSpec(Entity):
    """What the data scientist wrote."""

    integration_name: str = ""
    artifact_name: str = ""
    image: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    targets: tuple[TargetName, ...] = ()
    resources: dict[str, Any] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    output_connection: str = ""


class ModelPackaging(Entity):
    """A `ModelPackaging` entity."""

    id: str = Field(default="", max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$")
    spec: PackagingSpec = PackagingSpec()


class TargetSchema(Entity):
    """A target that an integration offers."""

    name: str
    connection_types: tuple[str, ...] = ()
    required: bool = False
    default: str = ""


class Parameter(Entity):
    """A JSON Schema keyword of an argument: `{name: default, value: 5000}`."""

    name: str
    value: Any = None


class ArgumentSchema(Entity):
    """An argument that an integration offers."""

    name: str
    parameters: tuple[Parameter, ...] = ()


class ArgumentsSchema(Entity):
    """All arguments of an integration."""

    properties: tuple[ArgumentSchema, ...] = ()
    required: tuple[str, ...] = ()


class IntegrationSchema(Entity):
    """What an integration lets a packaging say."""

    targets: tuple[TargetSchema, ...] = ()
    arguments: ArgumentsSchema = ArgumentsSchema()


class IntegrationSpec(Entity):
    """How an integration is started, and its schema."""

    entrypoint: str = ""
    default_image: str = ""
    privileged: bool = False
    integration_schema: IntegrationSchema = Field(default=IntegrationSchema(), alias="schema")


class PackagingIntegration(Entity):
    """A `PackagingIntegration` entity."""

    id: str = ""
    spec: IntegrationSpec = IntegrationSpec()

    def defaults(self) -> dict[str, Any]:
        """Return the arguments' default values that this integration sets."""
        return {
            argument.name: parameter.value
            for argument in self.spec.integration_schema.arguments.properties
            for parameter in argument.parameters
            if parameter.name == "default" and parameter.value is not None
        }


class Target(Entity):
    """A target with the connection that serves it."""

    name: str
    connection: Connection


class PackagingManifest(Entity):
    """The whole `mp.json`."""

    model_packaging: ModelPackaging
    packaging_integration: PackagingIntegration | None = None
    targets: tuple[Target, ...] = ()
    model_holder: Connection | None = None
    training_zip_name: str = ""

    @property
    def subject(self) -> str:
        """How an error names this packaging."""
        return f"packaging {self.model_packaging.id!r}" if self.model_packaging.id else "the packaging"

    def secrets(self) -> list[str]:
        """Return every secret value in it, for redaction."""
        connections = [target.connection for target in self.targets]
        if self.model_holder is not None:
            connections.append(self.model_holder)
        return [secret for connection in connections for secret in connection.spec.secrets()]
