"""Which process a worker is."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Workers of before have none, and are known by their signs of life alone."""
    op.add_column("workers", sa.Column("process", sa.Text, nullable=False, server_default=""))
