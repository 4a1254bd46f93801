"""What devices say of themselves, and what holds a device that waits: the next look costs what is due."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_FREE = sa.text("state = 'pending' AND held_until_at IS NULL")
_HELD = sa.text("state = 'pending' AND held_until_at IS NOT NULL")


def upgrade() -> None:
    """Make the change."""
    op.add_column("devices", sa.Column("situation", sa.Text(), server_default="{}", nullable=False))
    op.add_column("updates", sa.Column("held_until_at", sa.Double(), nullable=True))
    op.add_column("updates", sa.Column("hold", sa.Text(), server_default="", nullable=False))
    op.drop_index("ix_updates_pending", "updates")
    place = ["rollout_id", "rank"]
    op.create_index("ix_updates_pending", "updates", place, sqlite_where=_FREE, postgresql_where=_FREE)
    place = ["rollout_id", "held_until_at"]
    op.create_index("ix_updates_held", "updates", place, sqlite_where=_HELD, postgresql_where=_HELD)
