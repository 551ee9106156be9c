"""Connections and integrations in the database; each method is one transaction."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from packager.api.store.database import already_exists, page_of, row_of
from packager.api.store.leases import StoredEntity
from packager.api.store.tables import CONNECTIONS, FACTS, INTEGRATIONS, json_text
from packager.errors import RequestError
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
RegisterSecrets = Callable[[Iterable[str]], None]
_KEY_CHECK = "key"


class EntityRepository(ABC, Generic[_Value]):
    """The entities of one kind."""

    _table: Table

    def __init__(self, database: Database) -> None:
        """Store them in a database."""
        self._database = database

    @abstractmethod
    def _values(self, entity: _Value) -> dict[str, Any]:
        """Return the columns of an entity."""

    @abstractmethod
    def _read(self, row: Row[Any]) -> _Value:
        """Read an entity."""

    def create(self, entity: _Value) -> StoredEntity[_Value]:
        """Store a new entity.

        Raises:
            EntityExistsError: The ID is taken.
        """
        now = datetime.now(timezone.utc)
        values = self._values(entity)
        try:
            with self._database.writing() as transaction:
                transaction.execute(insert(self._table).values(**values, created_at=now, updated_at=now))
        except IntegrityError as error:
            raise already_exists(values["id"]) from error
        return StoredEntity(value=entity, created_at=now, updated_at=now)

    def edit(self, entity: _Value) -> StoredEntity[_Value]:
        """Replace an entity.

        Raises:
            EntityNotFoundError: No entity has that ID.
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
            EntityNotFoundError: No entity has that ID.
        """
        with self._database.reading() as transaction:
            return self._stored(row_of(transaction, self._table, entity_id))

    def list(self, page: int, size: int, filters: Mapping[str, Iterable[str]]) -> list[StoredEntity[_Value]]:
        """Return a page of entities, newest first; `filters` maps columns to allowed values."""
        with self._database.reading() as transaction:
            rows = page_of(transaction, self._table, page, size, filters)
        return [self._stored(row) for row in rows]

    def delete(self, entity_id: str) -> None:
        """Delete an entity.

        Raises:
            EntityNotFoundError: No entity has that ID.
            RequestError: The entity is protected.
        """
        with self._database.writing() as transaction:
            self._check_deletion(row_of(transaction, self._table, entity_id, lock=True))
            transaction.execute(delete(self._table).where(self._table.c.id == entity_id))

    def _check_deletion(self, row: Row[Any]) -> None:
        """Raise RequestError for a protected entity."""

    def find(self, transaction: Transaction, ids: Iterable[str]) -> dict[str, _Value]:
        """Return the existing ones of some entities, within a transaction."""
        rows = transaction.execute(select(self._table).where(self._table.c.id.in_(set(ids)))).all()
        return {row.id: self._read(row) for row in rows}

    def find_all(self, ids: Iterable[str]) -> dict[str, _Value]:
        """Return the existing ones of some entities."""
        with self._database.reading() as transaction:
            return self.find(transaction, ids)

    def _stored(self, row: Row[Any]) -> StoredEntity[_Value]:
        return StoredEntity(value=self._read(row), created_at=row.created_at, updated_at=row.updated_at)


class IntegrationRepository(EntityRepository[PackagingIntegration]):
    """The integrations."""

    _table = INTEGRATIONS

    def _values(self, entity: PackagingIntegration) -> dict[str, Any]:
        return {"id": entity.id, "spec": json_text(entity.spec)}

    def _read(self, row: Row[Any]) -> PackagingIntegration:
        return PackagingIntegration.model_validate({"id": row.id, "spec": json.loads(row.spec)})


class ConnectionRepository(EntityRepository[Connection]):
    """The connections; their secrets are in clear in memory and encrypted in the database."""

    _table = CONNECTIONS

    def __init__(self, database: Database, cipher: SecretCipher, register_secrets: RegisterSecrets) -> None:
        """Store them in a database; `register_secrets` is called with secrets when they come into use."""
        super().__init__(database)
        self._cipher = cipher
        self._register_secrets = register_secrets
        self._registered: set[str] = set()

    def check_key(self) -> None:
        """Check that the key belongs to this database; a new database adopts it.

        If the first key is new, all secrets are encrypted again with it, so that the other keys can be removed.

        Raises:
            UsageError: The key belongs to another database.
        """
        stored = self._key_check()
        if stored is None:
            try:
                with self._database.writing() as transaction:
                    transaction.execute(insert(FACTS).values(name=_KEY_CHECK, value=self._cipher.encrypt({})))
            except IntegrityError:  # another replica was first
                stored = self._key_check()
        if stored is not None:
            self._cipher.decrypt(stored)
            if not self._cipher.is_current(stored):
                self._rotate()

    def _rotate(self) -> None:
        with self._database.writing() as transaction:
            encrypted = select(CONNECTIONS.c.id, CONNECTIONS.c.sealed).where(CONNECTIONS.c.sealed != "")
            for row in transaction.execute(encrypted.with_for_update()).all():
                changed = update(CONNECTIONS).where(CONNECTIONS.c.id == row.id)
                transaction.execute(changed.values(sealed=self._cipher.rotate(row.sealed)))
            fact = update(FACTS).where(FACTS.c.name == _KEY_CHECK)
            transaction.execute(fact.values(value=self._cipher.encrypt({})))
        log.info("all connection secrets are encrypted with the first key now; the other keys can be removed")

    def _key_check(self) -> str | None:
        with self._database.reading() as transaction:
            found = transaction.execute(select(FACTS.c.value).where(FACTS.c.name == _KEY_CHECK)).scalar_one_or_none()
        return found if found is None else str(found)

    def _values(self, entity: Connection) -> dict[str, Any]:
        spec = entity.spec.model_dump(by_alias=True, mode="python")
        secrets = {name: spec.pop(name).get_secret_value() for name in SECRET_FIELDS}
        given = {name: value for name, value in secrets.items() if value}
        self._register(given.values())
        return {
            "id": entity.id,
            "type": entity.spec.type,
            "spec": json.dumps(spec),
            "sealed": self._cipher.encrypt(given) if given else "",
        }

    def _read(self, row: Row[Any]) -> Connection:
        secrets = self._cipher.decrypt(row.sealed) if row.sealed else {}
        return Connection.model_validate({"id": row.id, "spec": {**json.loads(row.spec), **secrets}})

    def find(self, transaction: Transaction, ids: Iterable[str]) -> dict[str, Connection]:
        """Return the existing ones of some connections, and register their secrets."""
        found = super().find(transaction, ids)
        for connection in found.values():
            self._register(connection.spec.secrets())
        return found

    def _register(self, secrets: Iterable[str]) -> None:
        """Register new secrets; not those of connections that are only listed: each slows down every log line."""
        if new := set(secrets) - self._registered:
            self._register_secrets(new)
            self._registered |= new

    def _merged(self, entity: Connection, row: Row[Any]) -> Connection:
        """Keep the secrets for which the client sent the mask back."""
        return keep_masked(entity, self._read(row))

    def _check_deletion(self, row: Row[Any]) -> None:
        if json.loads(row.spec).get("vital"):
            raise RequestError(
                f'connection "{row.id}" is vital and can\'t be deleted', hint="edit it to `vital: false`"
            )
