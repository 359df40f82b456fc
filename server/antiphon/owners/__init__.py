"""All data stored about one owner, in every table: its export and its erasure."""
