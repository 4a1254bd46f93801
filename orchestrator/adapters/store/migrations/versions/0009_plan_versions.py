"""Every version of the plan of a rollout, and which running releases an older artifact may be installed over."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FIRST = "SELECT {} FROM rollout_events AS e WHERE e.rollout_id = rollouts.id ORDER BY e.id LIMIT 1"


def upgrade() -> None:
    """Make the change."""
    op.add_column("rollouts", sa.Column("plan_version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("artifacts", sa.Column("leaves", sa.Text(), server_default="[]", nullable=False))
    op.create_table(
        "plan_versions",
        sa.Column("rollout_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.id"], name=op.f("fk_plan_versions_rollout_id")),
        sa.PrimaryKeyConstraint("rollout_id", "version", name=op.f("pk_plan_versions")),
    )
    actor, at = _FIRST.format("actor"), _FIRST.format("at")
    op.execute(
        "INSERT INTO plan_versions (rollout_id, version, plan, changes, actor, reason, at) "
        f"SELECT id, 1, plan, '[]', coalesce(({actor}), actor), '', coalesce(({at}), moved_at) FROM rollouts"
    )
