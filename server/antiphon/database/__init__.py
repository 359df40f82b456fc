"""The database, whatever is stored in it: SQLite or PostgreSQL, connections, tables and their migrations."""
