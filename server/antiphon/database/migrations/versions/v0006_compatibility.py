"""Which programs can use the schema: where an older one reads that it may."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """One row, which every later migration is followed by writing."""
    op.create_table("compatibility", sa.Column("oldest", ID, primary_key=True))
