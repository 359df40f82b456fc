"""An index by which conversations that nobody has touched for long are found."""

from alembic import op

revision = "0005"
down_revision = "0004"
additive = True


def upgrade() -> None:
    """While it is made no conversation can be written."""
    op.create_index("conversations_updated", "conversations", ["updated", "id"])
