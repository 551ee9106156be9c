"""Packagings as rows and as documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from packager.api import entities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row


def of_row(row: Row[Any]) -> entities.ModelPackaging:
    """Read a packaging."""
    return packaging(row.id, dict(row._mapping))  # noqa: SLF001


def document(row: Row[Any]) -> str:
    """Return a packaging as JSON; its spec and its status are stored as they are answered."""
    times = f'"createdAt":"{entities.time_text(row.created_at)}","updatedAt":"{entities.time_text(row.updated_at)}"'
    return f'{{"id":{json.dumps(row.id)},"spec":{row.spec},"status":{row.status},{times}}}'


def packaging(packaging_id: str, values: Mapping[str, Any]) -> entities.ModelPackaging:
    """Read a packaging of its columns."""
    return entities.ModelPackaging.model_validate(
        {
            "id": packaging_id,
            "spec": json.loads(values["spec"]),
            "status": json.loads(values["status"]),
            "createdAt": entities.time_text(values["created_at"]),
            "updatedAt": entities.time_text(values["updated_at"]),
        }
    )


def json_text(model: entities.ApiModel) -> str:
    """Return a spec or a status as it is stored, and answered."""
    return json.dumps(model.model_dump(by_alias=True, exclude_none=True, mode="json"))
