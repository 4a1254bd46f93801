"""What operators say of devices, what they said before, and the hardware model of an update beside its stratum."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    for name, empty in (("revision", ""), ("site", ""), ("time_zone", ""), ("tags", "[]"), ("attributes", "{}")):
        op.add_column("devices", sa.Column(name, sa.Text(), server_default=empty, nullable=False))
    op.add_column("devices", sa.Column("facts_at", sa.Double(), nullable=True))
    op.create_table(
        "past_facts",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_past_facts_device_id")),
        sa.PrimaryKeyConstraint("device_id", "until", name=op.f("pk_past_facts")),
    )
    op.add_column("updates", sa.Column("model", sa.Text(), server_default="", nullable=False))
    op.execute("UPDATE updates SET model = stratum")  # until now the stratum was the model
