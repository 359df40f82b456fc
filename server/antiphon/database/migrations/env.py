"""What Alembic runs: the migrations, on the connection that it is handed, inside the transaction that has been begun there."""

from alembic import context

from antiphon.database.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
