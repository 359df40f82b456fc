"""One module for each migration. What was released is never changed again.

`additive = True` says that the program of the revision before can go on with the schema: it adds tables, indices, and columns that
may be null or have a server default, and nothing that what that program writes could break.
"""
