"""The entities as they travel: JSON in camelCase, as the public clients send and read them.

Unknown keys are ignored, as clients send back what they were given (`kind`, `status`, times). Null and absent mean the
same. A connection's secrets are base64 here, or the mask; in the rest of the program they are
`packager.models.connection.Connection`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema

from packager.models.connection import REGISTRY_TYPES
from packager.models.entity import Entity
from packager.sources.stores.location import HOLDER_SCHEMES

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

State = Literal["", "scheduling", "running", "succeeded", "failed"]
FINAL: tuple[State, ...] = ("succeeded", "failed")
Quantity = str | int | float
CONNECTION_TYPES = (*REGISTRY_TYPES, *HOLDER_SCHEMES, "git")
# Described here, and checked where every problem of an entity is told at once.
_ID_RULE = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "minLength": 1, "maxLength": 63}
EntityId = Annotated[str, WithJsonSchema({"type": "string", **_ID_RULE})]


class ApiModel(Entity):
    """An entity of the platform as it travels: no type is taken for another."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Let every key that may be absent be null, which is how clients write it."""
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        if handler.mode == "validation":
            required = resolved.get("required", ())
            for name, field in resolved.get("properties", {}).items():
                if name not in required:
                    resolved["properties"][name] = {"anyOf": [field, {"type": "null"}]}
        return schema


class NamedValue(ApiModel):
    """A result of a packaging: `image`, `imageDigest`."""

    name: str
    value: str = ""


class TargetName(ApiModel):
    """Which connection serves a target of the integration."""

    name: str
    connection_name: str = ""


class ResourceList(ApiModel):
    """Kubernetes quantities."""

    cpu: Quantity | None = Field(default=None, examples=["500m"])
    memory: Quantity | None = Field(default=None, examples=["2Gi"])
    gpu: Quantity | None = None


class Resources(ApiModel):
    """What a packaging may use (limits) and what is set aside for it (requests)."""

    limits: ResourceList | None = None
    requests: ResourceList | None = None


class PackagingSpec(ApiModel):
    """What is to be packaged, how and where to."""

    integration_name: str = Field(default="", description="The integration's id, such as docker-rest.")
    artifact_name: str = Field(default="", description="The trained model's archive.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="By the integration's schema.")
    targets: list[TargetName] = Field(default_factory=list)
    image: str = Field(default="", description="The packager's own image; default: the integration's.")
    resources: Resources | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    output_connection: str = Field(default="", description="The connection of the store that the archive is in.")


def with_hint(message: str, hint: str) -> str:
    """Return what failed as a status tells it: with a line of what to do, where there is something."""
    return "\nhint: ".join(text for text in (message, hint) if text)


class PackagingStatus(ApiModel):
    """What has become of a packaging."""

    state: State = ""
    pod_name: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    results: list[NamedValue] = Field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL


class NewPackaging(ApiModel):
    """A packaging as a client writes it."""

    id: EntityId
    spec: PackagingSpec


class ModelPackaging(NewPackaging):
    """A packaging as the service knows it."""

    status: PackagingStatus = PackagingStatus()
    created_at: str = Field(default="", description="RFC 3339")
    updated_at: str = Field(default="", description="RFC 3339")


class TargetSchema(ApiModel):
    """A target that an integration offers."""

    name: str
    connection_types: list[str] = Field(default_factory=list, description="Allowed types; empty: any.")
    required: bool = False
    default: str = Field(default="", description="The connection where a packaging names none.")


class Parameter(ApiModel):
    """A JSON Schema keyword of an argument."""

    name: str
    value: Any = None


class Argument(ApiModel):
    """An argument that an integration offers."""

    name: str
    parameters: list[Parameter] = Field(default_factory=list)


class Arguments(ApiModel):
    """All arguments of an integration."""

    properties: list[Argument] = Field(default_factory=list)
    required: list[str] = Field(default_factory=list)


class IntegrationSchema(ApiModel):
    """What an integration lets a packaging say."""

    targets: list[TargetSchema] = Field(default_factory=list)
    arguments: Arguments = Arguments()


class IntegrationSpec(ApiModel):
    """How an integration is started, and its schema."""

    entrypoint: str = Field(description="The program in the packager's image.")
    default_image: str = Field(description="The packager's image.")
    privileged: bool = False
    integration_schema: IntegrationSchema = Field(default=IntegrationSchema(), alias="schema")


class NewIntegration(ApiModel):
    """An integration as a client writes it."""

    id: EntityId
    spec: IntegrationSpec


class PackagingIntegration(NewIntegration):
    """An integration as the service knows it."""

    created_at: str = Field(default="", description="RFC 3339")
    updated_at: str = Field(default="", description="RFC 3339")


class ConnectionSpec(ApiModel):
    """A registry or a store with its credentials; secrets are base64, or ***** in every answer but `/decrypted`."""

    type: str = Field(json_schema_extra={"enum": list(CONNECTION_TYPES)})
    uri: str = ""
    username: str = ""
    password: str = ""
    key_id: str = Field(default="", alias="keyID")
    key_secret: str = ""
    public_key: str = ""
    region: str = ""
    role: str = ""
    reference: str = ""
    description: str = ""
    web_ui_link: str = Field(default="", alias="webUILink")
    vital: bool = Field(default=False, description="It can't be deleted.")


class NewConnection(ApiModel):
    """A connection as a client writes it."""

    id: EntityId
    spec: ConnectionSpec


class Connection(NewConnection):
    """A connection as the service shows it."""

    created_at: str = Field(default="", description="RFC 3339")
    updated_at: str = Field(default="", description="RFC 3339")


def time_text(moment: datetime) -> str:
    """Return a time in RFC 3339, in UTC, as Go's clients and ours read it."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
