"""An index of the replies of which perhaps nothing came, to count them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """A version before does not know it, and does with it."""
    op.create_index(
        "messages_empty",
        "messages",
        ["tree_id"],
        sqlite_where=sa.text("state IN ('failed', 'cancelled')"),
        postgresql_where=sa.text("state IN ('failed', 'cancelled')"),
    )
