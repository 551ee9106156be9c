"""The database of the service: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

from packager.api.store.store import Store, open_store

__all__ = ["Store", "open_store"]
