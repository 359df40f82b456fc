"""The table of schema compatibility, from which an older program reads whether it may use the schema."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table. It has one row, which is written after every later migration."""
    op.create_table("compatibility", sa.Column("oldest", ID, primary_key=True))
