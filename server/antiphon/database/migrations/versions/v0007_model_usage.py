"""Adds the usage by provider and model. Budgets are still checked against the sums by day and key."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
additive = True

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")


def upgrade() -> None:
    """Add a table. Usage of earlier versions is only in `usage`, and is reported without a model."""
    op.create_table(
        "model_usage",
        *(sa.Column(name, ID, primary_key=True) for name in ("day", "owner", "key", "provider", "model")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    )
