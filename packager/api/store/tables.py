"""The tables. Queried values have columns; documents are JSON text in ASCII.

Changes need a revision in `migrations/versions`.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

from packager.api import entities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from sqlalchemy import Dialect, RowMapping


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (SQLAlchemy's signature)
        """Convert a time to UTC."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return a time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


METADATA = MetaData()
_ID = String(63)

PACKAGINGS = Table(
    "packagings",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("integration_name", String, nullable=False),
    Column("generation", BigInteger, nullable=False),  # increased by each PUT, unique over deletions
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", String(255)),  # the service that runs it
    Column("lease_until", UtcTime),  # end of its lease
    Column("handle", Text),  # the executor's name of the run
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("packagings_by_time", "created_at", "id"),
    Index("packagings_by_state", "state", "updated_at"),
    Index("packagings_by_integration", "integration_name"),
)

# Orphaned runs: their packaging was deleted or edited. They are to be stopped and cleaned up.
ORPHANED_RUNS = Table(
    "abandoned",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("packaging_id", _ID, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("owner", String(255)),
    Column("lease_until", UtcTime),
    Column("handle", Text),
    Index("abandoned_by_packaging", "packaging_id"),
)

CONNECTIONS = Table(
    "connections",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("type", String, nullable=False),
    Column("spec", Text, nullable=False),  # without secrets
    Column("sealed", Text, nullable=False),  # the secrets, encrypted
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("connections_by_time", "created_at", "id"),
)

INTEGRATIONS = Table(
    "integrations",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("integrations_by_time", "created_at", "id"),
)

# The service's own values: an encrypted text that verifies the encryption key.
FACTS = Table("facts", METADATA, Column("name", String(63), primary_key=True), Column("value", Text, nullable=False))


def read_packaging(values: Mapping[str, Any] | RowMapping) -> entities.StoredPackaging:
    """Read a packaging from its columns."""
    return entities.StoredPackaging.model_validate(
        {
            "id": values["id"],
            "spec": json.loads(values["spec"]),
            "status": json.loads(values["status"]),
            "createdAt": entities.time_text(values["created_at"]),
            "updatedAt": entities.time_text(values["updated_at"]),
        }
    )


def json_text(model: BaseModel) -> str:
    """Return a spec or a status as it is stored and answered."""
    return json.dumps(model.model_dump(by_alias=True, exclude_none=True, mode="json"))
