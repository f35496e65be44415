"""create items table

Revision ID: 3c5a1f0e9b7d
Revises:
Create Date: 2026-11-24 00:00:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "3c5a1f0e9b7d"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "fingerprint",
            sa.String(length=32),
            nullable=True,
            comment="Digest of the request that came with an idempotency key",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_items_created_at_id", "items", ["created_at", "id"])


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_index("ix_items_created_at_id", table_name="items")
    op.drop_table("items")
