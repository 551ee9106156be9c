"""Run the revisions in the transaction that `migrate` has opened; executed by Alembic."""

from __future__ import annotations

from alembic import context

from packager.api.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
