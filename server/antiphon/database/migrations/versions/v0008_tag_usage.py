"""Adds the usage by tag. Budgets are still checked against the sums by day and key."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")


def upgrade() -> None:
    """Add a table of its own, as a call with several tags is counted in it several times."""
    op.create_table(
        "tag_usage",
        *(sa.Column(name, ID, primary_key=True) for name in ("day", "owner", "key", "tag")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    )
