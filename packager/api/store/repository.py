"""Packagings in the database, and who runs them; each method is a transaction of its own.

A claim is a lease: its owner renews it while it runs the packaging, and another one takes over when it has run out. All
that an owner writes is compared with the generation and the owner, so nothing of an edited, deleted or taken over
packaging is ever written.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from packager.api import entities
from packager.api.store.claims import Abandoned, Claim, Run
from packager.api.store.shelves import allowed_values, already_there, as_integration, checked_id, not_found
from packager.api.store.tables import ABANDONED, PACKAGINGS

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection as Transaction
    from sqlalchemy import Row

    from packager.api.store.database import Database
    from packager.api.store.shelves import Connections, Integrations

_SCHEDULING = entities.PackagingStatus(state="scheduling")


class Packagings:
    """The packagings."""

    def __init__(self, database: Database, connections: Connections, integrations: Integrations) -> None:
        """Take where they are kept, and what they name."""
        self._database = database
        self._connections = connections
        self._integrations = integrations

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
        return _packaging(entity.id, values)

    def edit(self, entity: entities.NewPackaging) -> entities.ModelPackaging:
        """Replace a packaging, to be started again; its old run is abandoned and its results are gone.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        values = _fresh(entity, datetime.now(timezone.utc))
        with self._database.writing() as transaction:
            old = _locked(transaction, entity.id)
            _abandon(transaction, old)
            fresh = {"generation": _next_generation(old.generation), "owner": None, "lease_until": None, "handle": None}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == entity.id).values(**values, **fresh))
        return _packaging(entity.id, {**values, "created_at": old.created_at})

    def delete(self, packaging_id: str) -> None:
        """Remove a packaging; its run is abandoned.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        with self._database.writing() as transaction:
            _abandon(transaction, _locked(transaction, packaging_id))
            transaction.execute(delete(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id))

    def get(self, packaging_id: str) -> entities.ModelPackaging:
        """Return a packaging.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        return _of_row(self._row(packaging_id))

    def run(self, packaging_id: str) -> Run:
        """Return where a packaging's run is.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        row = self._row(packaging_id)
        return Run(generation=row.generation, owner=row.owner, handle=row.handle, state=row.state)

    def _row(self, packaging_id: str) -> Row[Any]:
        wanted = PACKAGINGS.c.id == checked_id(packaging_id)
        with self._database.reading() as transaction:
            row = transaction.execute(select(PACKAGINGS).where(wanted)).one_or_none()
        if row is None:
            raise not_found(packaging_id)
        return row

    def list(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> list[entities.ModelPackaging]:
        """Return a page of packagings, the newest first; `filters` are allowed values by column."""
        return [_of_row(row) for row in self._page(page, size, filters)]

    def list_json(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> str:
        """Return the same as JSON, put together of what is stored: for pages of hundreds, a fiftieth of the work."""
        return f"[{','.join(_document(row) for row in self._page(page, size, filters))}]"

    def get_json(self, packaging_id: str) -> str:
        """Return a packaging as JSON.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        return _document(self._row(packaging_id))

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
            old = _of_row(_locked(transaction, packaging_id))
            status = old.status.model_copy(update={"results": results})
            changes = {"status": _json(status), "updated_at": now}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == packaging_id).values(**changes))
        return old.model_copy(update={"status": status, "updated_at": _text(now)})

    def claim(self, owner: str, limit: int, lease: timedelta) -> builtins.list[Claim]:
        """Take packagings to start, or to take over as nobody has renewed their lease; the oldest first.

        One whose earlier run is abandoned and not stopped yet waits for that. Two owners never get the same one.
        """
        with self._database.writing() as transaction:
            now = self._database.now(transaction)
            free = or_(
                and_(PACKAGINGS.c.state == "scheduling", PACKAGINGS.c.owner.is_(None)),
                and_(PACKAGINGS.c.state.in_(("scheduling", "running")), PACKAGINGS.c.lease_until < now),
            )
            clean = PACKAGINGS.c.id.not_in(select(ABANDONED.c.packaging_id))
            query = select(PACKAGINGS).where(free, clean).order_by(PACKAGINGS.c.updated_at).limit(limit)
            rows = transaction.execute(query.with_for_update(skip_locked=True)).all()
            if not rows:
                return []
            mine = PACKAGINGS.c.id.in_([row.id for row in rows])
            transaction.execute(update(PACKAGINGS).where(mine).values(owner=owner, lease_until=now + lease))
            return [self._claim(transaction, row, owner) for row in rows]

    def _claim(self, transaction: Transaction, row: Row[Any], owner: str) -> Claim:
        entity = _of_row(row)
        spec = entity.spec
        named = {*(target.connection_name for target in spec.targets), spec.output_connection} - {""}
        integration = self._integrations.find(transaction, [spec.integration_name]).get(spec.integration_name)
        return Claim(
            id=entity.id,
            generation=row.generation,
            owner=owner,
            handle=row.handle,
            entity=entity,
            integration=as_integration(integration) if integration else None,
            connections=self._connections.find(transaction, named) if named else {},
        )

    def attach(self, claim: Claim, handle: str) -> bool:
        """Note what the executor knows a claim's run by; False: no longer ours, so the run is to be stopped."""
        return self._write(claim, {"handle": handle})

    def renew(self, claim: Claim, lease: timedelta) -> bool:
        """Keep a claim; False: no longer ours (edited, deleted, taken over, ended)."""
        with self._database.writing() as transaction:
            until = self._database.now(transaction) + lease
            return transaction.execute(update(PACKAGINGS).where(_own(claim)).values(lease_until=until)).rowcount == 1

    def record(self, claim: Claim, status: entities.PackagingStatus) -> bool:
        """Write what has become of a claim; a final state ends it. False: no longer ours, nothing was written."""
        now = datetime.now(timezone.utc)
        changes: dict[str, Any] = {"state": status.state, "status": _json(status), "updated_at": now}
        return self._write(claim, changes | ({"owner": None, "lease_until": None} if status.is_final else {}))

    def release(self, claim: Claim) -> bool:
        """Give a claim back, so that another owner can take over at once; False: no longer ours."""
        return self._write(claim, {"lease_until": datetime.fromtimestamp(0, timezone.utc)})

    def release_all(self, owner: str) -> None:
        """Give all claims of an owner back: they are an earlier process's of the same service."""
        past = datetime.fromtimestamp(0, timezone.utc)
        with self._database.writing() as transaction:
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.owner == owner).values(lease_until=past))

    def _write(self, claim: Claim, changes: dict[str, Any]) -> bool:
        with self._database.writing() as transaction:
            return transaction.execute(update(PACKAGINGS).where(_own(claim)).values(**changes)).rowcount == 1

    def abandoned(self) -> builtins.list[Abandoned]:
        """Return the runs whose packaging was deleted or edited: each is to be stopped, then told by `stopped`."""
        with self._database.reading() as transaction:
            rows = transaction.execute(select(ABANDONED).order_by(ABANDONED.c.number)).all()
        return [Abandoned(**row._mapping) for row in rows]  # noqa: SLF001  (a public name of SQLAlchemy's)

    def stopped(self, abandoned: Abandoned) -> None:
        """Forget an abandoned run: nothing of it is left."""
        with self._database.writing() as transaction:
            transaction.execute(delete(ABANDONED).where(ABANDONED.c.number == abandoned.number))


def _own(claim: Claim) -> ColumnElement[bool]:
    return and_(
        PACKAGINGS.c.id == claim.id,
        PACKAGINGS.c.generation == claim.generation,
        PACKAGINGS.c.owner == claim.owner,
        PACKAGINGS.c.state.not_in(entities.FINAL),
    )


def _locked(transaction: Transaction, packaging_id: str) -> Row[Any]:
    wanted = PACKAGINGS.c.id == checked_id(packaging_id)
    row = transaction.execute(select(PACKAGINGS).where(wanted).with_for_update()).one_or_none()
    if row is None:
        raise not_found(packaging_id)
    return row


def _abandon(transaction: Transaction, row: Row[Any]) -> None:
    """Note a run that was started, or may be starting at this moment; also one that has ended: its log remains."""
    if row.owner is None and row.handle is None:
        return
    names = ("generation", "owner", "lease_until", "handle")
    values = {name: row._mapping[name] for name in names}  # noqa: SLF001
    transaction.execute(insert(ABANDONED).values(packaging_id=row.id, **values))


def _next_generation(old: int) -> int:
    """Return a generation that no earlier packaging of that id had: milliseconds, as deleted ones leave no counter."""
    return max(old + 1, time.time_ns() // 1_000_000)


def _fresh(entity: entities.NewPackaging, now: datetime) -> dict[str, Any]:
    return {
        "id": entity.id,
        "integration_name": entity.spec.integration_name,
        "state": _SCHEDULING.state,
        "spec": _json(entity.spec),
        "status": _json(_SCHEDULING),
        "updated_at": now,
    }


def _of_row(row: Row[Any]) -> entities.ModelPackaging:
    return _packaging(row.id, dict(row._mapping))  # noqa: SLF001


def _document(row: Row[Any]) -> str:
    """Return a packaging as JSON; its spec and its status are stored as they are answered."""
    times = f'"createdAt":"{_text(row.created_at)}","updatedAt":"{_text(row.updated_at)}"'
    return f'{{"id":{json.dumps(row.id)},"spec":{row.spec},"status":{row.status},{times}}}'


def _packaging(packaging_id: str, values: Mapping[str, Any]) -> entities.ModelPackaging:
    return entities.ModelPackaging.model_validate(
        {
            "id": packaging_id,
            "spec": json.loads(values["spec"]),
            "status": json.loads(values["status"]),
            "createdAt": _text(values["created_at"]),
            "updatedAt": _text(values["updated_at"]),
        }
    )


def _text(time_: datetime) -> str:
    return entities.time_text(time_)


def _json(model: entities.ApiModel) -> str:
    return json.dumps(model.model_dump(by_alias=True, exclude_none=True, mode="json"))
