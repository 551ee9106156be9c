"""Packagings, connections, integrations, abandoned runs, facts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String(63)
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "packagings",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("integration_name", sa.String, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("lease_until", _TIME),
        sa.Column("handle", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )
    op.create_index("packagings_by_time", "packagings", ["created_at", "id"])
    op.create_index("packagings_by_state", "packagings", ["state", "updated_at"])
    op.create_index("packagings_by_integration", "packagings", ["integration_name"])
    op.create_table(
        "abandoned",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("packaging_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("lease_until", _TIME),
        sa.Column("handle", sa.Text),
    )
    op.create_index("abandoned_by_packaging", "abandoned", ["packaging_id"])
    op.create_table(
        "connections",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )
    op.create_index("connections_by_time", "connections", ["created_at", "id"])
    op.create_table(
        "integrations",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )
    op.create_index("integrations_by_time", "integrations", ["created_at", "id"])
    op.create_table(
        "facts", sa.Column("name", sa.String(63), primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
