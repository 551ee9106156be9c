"""The runs of packagings in the database; each method is one transaction.

The owner of a lease renews it while it runs the packaging; another service takes over an expired lease. Every write of
an owner checks generation and owner, so that it never changes a packaging that was edited, deleted or taken over.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from packager.api import entities
from packager.api.store.database import row_of
from packager.api.store.leases import Lease, OrphanedRun, Run
from packager.api.store.tables import ORPHANED_RUNS, PACKAGINGS, json_text, read_packaging
from packager.errors import PackagerError, UsageError
from packager.models.documents import describe

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection as Transaction
    from sqlalchemy import Row

    from packager.api.store.database import Database
    from packager.api.store.entity_repository import ConnectionRepository, IntegrationRepository

log = logging.getLogger(__name__)


class RunRepository:
    """The runs of the packagings."""

    def __init__(
        self, database: Database, connections: ConnectionRepository, integrations: IntegrationRepository
    ) -> None:
        """Store the runs in a database; the other repositories have the entities that packagings name."""
        self._database = database
        self._connections = connections
        self._integrations = integrations

    def get(self, packaging_id: str) -> Run:
        """Return the run of a packaging.

        Raises:
            EntityNotFoundError: No packaging has that ID.
        """
        with self._database.reading() as transaction:
            row = row_of(transaction, PACKAGINGS, packaging_id)
        return Run(generation=row.generation, owner=row.owner, handle=row.handle, state=row.state)

    def claim(self, owner: str, limit: int, duration: timedelta) -> list[Lease]:
        """Take leases of new packagings and of packagings whose lease has expired, oldest first.

        A packaging whose orphaned run is not stopped yet is left out. Two owners never get the same packaging.
        """
        with self._database.writing() as transaction:
            now = self._database.now(transaction)
            is_free = or_(
                and_(PACKAGINGS.c.state == "scheduling", PACKAGINGS.c.owner.is_(None)),
                and_(PACKAGINGS.c.state.in_(("scheduling", "running")), PACKAGINGS.c.lease_until < now),
            )
            is_clean = PACKAGINGS.c.id.not_in(select(ORPHANED_RUNS.c.packaging_id))
            query = select(PACKAGINGS).where(is_free, is_clean).order_by(PACKAGINGS.c.updated_at).limit(limit)
            rows = transaction.execute(query.with_for_update(skip_locked=True)).all()
            if not rows:
                return []
            is_taken = PACKAGINGS.c.id.in_([row.id for row in rows])
            transaction.execute(update(PACKAGINGS).where(is_taken).values(owner=owner, lease_until=now + duration))
            return [lease for row in rows if (lease := self._read(transaction, row, owner))]

    def _read(self, transaction: Transaction, row: Row[Any], owner: str) -> Lease | None:
        """Read a claimed packaging; an unreadable one fails, so that it does not block the others."""
        try:
            return self._lease(transaction, row, owner)
        except (ValueError, PackagerError) as error:
            known = error if isinstance(error, PackagerError) else UsageError(_summary(error))
            log.error("cannot read packaging %r from the database: %s", row.id, known.message)  # noqa: TRY400
            message = entities.with_hint(
                f"cannot read the packaging, or an entity that it names, from the database: {known.message}",
                known.hint
                or "edit it, or delete and create it again; a newer version of the service may have written it",
            )
            status = entities.PackagingStatus(
                state="failed", exit_code=known.exit_code, reason=known.code, message=message
            )
            orphan(transaction, row)
            now = datetime.now(timezone.utc)
            values = {"state": status.state, "status": json_text(status), "updated_at": now, "handle": None}
            changed = update(PACKAGINGS).where(PACKAGINGS.c.id == row.id)
            transaction.execute(changed.values(**values, owner=None, lease_until=None))
            return None

    def _lease(self, transaction: Transaction, row: Row[Any], owner: str) -> Lease:
        entity = read_packaging(row._mapping)  # noqa: SLF001  (a public name of SQLAlchemy's)
        spec = entity.spec
        named = {*(target.connection_name for target in spec.targets), spec.output_connection} - {""}
        return Lease(
            id=entity.id,
            generation=row.generation,
            owner=owner,
            handle=row.handle,
            entity=entity,
            integration=self._integrations.find(transaction, [spec.integration_name]).get(spec.integration_name),
            connections=self._connections.find(transaction, named) if named else {},
        )

    def attach(self, lease: Lease, handle: str) -> bool:
        """Store the handle of a started run; False: the lease was lost, so the caller must stop the run."""
        with self._database.writing() as transaction:
            return transaction.execute(update(PACKAGINGS).where(_held(lease)).values(handle=handle)).rowcount == 1

    def renew(self, lease: Lease, duration: timedelta) -> bool:
        """Renew a lease; False: it was lost (the packaging was edited, deleted or taken over, or has ended)."""
        with self._database.writing() as transaction:
            until = self._database.now(transaction) + duration
            return transaction.execute(update(PACKAGINGS).where(_held(lease)).values(lease_until=until)).rowcount == 1

    def record(self, lease: Lease, status: entities.PackagingStatus) -> bool:
        """Store the status of a run; a final state ends the lease. False: the lease was lost, nothing was stored.

        Results that a client has put in the meantime are kept unless the run has its own.
        """
        now = datetime.now(timezone.utc)
        with self._database.writing() as transaction:
            row = transaction.execute(select(PACKAGINGS.c.status).where(_held(lease)).with_for_update()).first()
            if row is None:
                return False
            if not status.results:
                put = entities.PackagingStatus.model_validate_json(row.status).results
                status = status.model_copy(update={"results": put})
            changes: dict[str, Any] = {"state": status.state, "status": json_text(status), "updated_at": now}
            changes |= {"owner": None, "lease_until": None} if status.is_final else {}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == lease.id).values(**changes))
        return True

    def release_all(self, owner: str) -> None:
        """Expire all leases of an owner: an earlier process of the same service held them."""
        past = datetime.fromtimestamp(0, timezone.utc)
        with self._database.writing() as transaction:
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.owner == owner).values(lease_until=past))

    def orphans(self) -> list[OrphanedRun]:
        """Return the runs whose packaging was deleted or edited; call `remove_orphan` when one is stopped."""
        with self._database.reading() as transaction:
            rows = transaction.execute(select(ORPHANED_RUNS).order_by(ORPHANED_RUNS.c.number)).all()
        return [OrphanedRun(**row._mapping) for row in rows]  # noqa: SLF001

    def remove_orphan(self, orphaned: OrphanedRun) -> None:
        """Remove the record of an orphaned run that was stopped and cleaned up."""
        with self._database.writing() as transaction:
            transaction.execute(delete(ORPHANED_RUNS).where(ORPHANED_RUNS.c.number == orphaned.number))


def orphan(transaction: Transaction, row: Row[Any]) -> None:
    """Record a run that was or may be started as orphaned; an ended one too, because its log remains."""
    if row.owner is None and row.handle is None:
        return
    names = ("generation", "owner", "lease_until", "handle")
    values = {name: row._mapping[name] for name in names}  # noqa: SLF001
    transaction.execute(insert(ORPHANED_RUNS).values(packaging_id=row.id, **values))


def _summary(error: ValueError) -> str:
    """Return the first three problems without the values, which may be long or secret."""
    return "; ".join(describe(error)[:3]) if isinstance(error, ValidationError) else str(error)


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        PACKAGINGS.c.id == lease.id,
        PACKAGINGS.c.generation == lease.generation,
        PACKAGINGS.c.owner == lease.owner,
        PACKAGINGS.c.state.not_in(entities.FINAL),
    )
