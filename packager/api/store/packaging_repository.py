"""Packagings in the database; each method is a transaction of its own. Who runs them is in `runs.py`."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from packager.api import entities
from packager.api.store.entity_repository import allowed_values, already_there, row_of
from packager.api.store.rows import document, json_text, of_row, packaging
from packager.api.store.run_repository import abandon
from packager.api.store.tables import PACKAGINGS

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Row

    from packager.api.store.database import Database

_SCHEDULING = entities.PackagingStatus(state="scheduling")


class PackagingRepository:
    """The packagings."""

    def __init__(self, database: Database) -> None:
        """Take where they are kept."""
        self._database = database

    def create(self, entity: entities.NewPackaging) -> entities.ModelPackaging:
        """Keep a new packaging, to be started.

        Raises:
            EntityExistsError: There is one of that id.
        """
        now = datetime.now(timezone.utc)
        values = {**_fresh(entity, now), "generation": _next_generation(0), "created_at": now}
        try:
            with self._database.writing() as transaction:
                transaction.execute(insert(PACKAGINGS).values(**values))
        except IntegrityError as error:
            raise already_there(entity.id) from error
        return packaging(entity.id, values)

    def edit(self, entity: entities.NewPackaging) -> entities.ModelPackaging:
        """Replace a packaging, to be started again; its old run is abandoned and its results are gone.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        values = _fresh(entity, datetime.now(timezone.utc))
        with self._database.writing() as transaction:
            old = row_of(transaction, PACKAGINGS, entity.id, lock=True)
            abandon(transaction, old)
            fresh = {"generation": _next_generation(old.generation), "owner": None, "lease_until": None, "handle": None}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == entity.id).values(**values, **fresh))
        return packaging(entity.id, {**values, "created_at": old.created_at})

    def delete(self, packaging_id: str) -> None:
        """Remove a packaging; its run is abandoned.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        with self._database.writing() as transaction:
            abandon(transaction, row_of(transaction, PACKAGINGS, packaging_id, lock=True))
            transaction.execute(delete(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id))

    def get(self, packaging_id: str) -> entities.ModelPackaging:
        """Return a packaging.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        return of_row(self._row(packaging_id))

    def _row(self, packaging_id: str) -> Row[Any]:
        with self._database.reading() as transaction:
            return row_of(transaction, PACKAGINGS, packaging_id)

    def list(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> list[entities.ModelPackaging]:
        """Return a page of packagings, the newest first; `filters` are allowed values by column."""
        return [of_row(row) for row in self._page(page, size, filters)]

    def list_json(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> str:
        """Return the same as JSON, put together of what is stored: for pages of hundreds, a fiftieth of the work."""
        return f"[{','.join(document(row) for row in self._page(page, size, filters))}]"

    def get_json(self, packaging_id: str) -> str:
        """Return a packaging as JSON.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        return document(self._row(packaging_id))

    def _page(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> Sequence[Row[Any]]:
        query = select(PACKAGINGS).order_by(PACKAGINGS.c.created_at.desc(), PACKAGINGS.c.id.desc())
        for name, allowed in filters.items():
            query = query.where(PACKAGINGS.c[name].in_(allowed_values(allowed)))
        with self._database.reading() as transaction:
            return transaction.execute(query.limit(size).offset(page * size)).all()

    def counts(self) -> dict[str, int]:
        """Return how many packagings are in each state."""
        query = select(PACKAGINGS.c.state, func.count().label("number")).group_by(PACKAGINGS.c.state)
        with self._database.reading() as transaction:
            return {row.state: row.number for row in transaction.execute(query)}

    def put_results(self, packaging_id: str, results: builtins.list[entities.NamedValue]) -> entities.ModelPackaging:
        """Set a packaging's results.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        now = datetime.now(timezone.utc)
        with self._database.writing() as transaction:
            old = of_row(row_of(transaction, PACKAGINGS, packaging_id, lock=True))
            status = old.status.model_copy(update={"results": results})
            changes = {"status": json_text(status), "updated_at": now}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id).values(**changes))
        return old.model_copy(update={"status": status, "updated_at": entities.time_text(now)})


def _next_generation(old: int) -> int:
    """Return a generation that no earlier packaging of that id had: milliseconds, as deleted ones leave no counter."""
    return max(old + 1, time.time_ns() // 1_000_000)


def _fresh(entity: entities.NewPackaging, now: datetime) -> dict[str, Any]:
    return {
        "id": entity.id,
        "integration_name": entity.spec.integration_name,
        "state": _SCHEDULING.state,
        "spec": json_text(entity.spec),
        "status": json_text(_SCHEDULING),
        "updated_at": now,
    }
