"""Conversations, trees of messages, and the workers that write them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables in an empty database."""
    op.create_table(
        "trees",
        sa.Column("id", ID, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
    )
    op.create_table(
        "conversations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("tree_id", ID, sa.ForeignKey("trees.id"), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("title_folded", sa.Text, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("head_id", ID),
        sa.Column("message_count", sa.Integer, nullable=False),
        sa.Column("forked_from", ID),
        sa.Column("create_request_id", sa.Text),
        sa.UniqueConstraint("owner", "create_request_id", name="conversations_create_request"),
    )
    op.create_index("conversations_list", "conversations", ["owner", "pinned", "updated", "id"])
    op.create_index(
        "conversations_list_source",
        "conversations",
        ["owner", "source", "pinned", "updated", "id"],
        sqlite_where=sa.text("source <> ''"),
        postgresql_where=sa.text("source <> ''"),
    )
    op.create_index("conversations_tree", "conversations", ["tree_id"])
    op.create_table(
        "messages",
        sa.Column("id", ID, primary_key=True),
        sa.Column("tree_id", ID, sa.ForeignKey("trees.id", ondelete="CASCADE"), nullable=False),
        sa.Column("conversation_id", ID, nullable=False),
        sa.Column("parent_id", ID),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("worker", ID),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("error_reason", sa.Text, nullable=False),
        sa.Column("usage", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("messages_tree", "messages", ["tree_id"])
    op.create_index(
        "messages_request",
        "messages",
        ["conversation_id", "request_id"],
        unique=True,
        sqlite_where=sa.text("request_id IS NOT NULL"),
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )
    op.create_index(
        "messages_in_progress",
        "messages",
        ["worker"],
        sqlite_where=sa.text("state = 'in_progress'"),
        postgresql_where=sa.text("state = 'in_progress'"),
    )
    op.create_table(
        "workers",
        sa.Column("id", ID, primary_key=True),
        sa.Column("seen", sa.BigInteger, nullable=False),
    )
