"""The migrations of the history's database, as Alembic runs them: `antiphon.history.migrate` is how they are called."""
