"""The packaging manifest that the platform provides (`mp.json`, "K8sPackager"), and the entities in it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictBool

from packager.models.connection import Connection
from packager.models.entity import Entity
from packager.models.resources import Resources


class TargetName(Entity):
    """A target of a packaging and the connection that serves it."""

    name: str
    connection_name: str = ""


class PackagingSpec(Entity):
    """The user's part of a packaging."""

    integration_name: str = Field(default="", description="Integration ID, such as docker-rest.")
    artifact_name: str = Field(default="", description="Archive of the trained model.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments, by the integration's schema.")
    targets: tuple[TargetName, ...] = ()
    image: str = Field(default="", description="Image of the packager. Default: the integration's.")
    resources: Resources | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    output_connection: str = Field(default="", description="Connection of the store that holds the archive.")


class ModelPackaging(Entity):
    """A `ModelPackaging` entity."""

    id: str = Field(default="", max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$")
    spec: PackagingSpec = PackagingSpec()


class TargetSchema(Entity):
    """A target that an integration offers."""

    name: str
    connection_types: tuple[str, ...] = Field(default=(), description="Allowed connection types. Empty: any.")
    required: StrictBool = False
    default: str = Field(default="", description="Connection for packagings that name none.")


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
    """The targets and arguments of an integration."""

    targets: tuple[TargetSchema, ...] = ()
    arguments: ArgumentsSchema = ArgumentsSchema()


class IntegrationSpec(Entity):
    """The entry point of an integration, and its schema."""

    entrypoint: str = Field(default="", description="Program in the packager's image.")
    default_image: str = Field(default="", description="Image of the packager.")
    privileged: StrictBool = False
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
