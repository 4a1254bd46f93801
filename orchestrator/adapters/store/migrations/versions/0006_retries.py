"""Failures that were tried again, devices that are left out, and when what does not fly is looked at."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LATER = sa.text("flight IS NULL AND deadline_at IS NOT NULL")


def upgrade() -> None:
    """Make the change."""
    op.add_column("updates", sa.Column("failed_epoch", sa.Integer(), nullable=True))
    op.create_index("ix_updates_later", "updates", ["deadline_at"], sqlite_where=_LATER, postgresql_where=_LATER)
    op.add_column("devices", sa.Column("quarantined_at", sa.Double(), nullable=True))
    op.add_column("devices", sa.Column("quarantine", sa.Text(), server_default="", nullable=False))
