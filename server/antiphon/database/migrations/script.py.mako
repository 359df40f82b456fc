"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
# True if the program of the revision before can go on with the schema that this leaves: it adds tables, indices, and columns that may be
# null or have a server default, and nothing that what that program writes could break.
additive = False


def upgrade() -> None:
    """Never loses what is stored."""
    ${upgrades if upgrades else "pass"}
