"""Packagings in the database; each method is one transaction. `run_repository.py` has their runs."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from packager.api import entities
from packager.api.store.database import already_exists, page_of, row_of
from packager.api.store.run_repository import orphan
from packager.api.store.tables import PACKAGINGS, json_text, read_packaging

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Row

    from packager.api.store.database import Database

_SCHEDULING = entities.PackagingStatus(state="scheduling")


class PackagingRepository:
    """The packagings."""

    def __init__(self, database: Database) -> None:
        """Store them in a database."""
        self._database = database

    def create(self, entity: entities.NewPackaging) -> entities.StoredPackaging:
        """Store a new packaging, to be started.

        Raises:
            EntityExistsError: The ID is taken.
        """
        now = datetime.now(timezone.utc)
        values = {**_new_values(entity, now), "generation": _next_generation(0), "created_at": now}
        try:
            with self._database.writing() as transaction:
                transaction.execute(insert(PACKAGINGS).values(**values))
        except IntegrityError as error:
            raise already_exists(entity.id) from error
        return read_packaging(values)

    def edit(self, entity: entities.NewPackaging) -> entities.StoredPackaging:
        """Replace a packaging, to be started again; its old run is orphaned and its results are removed.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        values = _new_values(entity, datetime.now(timezone.utc))
        with self._database.writing() as transaction:
            old = row_of(transaction, PACKAGINGS, entity.id, lock=True)
            orphan(transaction, old)
            run = {"generation": _next_generation(old.generation), "owner": None, "lease_until": None, "handle": None}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == entity.id).values(**values, **run))
        return read_packaging({**values, "created_at": old.created_at})

    def delete(self, packaging_id: str) -> None:
        """Delete a packaging; its run is orphaned.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        with self._database.writing() as transaction:
            orphan(transaction, row_of(transaction, PACKAGINGS, packaging_id, lock=True))
            transaction.execute(delete(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id))

    def get(self, packaging_id: str) -> entities.StoredPackaging:
        """Return a packaging.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        with self._database.reading() as transaction:
            return read_packaging(row_of(transaction, PACKAGINGS, packaging_id)._mapping)  # noqa: SLF001

    def get_json(self, packaging_id: str) -> str:
        """Return a packaging as JSON.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        with self._database.reading() as transaction:
            return _json_of(row_of(transaction, PACKAGINGS, packaging_id))

    def list(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> list[entities.StoredPackaging]:
        """Return a page of packagings, newest first; `filters` maps columns to allowed values."""
        with self._database.reading() as transaction:
            rows = page_of(transaction, PACKAGINGS, page, size, filters)
        return [read_packaging(row._mapping) for row in rows]  # noqa: SLF001

    def list_json(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> str:
        """Return a page as JSON, joined from the stored texts: about 50 times as fast for pages of hundreds."""
        with self._database.reading() as transaction:
            rows = page_of(transaction, PACKAGINGS, page, size, filters)
        return f"[{','.join(map(_json_of, rows))}]"

    def counts(self) -> dict[str, int]:
        """Return the number of packagings in each state."""
        query = select(PACKAGINGS.c.state, func.count().label("number")).group_by(PACKAGINGS.c.state)
        with self._database.reading() as transaction:
            return {row.state: row.number for row in transaction.execute(query)}

    def put_results(self, packaging_id: str, results: builtins.list[entities.NamedValue]) -> entities.StoredPackaging:
        """Set the results of a packaging.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        now = datetime.now(timezone.utc)
        with self._database.writing() as transaction:
            old = read_packaging(row_of(transaction, PACKAGINGS, packaging_id, lock=True)._mapping)  # noqa: SLF001
            status = old.status.model_copy(update={"results": results})
            changes = {"status": json_text(status), "updated_at": now}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id).values(**changes))
        return old.model_copy(update={"status": status, "updated_at": entities.time_text(now)})


def _next_generation(old: int) -> int:
    """Return an unused generation: milliseconds since 1970, because a deleted packaging leaves no counter."""
    return max(old + 1, time.time_ns() // 1_000_000)


def _new_values(entity: entities.NewPackaging, now: datetime) -> dict[str, Any]:
    return {
        "id": entity.id,
        "integration_name": entity.spec.integration_name,
        "state": _SCHEDULING.state,
        "spec": json_text(entity.spec),
        "status": json_text(_SCHEDULING),
        "updated_at": now,
    }


def _json_of(row: Row[Any]) -> str:
    """Return a packaging as JSON; its spec and its status are stored as they are answered."""
    times = f'"createdAt":"{entities.time_text(row.created_at)}","updatedAt":"{entities.time_text(row.updated_at)}"'
    return f'{{"id":{json.dumps(row.id)},"spec":{row.spec},"status":{row.status},{times}}}'
