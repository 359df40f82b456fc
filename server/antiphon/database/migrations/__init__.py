"""The migrations of the database, as Alembic runs them: `antiphon.database.migrate` is how they are called."""
