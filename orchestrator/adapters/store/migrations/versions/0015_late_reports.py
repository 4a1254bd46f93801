"""A device that reports late may be in flight twice; that is no reason not to store what it says."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_FLYING = sa.text("flight IS NOT NULL")


def upgrade() -> None:
    """Make the change."""
    op.drop_index("uq_updates_flight", "updates")
    op.create_index("ix_updates_flight", "updates", ["flight"], sqlite_where=_FLYING, postgresql_where=_FLYING)
