"""The revisions of the database's schema, for Alembic."""
