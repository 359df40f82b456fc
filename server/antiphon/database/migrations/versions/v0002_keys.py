"""API keys, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", ID, primary_key=True),
        sa.Column("digest", ID, nullable=False, unique=True),
        sa.Column("previous_digest", ID, unique=True),
        sa.Column("previous_until", sa.BigInteger),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
        sa.Column("last_used", sa.BigInteger),
    )
    op.create_index("api_keys_owner", "api_keys", ["owner", "id"])
    op.create_table(
        "audit_events",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
    )
    op.create_index("audit_events_time", "audit_events", ["time"])
    op.create_index("audit_events_actor", "audit_events", ["actor", "id"])
    op.create_index("audit_events_action", "audit_events", ["action", "id"])
