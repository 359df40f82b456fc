"""The database migrations, as Alembic runs them; `antiphon.database.migrate` starts them."""
