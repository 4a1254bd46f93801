"""What a device ran when it reported, and how often it had booted."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("reports", sa.Column("rel", sa.BigInteger(), nullable=True))
    op.add_column("reports", sa.Column("boots", sa.BigInteger(), nullable=True))
