"""The tables. What is asked for by the database has a column; documents are JSON text, ASCII only.

Changes go into a revision in `migrations/versions`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, which is UTC; SQLite keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (its signature)
        """Write a time in UTC."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read a time as one of UTC."""
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
    Column("generation", BigInteger, nullable=False),  # counts up with each PUT, and over a removal
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", String(255)),  # who runs it
    Column("lease_until", UtcTime),  # till when nobody else may
    Column("handle", Text),  # what the executor knows the run by
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("packagings_by_time", "created_at", "id"),
    Index("packagings_by_state", "state", "updated_at"),
    Index("packagings_by_integration", "integration_name"),
)

# RunRepository whose packaging was deleted or edited: to be stopped, and what they left to be removed.
ABANDONED = Table(
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

# What the service itself keeps: a text by which it sees that the key fits.
FACTS = Table("facts", METADATA, Column("name", String(63), primary_key=True), Column("value", Text, nullable=False))
