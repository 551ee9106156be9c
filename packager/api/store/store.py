"""The repositories on one database, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from packager.api.store.database import Database, driver_message, make_engine, make_sqlite_file, read_url
from packager.api.store.entity_repository import ConnectionRepository, IntegrationRepository
from packager.api.store.packaging_repository import PackagingRepository
from packager.api.store.run_repository import RunRepository
from packager.errors import DatabaseError

if TYPE_CHECKING:
    from packager.api.store.encryption import SecretCipher
    from packager.api.store.entity_repository import RegisterSecrets


class Store:
    """The repositories of the service.

    Attributes:
        packagings, connections, integrations: The entities.
        runs: The runs of the packagings.
        database: The database of all of them.
    """

    def __init__(self, database: Database, cipher: SecretCipher, register_secrets: RegisterSecrets) -> None:
        """Create the repositories."""
        self.database = database
        self.connections = ConnectionRepository(database, cipher, register_secrets)
        self.integrations = IntegrationRepository(database)
        self.packagings = PackagingRepository(database)
        self.runs = RunRepository(database, self.connections, self.integrations)

    def check(self) -> None:
        """Send a query to the database.

        Raises:
            SQLAlchemyError: The database does not answer.
        """
        with self.database.reading() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Close all connections to the database."""
        self.database.engine.dispose()


def open_store(url_text: str, cipher: SecretCipher, register_secrets: RegisterSecrets = lambda _secrets: None) -> Store:
    """Open the database, migrate its schema and check the encryption key.

    Args:
        url_text: The URL of the database.
        cipher: Encrypts the secrets in the database.
        register_secrets: Called with secrets when they come into use, to redact them in the log.

    Raises:
        UsageError: The URL is invalid, a newer version wrote the database, or the key belongs to another database.
        DatabaseError: The database is unreachable.
    """
    from packager.api.store.migration import migrate  # noqa: PLC0415  (slow to import)

    url = read_url(url_text)
    if url.get_backend_name() == "sqlite":
        make_sqlite_file(Path(str(url.database)))
    engine = make_engine(url)
    store = Store(Database(engine), cipher, register_secrets)
    try:
        migrate(engine)
        store.connections.check_key()
    except DBAPIError as error:
        engine.dispose()
        shown = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
        raise DatabaseError(
            f"cannot use the database {shown}: {driver_message(error)}",
            hint="check PACKAGER_API_DATABASE_URL, that the database runs, and that this user may connect",
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return store
