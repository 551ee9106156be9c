"""Migration of the database schema at each start; replicas that start together take turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from packager.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOCK = 0x7061636B  # PostgreSQL's advisory locks are numbers


def configuration() -> Config:
    """Return Alembic's configuration with the folder of the revisions."""
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))  # Alembic interpolates it
    return config


def migrate(engine: Engine) -> None:
    """Apply all missing revisions in one transaction.

    Raises:
        UsageError: A newer version wrote the database.
    """
    config = configuration()
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            newest = ScriptDirectory.from_config(config).get_current_head()
            raise UsageError(
                f"the database schema is newer than this version, which supports it up to revision {newest}",
                hint="start the version that wrote the database, or a newer one",
            ) from error
