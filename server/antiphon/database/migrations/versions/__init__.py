"""One module for each migration. A released migration is never changed.

`additive = True` means that the previous revision's program can use the schema. Such a migration only adds tables, indices, and
columns that may be null or have a server default, and nothing that the writes of that program could violate.
"""
