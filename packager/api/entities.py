"""The entities on the wire: the documents of `packager.models` with times, a status and base64 secrets.

JSON in camelCase, as the public clients send and read it. Clients send back whole entities, so unknown keys such as
`kind`, `status` and the times are ignored.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from packager.models.connection import REGISTRY_TYPES, ConnectionFields
from packager.models.entity import Entity
from packager.models.packaging import ModelPackaging, PackagingIntegration, PackagingSpec
from packager.sources.stores.location import HOLDER_SCHEMES

State = Literal["", "scheduling", "running", "succeeded", "failed"]
FINAL: tuple[State, ...] = ("succeeded", "failed")
CONNECTION_TYPES = (*REGISTRY_TYPES, *HOLDER_SCHEMES, "git")
# Only described here: packager.api.validation reports an invalid ID together with all other problems.
_ID_SCHEMA = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "minLength": 1, "maxLength": 63}
EntityId = Annotated[str, WithJsonSchema(_ID_SCHEMA)]


class Times(Entity):
    """The times of a stored entity."""

    created_at: str = Field(default="", description="RFC 3339")
    updated_at: str = Field(default="", description="RFC 3339")


class NamedValue(Entity):
    """A result of a packaging, such as `image` or `imageDigest`."""

    name: str
    value: str = ""


class PackagingStatus(Entity):
    """The status of a packaging."""

    state: State = ""
    pod_name: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    results: list[NamedValue] = Field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the packaging has ended."""
        return self.state in FINAL


class NewPackaging(ModelPackaging):
    """A packaging as a client sends it."""

    id: EntityId
    spec: PackagingSpec


class StoredPackaging(Times, NewPackaging):
    """A packaging as the service answers it."""

    status: PackagingStatus = PackagingStatus()


class NewIntegration(PackagingIntegration):
    """An integration as a client sends it."""

    id: EntityId


class StoredIntegration(Times, NewIntegration):
    """An integration as the service answers it."""


class WireConnectionSpec(ConnectionFields):
    """A registry or a store with its credentials; secrets are base64, or ***** in every answer but `/decrypted`."""

    type: str = Field(json_schema_extra={"enum": list(CONNECTION_TYPES)})
    password: str = ""
    key_id: str = Field(default="", alias="keyID")
    key_secret: str = ""
    public_key: str = ""


class NewConnection(Entity):
    """A connection as a client sends it."""

    id: EntityId
    spec: WireConnectionSpec


class StoredConnection(Times, NewConnection):
    """A connection as the service answers it."""


def with_hint(message: str, hint: str) -> str:
    """Return a status message, followed by its hint if there is one."""
    return "\nhint: ".join(text for text in (message, hint) if text)


def time_text(moment: datetime) -> str:
    """Return a time in RFC 3339, in UTC, with milliseconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
