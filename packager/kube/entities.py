"""Converts connections and integrations to objects of a cluster and to documents, and back.

A connection is a Secret with one plain-text key per field, so that `kubectl create secret` or an external secret store
can create one, too. An integration is a ConfigMap with its document.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from packager.errors import ClusterError, RequestError
from packager.kube.job import plain
from packager.kube.names import (
    COMMON_LABELS,
    CONFIG_MAPS,
    ENTITY,
    ID,
    SECRETS,
    check_id,
    connection_name,
    integration_name,
)
from packager.models.connection import MASK, SECRET_FIELDS, Connection
from packager.models.documents import describe
from packager.models.packaging import PackagingIntegration

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTEGRATION_KEY = "integration.yaml"


def connection_secret(connection: Connection, namespace: str) -> dict[str, Any]:
    """Return the Secret of a connection.

    Raises:
        RequestError: The ID is invalid, or a secret is the mask that is shown instead of it.
    """
    if masked := connection.spec.masked():
        raise RequestError(
            f"connection {connection.id!r}: {', '.join(masked)} is {MASK}, the mask that is shown instead of a secret",
            hint='write the secret in base64: printf %s "$SECRET" | base64',
        )
    fields = {name: _text(value) for name, value in plain(connection.spec).items() if value not in ("", False)}
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.name,
        "metadata": _metadata("connection", connection.id, connection_name(connection.id), namespace),
        "type": "Opaque",
        "stringData": fields,
    }


def connection_of(secret: Mapping[str, Any]) -> Connection:
    """Read a connection from its Secret.

    Raises:
        ClusterError: The fields are not those of a connection.
    """
    name = secret["metadata"]["name"]
    entity_id = (secret["metadata"].get("labels") or {}).get(ID, "")
    try:
        spec = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
        vital = (
            {"vital": TypeAdapter(bool).validate_python(spec["vital"])} if "vital" in spec else {}
        )  # values of a Secret are text
        return Connection.model_validate({"id": entity_id, "spec": {**spec, **vital}})
    except ValidationError as error:
        raise _broken(f"Secret {name!r}", "connection", "; ".join(describe(error))) from error
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _broken(f"Secret {name!r}", "connection", "a value is not UTF-8 text") from error


def connection_document(connection: Connection, *, decrypted: bool = False) -> dict[str, Any]:
    """Return the `kind: Connection` document; its secrets are masked, or base64 when `decrypted`."""
    spec = {name: value for name, value in plain(connection.spec).items() if value not in ("", False)}
    for name in SECRET_FIELDS:
        if name in spec:
            spec[name] = base64.b64encode(str(spec[name]).encode()).decode() if decrypted else MASK
    return {"kind": "Connection", "id": connection.id, "spec": spec}


def keep_masked(new: Connection, old: Connection) -> Connection:
    """Return the new connection, with the secret of the old one for each secret that is the mask."""
    fields = {info.alias or name: name for name, info in type(new.spec).model_fields.items()}
    kept = {fields[name]: getattr(old.spec, fields[name]) for name in new.spec.masked()}
    return new.model_copy(update={"spec": new.spec.model_copy(update=kept)})


def integration_config_map(integration: PackagingIntegration, namespace: str) -> dict[str, Any]:
    """Return the ConfigMap of an integration.

    Raises:
        RequestError: The ID is invalid.
    """
    text = yaml.safe_dump(integration_document(integration), sort_keys=False, width=120)
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.name,
        "metadata": _metadata("integration", integration.id, integration_name(integration.id), namespace),
        "data": {_INTEGRATION_KEY: text},
    }


def integration_of(config_map: Mapping[str, Any]) -> PackagingIntegration:
    """Read an integration from its ConfigMap.

    Raises:
        ClusterError: It does not contain an integration.
    """
    name = config_map["metadata"]["name"]
    text = (config_map.get("data") or {}).get(_INTEGRATION_KEY, "")
    try:
        return PackagingIntegration.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise _broken(f"ConfigMap {name!r}", "integration", "; ".join(describe(error))) from error
    except yaml.YAMLError as error:
        raise _broken(f"ConfigMap {name!r}", "integration", f"{_INTEGRATION_KEY} is not valid YAML") from error


def integration_document(integration: PackagingIntegration) -> dict[str, Any]:
    """Return the `kind: PackagingIntegration` document."""
    return {"kind": "PackagingIntegration", **integration.model_dump(by_alias=True, mode="json", exclude_unset=True)}


def _metadata(entity: str, entity_id: str, name: str, namespace: str) -> dict[str, Any]:
    labels = {**COMMON_LABELS, ENTITY: entity, ID: check_id(entity_id, entity)}
    return {"name": name, "namespace": namespace, "labels": labels}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _broken(what: str, entity: str, why: str) -> ClusterError:
    return ClusterError(f"{what} has the label of a {entity}, but is invalid: {why}", hint=f"create the {entity} again")
