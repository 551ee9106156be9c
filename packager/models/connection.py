"""Connections: the registries and stores that a packaging may reach, with their credentials."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from packager.models.entity import Entity

SECRET_FIELDS = ("password", "keyID", "keySecret", "publicKey")
MASK = "*****"  # what is shown in a secret's place
REGISTRY_TYPES = ("docker", "ecr")
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")  # what no header, file name or environment can hold


def _check_text(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and _UNSENDABLE.search(text):
        raise ValueError("holds a NUL character or half a surrogate pair, which is no text that can be sent")
    return value


class ConnectionSpec(Entity):
    """What a connection's `spec` holds; secrets are in clear here and can't be printed."""

    type: str
    uri: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    key_id: SecretStr = Field(default=SecretStr(""), alias="keyID")
    key_secret: SecretStr = SecretStr("")
    public_key: SecretStr = SecretStr("")
    region: str = ""
    role: str = ""
    reference: str = ""
    description: str = ""
    web_ui_link: str = Field(default="", alias="webUILink")
    vital: bool = False

    _text = field_validator("*")(_check_text)

    def masked(self) -> list[str]:
        """Return the names of the secret fields that hold the mask, as connections are shown, and no secret."""
        named = {info.alias or name: getattr(self, name) for name, info in type(self).model_fields.items()}
        return [name for name in SECRET_FIELDS if named[name].get_secret_value() == MASK]

    def secrets(self) -> list[str]:
        """Return every secret value that is not empty, for redaction."""
        held = (self.password, self.key_id, self.key_secret, self.public_key)
        return [secret.get_secret_value() for secret in held if secret.get_secret_value()]


class Connection(Entity):
    """A `Connection` entity."""

    id: str
    spec: ConnectionSpec

    _text = field_validator("id")(_check_text)
