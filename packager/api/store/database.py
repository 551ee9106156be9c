"""The database: an engine for SQLite (WAL, one file) or PostgreSQL, and the repositories on it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from packager.api.store.entity_repository import ConnectionRepository, IntegrationRepository
from packager.api.store.packaging_repository import PackagingRepository
from packager.api.store.run_repository import RunRepository
from packager.errors import DatabaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import URL, Connection, Engine

    from packager.api.store.encryption import SecretCipher
    from packager.api.store.entity_repository import Learn

_BUSY_MILLISECONDS = 30_000
# As many connections as there are threads that answer requests; parameters, such as sealed secrets, are in no error.
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 40, "hide_parameters": True}
# Without them a database that has gone with its machine is waited for by TCP's own rules: up to a quarter of an hour,
# in which leases run out. The names are libpq's; the address may say otherwise. Seconds, and milliseconds at the last.
_PATIENCE: dict[str, int] = {
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
        """Take the engine."""
        self.engine = engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection in a transaction that reads."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction that writes; SQLite has one of them at a time."""
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def now(self, connection: Connection) -> datetime:
        """Return the time by which leases are counted: PostgreSQL's own, as replicas' clocks may differ."""
        if connection.dialect.name == "postgresql":
            found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return found.astimezone(timezone.utc)
        return datetime.now(timezone.utc)


class Store:
    """All that the service keeps.

    Attributes:
        packagings, connections, integrations: The repositories.
        runs: Who runs the packagings.
        database: What they are on.
    """

    def __init__(self, database: Database, sealer: SecretCipher, learn: Learn) -> None:
        """Set up the repositories."""
        self.database = database
        self.connections = ConnectionRepository(database, sealer, learn)
        self.integrations = IntegrationRepository(database)
        self.packagings = PackagingRepository(database)
        self.runs = RunRepository(database, self.connections, self.integrations)

    def check(self) -> None:
        """Ask the database for nothing.

        Raises:
            SQLAlchemyError: It doesn't answer.
        """
        with self.database.reading() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Let go of the database."""
        self.database.engine.dispose()


def read_url(text: str) -> URL:
    """Read a database's address: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.

    Raises:
        UsageError: It is none; the message has no password in it.
    """
    hint = "write sqlite:////var/lib/packager/packager.db or postgresql://USER:PASSWORD@HOST:5432/NAME"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the database's address can't be read", hint=hint) from error
    name = url.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise UsageError(f"a database of the kind {name!r} is not supported", hint=hint)
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("the database's address names no file", hint=hint)
    return url.set(drivername=_DRIVERS[name])


def _make_file(path: Path) -> None:
    """Make the file of a new database, which is nobody else's to read; SQLite's other files get its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise UsageError(
            f"the database file {path} can't be opened: {error.strerror}",
            hint="name a file in a folder that is there and can be written, in PACKAGER_API_DATABASE_URL",
        ) from error


def make_engine(url: URL) -> Engine:
    """Return an engine; nothing is connected yet."""
    try:
        if url.get_backend_name() == "sqlite":
            arguments = {"timeout": _BUSY_MILLISECONDS / 1000, "check_same_thread": False}
            engine = create_engine(url, connect_args=arguments, **_POOL)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
        return create_engine(url, connect_args=patience, pool_pre_ping=True, pool_recycle=1800, **_POOL)
    except NoSuchModuleError as error:
        raise UsageError("the database's driver is not installed", hint="pip install 'odahu-packager[api]'") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's own)
    connection.isolation_level = None  # transactions begin as `_begin_sqlite` says, not before the first change
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "secure_delete = ON",  # what is deleted is overwritten
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock first: a transaction that reads, then writes, would fail if another one wrote in between."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _learn_nothing(_secrets: Iterable[str]) -> None:
    """Do nothing: for who logs nothing."""


def open_store(url_text: str, sealer: SecretCipher, learn: Learn = _learn_nothing) -> Store:
    """Open the database, bring its schema up to date and check that the key fits.

    Args:
        url_text: Its address.
        sealer: Seals the secrets in it.
        learn: Is told the secrets that come into use, to keep them out of the log.

    Raises:
        UsageError: The address is wrong, the database is a newer version's, or the key is another database's.
        DatabaseError: It can't be reached.
    """
    from packager.api.store.migration import migrate  # noqa: PLC0415  (its imports take a moment, and only here)

    url = read_url(url_text)
    if url.get_backend_name() == "sqlite":
        _make_file(Path(str(url.database)))
    engine = make_engine(url)
    store = Store(Database(engine), sealer, learn)
    try:
        migrate(engine)
        store.connections.check_key()
    except DBAPIError as error:
        engine.dispose()
        raise DatabaseError(
            f"the database {_shown(url)} can't be used: {first_line(error)}",
            hint="check PACKAGER_API_DATABASE_URL, and that the database runs and lets this user in",
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return store


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def first_line(error: DBAPIError) -> str:
    """Return what the driver said, in one line."""
    lines = str(error.orig).splitlines()
    return lines[0] if lines else type(error.orig).__name__
