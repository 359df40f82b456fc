"""The database, whatever is kept in it: its two kinds, their connections, its tables, and the migrations of those."""
