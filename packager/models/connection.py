"""Connections: the registries and stores that a packaging may reach, with their credentials."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, StrictBool, field_validator

from packager.models.entity import Entity

SECRET_FIELDS = ("password", "keyID", "keySecret", "publicKey")
MASK = "*****"  # shown instead of a secret
REGISTRY_TYPES = ("docker", "ecr")
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")  # invalid in headers, file names and environment variables


def _check_text(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and _UNSENDABLE.search(text):
        raise ValueError("contains a NUL character or an unpaired surrogate")
    return value


class ConnectionFields(Entity):
    """The fields of a connection's `spec` that are not secret."""

    type: str
    uri: str = ""
    username: str = ""
    region: str = ""
    role: str = ""
    reference: str = ""
    description: str = ""
    web_ui_link: str = Field(default="", alias="webUILink")
    vital: StrictBool = Field(default=False, description="Protect the connection from deletion.")

    _text = field_validator("*")(_check_text)


class ConnectionSpec(ConnectionFields):
    """The `spec` of a connection; its secrets are in clear and excluded from every printed form."""

    password: SecretStr = SecretStr("")
    key_id: SecretStr = Field(default=SecretStr(""), alias="keyID")
    key_secret: SecretStr = SecretStr("")
    public_key: SecretStr = SecretStr("")

    def masked(self) -> list[str]:
        """Return the names of the secret fields that hold the mask instead of a secret."""
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
