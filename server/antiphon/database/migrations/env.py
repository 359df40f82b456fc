"""Alembic's environment: runs the migrations on the connection passed to it, inside its open transaction."""

from alembic import context

from antiphon.database.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
