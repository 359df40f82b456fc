"""All that is kept of one owner, across the tables of all rooms: given out whole, and removed for good."""
