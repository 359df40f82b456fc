"""Access tokens that are fetched: how to get each kind of them, and one cache."""
