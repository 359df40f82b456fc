"""The process of each worker."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. It is empty for existing workers, which are judged by their last report alone."""
    op.add_column("workers", sa.Column("process", sa.Text, nullable=False, server_default=""))
