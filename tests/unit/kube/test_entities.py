from __future__ import annotations

import base64
from typing import Any

import pytest

from packager.errors import ClusterError
from packager.kube.entities import connection_of, connection_secret
from packager.models.connection import Connection


def as_stored(secret: dict[str, Any]) -> dict[str, Any]:
    """Return a Secret as the API server answers it."""
    data = {name: base64.b64encode(text.encode()).decode() for name, text in secret["stringData"].items()}
    return {"metadata": secret["metadata"], "data": data}


def test_connection_is_read_from_its_secret_unchanged() -> None:
    spec = {"type": "s3", "uri": "s3://models", "keyID": "id", "keySecret": "hush", "vital": True}
    connection = Connection.model_validate({"id": "store", "spec": spec})
    assert connection_of(as_stored(connection_secret(connection, "ml"))) == connection


@pytest.mark.parametrize(("text", "is_vital"), [("true", True), ("false", False), ("yes", True)])
def test_vital_is_text_in_a_secret(text: str, *, is_vital: bool) -> None:
    secret = connection_secret(Connection.model_validate({"id": "x", "spec": {"type": "git"}}), "ml")
    secret["stringData"]["vital"] = text
    assert connection_of(as_stored(secret)).spec.vital is is_vital


def test_secret_with_an_invalid_field_is_refused() -> None:
    secret = connection_secret(Connection.model_validate({"id": "x", "spec": {"type": "git"}}), "ml")
    secret["stringData"]["vital"] = "perhaps"
    with pytest.raises(ClusterError, match="boolean"):
        connection_of(as_stored(secret))
