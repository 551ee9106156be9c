"""Where entities are kept: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

from packager.api.store.database import Store, open_store

__all__ = ["Store", "open_store"]
