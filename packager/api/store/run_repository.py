"""Who runs the packagings, in the database; each method is a transaction of its own.

A claim is a lease: its owner renews it while it runs the packaging, and another one takes over when it has run out. All
that an owner writes is compared with the generation and the owner, so nothing of an edited, deleted or taken over
packaging is ever written.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from packager.api import entities
from packager.api.store.entity_repository import as_integration, row_of
from packager.api.store.leases import Lease, OrphanedRun, Run
from packager.api.store.rows import json_text, of_row
from packager.api.store.tables import ABANDONED, PACKAGINGS
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
        """Take where they are kept, and what the packagings name."""
        self._database = database
        self._connections = connections
        self._integrations = integrations

    def get(self, packaging_id: str) -> Run:
        """Return where a packaging's run is.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        with self._database.reading() as transaction:
            row = row_of(transaction, PACKAGINGS, packaging_id)
        return Run(generation=row.generation, owner=row.owner, handle=row.handle, state=row.state)

    def claim(self, owner: str, limit: int, lease: timedelta) -> list[Lease]:
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
            return [claim for row in rows if (claim := self._read(transaction, row, owner))]

    def _read(self, transaction: Transaction, row: Row[Any], owner: str) -> Lease | None:
        """Read a packaging that was claimed; one that can't be read fails, and keeps no other one waiting."""
        try:
            return self._claim(transaction, row, owner)
        except (ValueError, PackagerError) as error:
            known = error if isinstance(error, PackagerError) else UsageError(_short(error))
            log.error("packaging %r can't be read from the database: %s", row.id, known.message)  # noqa: TRY400
            message = entities.with_hint(
                f"the packaging, or what it names, can't be read from the database: {known.message}",
                known.hint or "create it anew, or edit it; a newer version of the service may have written it",
            )
            status = entities.PackagingStatus(
                state="failed", exit_code=known.exit_code, reason=known.code, message=message
            )
            abandon(transaction, row)
            now = datetime.now(timezone.utc)
            values = {"state": status.state, "status": json_text(status), "updated_at": now, "handle": None}
            changed = update(PACKAGINGS).where(PACKAGINGS.c.id == row.id)
            transaction.execute(changed.values(**values, owner=None, lease_until=None))
            return None

    def _claim(self, transaction: Transaction, row: Row[Any], owner: str) -> Lease:
        entity = of_row(row)
        spec = entity.spec
        named = {*(target.connection_name for target in spec.targets), spec.output_connection} - {""}
        integration = self._integrations.find(transaction, [spec.integration_name]).get(spec.integration_name)
        return Lease(
            id=entity.id,
            generation=row.generation,
            owner=owner,
            handle=row.handle,
            entity=entity,
            integration=as_integration(integration) if integration else None,
            connections=self._connections.find(transaction, named) if named else {},
        )

    def attach(self, claim: Lease, handle: str) -> bool:
        """Note what the executor knows a claim's run by; False: no longer ours, so the run is to be stopped."""
        with self._database.writing() as transaction:
            return transaction.execute(update(PACKAGINGS).where(_own(claim)).values(handle=handle)).rowcount == 1

    def renew(self, claim: Lease, lease: timedelta) -> bool:
        """Keep a claim; False: no longer ours (edited, deleted, taken over, ended)."""
        with self._database.writing() as transaction:
            until = self._database.now(transaction) + lease
            return transaction.execute(update(PACKAGINGS).where(_own(claim)).values(lease_until=until)).rowcount == 1

    def record(self, claim: Lease, status: entities.PackagingStatus) -> bool:
        """Write what has become of a claim; a final state ends it. False: no longer ours, nothing was written.

        Results that somebody has put meanwhile stay where the run itself has none.
        """
        now = datetime.now(timezone.utc)
        with self._database.writing() as transaction:
            row = transaction.execute(select(PACKAGINGS.c.status).where(_own(claim)).with_for_update()).first()
            if row is None:
                return False
            if not status.results:
                put = entities.PackagingStatus.model_validate_json(row.status).results
                status = status.model_copy(update={"results": put})
            changes: dict[str, Any] = {"state": status.state, "status": json_text(status), "updated_at": now}
            changes |= {"owner": None, "lease_until": None} if status.is_final else {}
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.id == claim.id).values(**changes))
        return True

    def release_all(self, owner: str) -> None:
        """Give all claims of an owner back: they are an earlier process's of the same service."""
        past = datetime.fromtimestamp(0, timezone.utc)
        with self._database.writing() as transaction:
            transaction.execute(update(PACKAGINGS).where(PACKAGINGS.c.owner == owner).values(lease_until=past))

    def abandoned(self) -> list[OrphanedRun]:
        """Return the runs whose packaging was deleted or edited: each is to be stopped, then told by `stopped`."""
        with self._database.reading() as transaction:
            rows = transaction.execute(select(ABANDONED).order_by(ABANDONED.c.number)).all()
        return [OrphanedRun(**row._mapping) for row in rows]  # noqa: SLF001  (a public name of SQLAlchemy's)

    def stopped(self, abandoned: OrphanedRun) -> None:
        """Forget an abandoned run: nothing of it is left."""
        with self._database.writing() as transaction:
            transaction.execute(delete(ABANDONED).where(ABANDONED.c.number == abandoned.number))


def _short(error: ValueError) -> str:
    """Return the first few things that are wrong, without the values: they may be long, or secret."""
    return "; ".join(describe(error)[:3]) if isinstance(error, ValidationError) else str(error)


def _own(claim: Lease) -> ColumnElement[bool]:
    return and_(
        PACKAGINGS.c.id == claim.id,
        PACKAGINGS.c.generation == claim.generation,
        PACKAGINGS.c.owner == claim.owner,
        PACKAGINGS.c.state.not_in(entities.FINAL),
    )


def abandon(transaction: Transaction, row: Row[Any]) -> None:
    """Note a run that was started, or may be starting at this moment; also one that has ended: its log remains."""
    if row.owner is None and row.handle is None:
        return
    names = ("generation", "owner", "lease_until", "handle")
    values = {name: row._mapping[name] for name in names}  # noqa: SLF001
    transaction.execute(insert(ABANDONED).values(packaging_id=row.id, **values))
