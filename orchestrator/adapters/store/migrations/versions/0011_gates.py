"""What services answered, which devices went away while no rollout touched them, and the outages that this was."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_GONE = sa.text("gone_at IS NOT NULL")
_OPEN = sa.text("ended_at IS NULL")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the change."""
    op.add_column("devices", sa.Column("gone_at", sa.Double(), nullable=True))
    op.create_index("ix_devices_gone", "devices", ["gone_at"], sqlite_where=_GONE, postgresql_where=_GONE)
    op.execute(
        "INSERT INTO counters (name, value) SELECT 'online', count(*) FROM devices WHERE online HAVING count(*) > 0"
    )
    op.create_table(
        "gate_answers",
        sa.Column("rollout_id", _id(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.id"], name=op.f("fk_gate_answers_rollout_id")),
        sa.PrimaryKeyConstraint("rollout_id", "stage", name=op.f("pk_gate_answers")),
    )
    op.create_table(
        "outages",
        sa.Column("id", _id(), nullable=False),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("gone", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outages")),
    )
    op.create_index("ix_outages_open", "outages", ["began_at"], sqlite_where=_OPEN, postgresql_where=_OPEN)
