"""The registered devices are counted, and triggers that devices may have got are found without their cohort."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_OUT = sa.text("kind = 'install' AND state IN ('claimed', 'sent', 'unknown')")


def upgrade() -> None:
    """Make the change."""
    op.execute("INSERT INTO counters (name, value) SELECT 'fleet', count(*) FROM devices HAVING count(*) > 0")
    columns = ["rollout_id", "expires_at", "update_id"]
    op.create_index("ix_deliveries_out", "deliveries", columns, sqlite_where=_OUT, postgresql_where=_OUT)
