"""Devices that speak something older than otad/1, what they enforce, and what their downloads are checked by."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("devices", sa.Column("dialect", sa.Text(), server_default="otad", nullable=False))
    op.add_column("devices", sa.Column("enforces", sa.Text(), server_default="[]", nullable=False))
    for name in ("signature", "sha1", "md5"):
        op.add_column("artifacts", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.create_table(
        "permissions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_permissions")),
    )
