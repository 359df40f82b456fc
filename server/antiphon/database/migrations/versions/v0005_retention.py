"""An index for finding conversations that have not been used for long."""

from alembic import op

revision = "0005"
down_revision = "0004"
additive = True


def upgrade() -> None:
    """Create the index. No conversation can be written meanwhile."""
    op.create_index("conversations_updated", "conversations", ["updated", "id"])
