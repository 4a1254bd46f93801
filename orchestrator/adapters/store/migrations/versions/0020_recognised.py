"""What was recognised in an artifact, and noticed of it, is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("artifacts", sa.Column("recognised", sa.Text(), server_default="", nullable=False))
    op.add_column("artifacts", sa.Column("remarks", sa.Text(), server_default="[]", nullable=False))
