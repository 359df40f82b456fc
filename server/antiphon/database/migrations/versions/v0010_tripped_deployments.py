"""Adds the deployments that an admin tripped."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add a table of its own, as a deployment may be drained as well; the previous version does not read it."""
    op.create_table(
        "tripped_deployments",
        sa.Column("deployment", ID, primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
