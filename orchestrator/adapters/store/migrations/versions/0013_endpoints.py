"""Devices say by which endpoints they go, and a release may bring such instead of firmware."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("devices", sa.Column("endpoints", sa.BigInteger(), nullable=True))
    op.add_column("releases", sa.Column("moves", sa.Boolean(), server_default=sa.false(), nullable=False))
