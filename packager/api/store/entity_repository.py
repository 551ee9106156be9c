"""Connections and integrations in the database; each method is a transaction of its own."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from packager.api import entities
from packager.api.store.tables import CONNECTIONS, FACTS, INTEGRATIONS
from packager.errors import EntityExistsError, EntityNotFoundError, RequestError
from packager.kube.entities import keep_masked
from packager.models.connection import SECRET_FIELDS, Connection
from packager.models.packaging import PackagingIntegration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection as Transaction
    from sqlalchemy import Row, Table

    from packager.api.store.database import Database
    from packager.api.store.encryption import SecretCipher

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")
Learn = Callable[[Iterable[str]], None]
_KEY_CHECK = "key"


@dataclass(frozen=True, kw_only=True)
class StoredEntity(Generic[_Value]):
    """An entity with the times of its creation and of its last change."""

    value: _Value
    created_at: datetime
    updated_at: datetime


def not_found(entity_id: str) -> EntityNotFoundError:
    """Return the error that the public clients know."""
    return EntityNotFoundError(f'entity "{entity_id}" is not found')


def already_there(entity_id: str) -> EntityExistsError:
    """Return the error that the public clients know."""
    return EntityExistsError(f'entity "{entity_id}" already exists')


def checked_id(entity_id: str) -> str:
    """Return an id that the database can be asked for: PostgreSQL refuses texts with a NUL character.

    Raises:
        EntityNotFoundError: It can be no entity's.
    """
    if "\0" in entity_id:
        raise not_found(entity_id)
    return entity_id


def row_of(transaction: Transaction, table: Table, entity_id: str, *, lock: bool = False) -> Row[Any]:
    """Return an entity's row, on request locked against others until the transaction ends.

    Raises:
        EntityNotFoundError: There is none of that id.
    """
    query = select(table).where(table.c.id == checked_id(entity_id))
    row = transaction.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise not_found(entity_id)
    return row


def allowed_values(values: Iterable[str]) -> list[str]:
    """Return those values of a filter that the database can be asked for."""
    return [value for value in values if "\0" not in value]


class EntityRepository(ABC, Generic[_Value]):
    """One kind of entities."""

    _table: Table

    def __init__(self, database: Database) -> None:
        """Take where they are kept."""
        self._database = database

    @abstractmethod
    def _values(self, entity: _Value) -> dict[str, Any]:
        """Return the columns of an entity."""

    @abstractmethod
    def _read(self, row: Row[Any]) -> _Value:
        """Read an entity."""

    def create(self, entity: _Value) -> StoredEntity[_Value]:
        """Keep a new entity.

        Raises:
            EntityExistsError: There is one of that id.
        """
        now = datetime.now(timezone.utc)
        values = self._values(entity)
        try:
            with self._database.writing() as transaction:
                transaction.execute(insert(self._table).values(**values, created_at=now, updated_at=now))
        except IntegrityError as error:
            raise already_there(values["id"]) from error
        return StoredEntity(value=entity, created_at=now, updated_at=now)

    def edit(self, entity: _Value) -> StoredEntity[_Value]:
        """Replace an entity.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        now = datetime.now(timezone.utc)
        entity_id = self._values(entity)["id"]
        with self._database.writing() as transaction:
            row = row_of(transaction, self._table, entity_id, lock=True)
            merged = self._merged(entity, row)
            changed = update(self._table).where(self._table.c.id == entity_id)
            transaction.execute(changed.values(**self._values(merged), updated_at=now))
        return StoredEntity(value=merged, created_at=row.created_at, updated_at=now)

    def _merged(self, entity: _Value, _row: Row[Any]) -> _Value:
        return entity

    def get(self, entity_id: str) -> StoredEntity[_Value]:
        """Return an entity.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        with self._database.reading() as transaction:
            return self._stored(row_of(transaction, self._table, entity_id))

    def list(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> list[StoredEntity[_Value]]:
        """Return a page of entities, the newest first; `filters` are allowed values by column."""
        query = select(self._table).order_by(self._table.c.created_at.desc(), self._table.c.id)
        for name, allowed in filters.items():
            query = query.where(self._table.c[name].in_(allowed_values(allowed)))
        with self._database.reading() as transaction:
            rows = transaction.execute(query.limit(size).offset(page * size)).all()
        return [self._stored(row) for row in rows]

    def delete(self, entity_id: str) -> None:
        """Remove an entity.

        Raises:
            EntityNotFoundError: There is none of that id.
            RequestError: It must not be removed.
        """
        with self._database.writing() as transaction:
            self._check_removal(row_of(transaction, self._table, entity_id, lock=True))
            transaction.execute(delete(self._table).where(self._table.c.id == entity_id))

    def _check_removal(self, row: Row[Any]) -> None:
        """Refuse what must stay."""

    def find(self, transaction: Transaction, ids: Iterable[str]) -> dict[str, _Value]:
        """Return those of some entities that exist, within a transaction."""
        rows = transaction.execute(select(self._table).where(self._table.c.id.in_(set(ids)))).all()
        return {row.id: self._read(row) for row in rows}

    def find_all(self, ids: Iterable[str]) -> dict[str, _Value]:
        """Return those of some entities that exist."""
        with self._database.reading() as transaction:
            return self.find(transaction, ids)

    def _stored(self, row: Row[Any]) -> StoredEntity[_Value]:
        return StoredEntity(value=self._read(row), created_at=row.created_at, updated_at=row.updated_at)


class IntegrationRepository(EntityRepository[entities.NewIntegration]):
    """The integrations."""

    _table = INTEGRATIONS

    def _values(self, entity: entities.NewIntegration) -> dict[str, Any]:
        return {"id": entity.id, "spec": json.dumps(entity.spec.model_dump(by_alias=True, mode="json"))}

    def _read(self, row: Row[Any]) -> entities.NewIntegration:
        return entities.NewIntegration.model_validate({"id": row.id, "spec": json.loads(row.spec)})


def as_integration(entity: entities.NewIntegration) -> PackagingIntegration:
    """Return an integration as the packager reads it."""
    return PackagingIntegration.model_validate(entity.model_dump(by_alias=True, mode="json"))


class ConnectionRepository(EntityRepository[Connection]):
    """The connections, with their secrets in clear in memory and sealed in the database."""

    _table = CONNECTIONS

    def __init__(self, database: Database, sealer: SecretCipher, learn: Learn) -> None:
        """Take where they are kept, what seals their secrets, and what keeps those that are used out of the log."""
        super().__init__(database)
        self._sealer = sealer
        self._learn = learn
        self._learnt: set[str] = set()

    def check_key(self) -> None:
        """See that the key fits this database; a new database takes it as its own.

        Where the first of several keys is a new one, all is sealed anew by it, so that the others can be taken away.

        Raises:
            UsageError: It doesn't fit.
        """
        sealed = self._key_check()
        if sealed is None:
            try:
                with self._database.writing() as transaction:
                    transaction.execute(insert(FACTS).values(name=_KEY_CHECK, value=self._sealer.seal({})))
            except IntegrityError:  # another replica has just been first
                sealed = self._key_check()
        if sealed is not None:
            self._sealer.open(sealed)
            if not self._sealer.is_current(sealed):
                self._seal_anew()

    def _seal_anew(self) -> None:
        with self._database.writing() as transaction:
            held = select(CONNECTIONS.c.id, CONNECTIONS.c.sealed).where(CONNECTIONS.c.sealed != "")
            for row in transaction.execute(held.with_for_update()).all():
                fresh = {"sealed": self._sealer.rotate(row.sealed)}
                transaction.execute(update(CONNECTIONS).where(CONNECTIONS.c.id == row.id).values(**fresh))
            fact = update(FACTS).where(FACTS.c.name == _KEY_CHECK)
            transaction.execute(fact.values(value=self._sealer.seal({})))
        log.info("the secrets of all connections are sealed by the first key now; the others are no longer needed")

    def _key_check(self) -> str | None:
        with self._database.reading() as transaction:
            found = transaction.execute(select(FACTS.c.value).where(FACTS.c.name == _KEY_CHECK)).scalar_one_or_none()
        return found if found is None else str(found)

    def _values(self, entity: Connection) -> dict[str, Any]:
        spec = entity.spec.model_dump(by_alias=True, mode="python")
        secrets = {name: spec.pop(name).get_secret_value() for name in SECRET_FIELDS}
        held = {name: value for name, value in secrets.items() if value}
        self._keep_out_of_the_log(held.values())
        return {
            "id": entity.id,
            "type": entity.spec.type,
            "spec": json.dumps(spec),
            "sealed": self._sealer.seal(held) if held else "",
        }

    def _read(self, row: Row[Any]) -> Connection:
        secrets = self._sealer.open(row.sealed) if row.sealed else {}
        return Connection.model_validate({"id": row.id, "spec": {**json.loads(row.spec), **secrets}})

    def find(self, transaction: Transaction, ids: Iterable[str]) -> dict[str, Connection]:
        """Return those of some connections that exist, to be used."""
        found = super().find(transaction, ids)
        for connection in found.values():
            self._keep_out_of_the_log(connection.spec.secrets())
        return found

    def _keep_out_of_the_log(self, secrets: Iterable[str]) -> None:
        """Tell secrets once; those of connections that are only listed aren't, as each makes every line slower."""
        if fresh := set(secrets) - self._learnt:
            self._learn(fresh)
            self._learnt |= fresh

    def _merged(self, entity: Connection, row: Row[Any]) -> Connection:
        """Keep the secrets in whose place the mask was sent back."""
        return keep_masked(entity, self._read(row))

    def _check_removal(self, row: Row[Any]) -> None:
        if json.loads(row.spec).get("vital"):
            raise RequestError(
                f'connection "{row.id}" is vital and can\'t be deleted', hint="edit it to `vital: false`"
            )
