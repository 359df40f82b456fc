"""Adds the deployments that an admin took out of use."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table; the previous version does not read it."""
    op.create_table(
        "drained_deployments",
        sa.Column("deployment", ID, primary_key=True),
        sa.Column("until", sa.BigInteger),
    )
