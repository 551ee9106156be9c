"""The database: SQLite (WAL, one file) or PostgreSQL, transactions on it, and queries that the repositories share."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from packager.errors import EntityExistsError, EntityNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine, Row, Table
    from sqlalchemy.exc import DBAPIError

_BUSY_MILLISECONDS = 30_000
# One connection for each thread that answers requests. Errors must not show parameters, such as encrypted secrets.
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 40, "hide_parameters": True}
# TCP alone detects a crashed database host only after up to 15 minutes, long after the leases expire. The names are
# libpq's; the URL overrides them. All are seconds, except tcp_user_timeout (milliseconds).
_TIMEOUTS: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class Database:
    """Transactions on an engine."""

    def __init__(self, engine: Engine) -> None:
        """Use an engine."""
        self.engine = engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes; SQLite runs one of them at a time."""
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def now(self, connection: Connection) -> datetime:
        """Return the current time for leases: PostgreSQL's, because the clocks of replicas may differ."""
        if connection.dialect.name == "postgresql":
            found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return found.astimezone(timezone.utc)
        return datetime.now(timezone.utc)


def read_url(text: str) -> URL:
    """Parse a database URL: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.

    Raises:
        UsageError: The URL is invalid; the message contains no password.
    """
    hint = "write sqlite:////var/lib/packager/packager.db or postgresql://USER:PASSWORD@HOST:5432/NAME"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the database URL is invalid", hint=hint) from error
    name = url.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise UsageError(f"unsupported database {name!r}", hint=hint)
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("the database URL names no file", hint=hint)
    return url.set(drivername=_DRIVERS[name])


def make_sqlite_file(path: Path) -> None:
    """Create the database file with mode 0600; SQLite gives its other files the same mode.

    Raises:
        UsageError: The file cannot be created.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise UsageError(
            f"cannot open the database file {path}: {error.strerror}",
            hint="name a file in an existing, writable folder in PACKAGER_API_DATABASE_URL",
        ) from error


def make_engine(url: URL) -> Engine:
    """Create an engine, without connecting."""
    try:
        if url.get_backend_name() == "sqlite":
            arguments = {"timeout": _BUSY_MILLISECONDS / 1000, "check_same_thread": False}
            engine = create_engine(url, connect_args=arguments, **_POOL)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        timeouts = {name: value for name, value in _TIMEOUTS.items() if name not in url.query}
        return create_engine(url, connect_args=timeouts, pool_pre_ping=True, pool_recycle=1800, **_POOL)
    except NoSuchModuleError as error:
        raise UsageError("the database driver is not installed", hint="pip install 'odahu-packager[api]'") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's type)
    connection.isolation_level = None  # _begin_sqlite begins the transactions, not the first change
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "secure_delete = ON",  # overwrite deleted data
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock first: reading and then writing would fail if another transaction wrote in between."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def driver_message(error: DBAPIError) -> str:
    """Return the first line of the driver's message."""
    lines = str(error.orig).splitlines()
    return lines[0] if lines else type(error.orig).__name__


def not_found(entity_id: str) -> EntityNotFoundError:
    """Return the error that the public clients know."""
    return EntityNotFoundError(f'entity "{entity_id}" is not found')


def already_exists(entity_id: str) -> EntityExistsError:
    """Return the error that the public clients know."""
    return EntityExistsError(f'entity "{entity_id}" already exists')


def row_of(transaction: Connection, table: Table, entity_id: str, *, lock: bool = False) -> Row[Any]:
    """Return the row of an entity; `lock` locks it until the transaction ends.

    Raises:
        EntityNotFoundError: The table has no such entity.
    """
    if "\0" in entity_id:  # PostgreSQL refuses it in texts
        raise not_found(entity_id)
    query = select(table).where(table.c.id == entity_id)
    row = transaction.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise not_found(entity_id)
    return row


def page_of(
    transaction: Connection, table: Table, page: int, size: int, filters: Mapping[str, Iterable[str]]
) -> Sequence[Row[Any]]:
    """Return the rows of a page, newest first; `filters` maps columns to allowed values."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc())
    for name, allowed in filters.items():
        query = query.where(table.c[name].in_([value for value in allowed if "\0" not in value]))
    return transaction.execute(query.limit(size).offset(page * size)).all()
