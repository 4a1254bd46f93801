"""The tables, for SQLite and PostgreSQL alike.

Rules:
- What can be a constraint is one: one update per device and rollout, one token per sequence number, one
  row per report. One offer at a time per device is none: what a device says late is stored in any case.
- Times are seconds since the epoch as doubles; words are the enum values of the core.
- Every change here comes with a migration; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("rel", BigInteger, nullable=False),
    Column("registered_at", Double, nullable=False),
    Column("seen_at", Double),
    Column("online", Boolean),
    Column("token_hash", Text, unique=True),
    Column("revision", Text, server_default="", nullable=False),
    Column("site", Text, server_default="", nullable=False),
    Column("time_zone", Text, server_default="", nullable=False),
    Column("tags", Text, server_default="[]", nullable=False),
    Column("attributes", Text, server_default="{}", nullable=False),
    Column("facts_at", Double),
    Column("quarantined_at", Double),
    Column("quarantine", Text, server_default="", nullable=False),
    # What it says of itself, each fact with its time; read where an offer is decided, never to choose a cohort.
    Column("situation", Text, server_default="{}", nullable=False),
    # Since when a device that held no slot is disconnected.
    Column("gone_at", Double),
    # Release counter of the endpoints that it goes by, null where it does not say.
    Column("endpoints", BigInteger),
    Column("dialect", Text, server_default="otad", nullable=False),
    Column("enforces", Text, server_default="[]", nullable=False),
)

_GONE = text("gone_at IS NOT NULL")
Index("ix_devices_gone", devices.c.gone_at, sqlite_where=_GONE, postgresql_where=_GONE)

past_facts = Table(
    "past_facts",
    metadata,
    Column("device_id", Text, ForeignKey("devices.id"), primary_key=True),
    Column("until", Double, primary_key=True),
    Column("facts", Text, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("rel", BigInteger, nullable=False),
    Column("sec", BigInteger, nullable=False),
    Column("component", Text, nullable=False),
    Column("hardware", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("min_from", BigInteger, nullable=False),
    Column("statement", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("source_version", Text),
    Column("imported_at", Double, nullable=False),
    # Running releases that may be left for it although it is older.
    Column("leaves", Text, server_default="[]", nullable=False),
    # The native signature that the bytes carry, and the hashes that old clients check by; empty where not known.
    Column("signature", Text, server_default="", nullable=False),
    Column("sha1", Text, server_default="", nullable=False),
    Column("md5", Text, server_default="", nullable=False),
    # What the bytes are, and what was noticed of them, when they were imported; empty where it was not kept.
    Column("recognised", Text, server_default="", nullable=False),
    Column("remarks", Text, server_default="[]", nullable=False),
)

sightings = Table(
    "sightings",
    metadata,
    Column("uri", Text, primary_key=True),
    Column("etag", Text, primary_key=True),
)

releases = Table(
    "releases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("rel", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    # Whether its artifacts are endpoints, and not firmware.
    Column("moves", Boolean, server_default=false(), nullable=False),
)

release_artifacts = Table(
    "release_artifacts",
    metadata,
    Column("release", Text, ForeignKey("releases.name"), primary_key=True),
    Column("sha256", Text, ForeignKey("artifacts.sha256"), primary_key=True),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("release", Text, ForeignKey("releases.name"), nullable=False),
    Column("plan", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("reason_text", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("moved_at", Double, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stages", Text, nullable=False),
    Column("cohort_size", Integer),
    Column("cohort_at", Double),
    Column("strata", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("plan_version", Integer, server_default="1", nullable=False),
)

plan_versions = Table(
    "plan_versions",
    metadata,
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("changes", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
)

rollout_events = Table(
    "rollout_events",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("phase", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("stage", Integer, nullable=False),
)

updates = Table(
    "updates",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), nullable=False),
    Column("device_id", Text, ForeignKey("devices.id"), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stratum", Text, nullable=False),
    Column("rel", BigInteger, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_at", Double, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("begun", Boolean, nullable=False),
    Column("deadline_at", Double),
    Column("progress", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("relapsed_stage", Integer),
    Column("relapsed_epoch", Integer, nullable=False),
    # The device while it holds a slot; a column of its own, so that the reports in between leave its index alone.
    Column("flight", Text),
    # What the trigger must name; the stratum may be the site or another attribute.
    Column("model", Text, server_default="", nullable=False),
    Column("failed_epoch", Integer),
    # Until when a pending one is not looked at, and why; null for one that may be offered the release.
    Column("held_until_at", Double),
    Column("hold", Text, server_default="", nullable=False),
    UniqueConstraint("device_id", "rollout_id"),
)

Index("ix_updates_rank", updates.c.rollout_id, updates.c.rank)
_FREE = text("state = 'pending' AND held_until_at IS NULL")
Index(
    "ix_updates_pending",
    updates.c.rollout_id,
    updates.c.rank,
    sqlite_where=_FREE,
    postgresql_where=_FREE,
)
_HELD = text("state = 'pending' AND held_until_at IS NOT NULL")
Index(
    "ix_updates_held",
    updates.c.rollout_id,
    updates.c.held_until_at,
    sqlite_where=_HELD,
    postgresql_where=_HELD,
)
_LATER = text("flight IS NULL AND deadline_at IS NOT NULL")
Index("ix_updates_later", updates.c.deadline_at, sqlite_where=_LATER, postgresql_where=_LATER)
_FLYING = text("flight IS NOT NULL")
Index("ix_updates_flight", updates.c.flight, sqlite_where=_FLYING, postgresql_where=_FLYING)

reports = Table(
    "reports",
    metadata,
    Column("update_id", _Id, ForeignKey("updates.id", deferrable=True, initially="DEFERRED"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("rel", BigInteger, nullable=True),
    Column("boots", BigInteger, nullable=True),
    sqlite_with_rowid=False,
)

tallies = Table(
    "tallies",
    metadata,
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("stratum", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

tally_changes = Table(
    "tally_changes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("epoch", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stratum", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("change", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("update_id", _Id, ForeignKey("updates.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), nullable=False),
    Column("rollout_version", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("push", Boolean, nullable=False),
    Column("planned_at", Double, nullable=False),
    Column("settled_at", Double),
    Column("expires_at", Double),
    Column("seq", BigInteger, unique=True),
    Column("token", Text, nullable=False),
    Column("token_hash", Text, nullable=False),
)

WAITING = text("deliveries.state IN ('planned', 'sealed', 'claimed')")
"""Deliveries that are not settled. A query must say just this for SQLite to use the index of the few among the many."""
_WAITING = text("state IN ('planned', 'sealed', 'claimed')")
OUT = text("deliveries.kind = 'install' AND deliveries.state IN ('claimed', 'sent', 'unknown')")
"""Triggers that a device may have got, said as the index of them says it."""
_OUT = text("kind = 'install' AND state IN ('claimed', 'sent', 'unknown')")
Index(
    "ix_deliveries_out",
    deliveries.c.rollout_id,
    deliveries.c.expires_at,
    deliveries.c.update_id,
    sqlite_where=_OUT,
    postgresql_where=_OUT,
)
Index("ix_deliveries_waiting", deliveries.c.state, deliveries.c.seq, sqlite_where=_WAITING, postgresql_where=_WAITING)

gate_answers = Table(
    "gate_answers",
    metadata,
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("asked_at", Double, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("text", Text, nullable=False),
)

outages = Table(
    "outages",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("began_at", Double, nullable=False),
    Column("gone", BigInteger, nullable=False),
    Column("share", Double, nullable=False),
    Column("ended_at", Double),
)
_LASTS = text("ended_at IS NULL")
Index("ix_outages_open", outages.c.began_at, sqlite_where=_LASTS, postgresql_where=_LASTS)

# The jump of the clock that is under way, and where it goes on.
jumps = Table(
    "jumps",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("by_s", Double, nullable=False),
    Column("since_s", Double, nullable=False),
    Column("part", Text, nullable=False),
    Column("after", Text, nullable=False),
)

operators = Table(
    "operators",
    metadata,
    Column("name", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("added_at", Double, nullable=False),
)

operator_tokens = Table(
    "operator_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("operator", Text, ForeignKey("operators.name"), nullable=False, index=True),
    Column("hash", Text, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Column("revoked_at", Double),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("matter", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("proposer", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("needed", Integer, nullable=False),
    Column("state", Text, nullable=False),
)
_OPEN = text("state IN ('proposed', 'approved')")
Index(
    "uq_proposals_open",
    proposals.c.matter,
    proposals.c.object,
    proposals.c.proposer,
    unique=True,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)

votes = Table(
    "votes",
    metadata,
    Column("proposal_id", _Id, ForeignKey("proposals.id"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("approves", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("proposal_id", "actor"),
)

warrants = Table(
    "warrants",
    metadata,
    Column("rollout_id", _Id, ForeignKey("rollouts.id"), primary_key=True),
    Column("lines", Text, nullable=False),
    Column("added_at", Double, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("matter", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("closed_at", Double),
    Column("finding", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

SEQ, FENCE = "seq", "fence"
"""Counters: the highest sequence number given out, and which opening of the database may give out more."""

REGISTRY = "registry"
"""Counter that rises whenever devices are registered, or operators change what is known of them."""

ONLINE = "online"
"""Counter of the devices that are connected, by what they last said."""

TOUCHED = "touched"
"""Counter that means nothing: it is changed to see whether anything can be."""

FLEET = "fleet"
"""Counter of the registered devices: a large table takes long to count, and every offer asks."""

audit = Table(
    "audit",
    metadata,
    Column("n", _Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

permissions = Table(
    "permissions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", Double, nullable=False),
)

UNSIGNED_CLIENTS = "unsigned_clients"
"""Permission to offer images without a native signature to devices that verify no trigger."""

keysets = Table(
    "keysets",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("lines", Text, nullable=False),
    Column("base", BigInteger, nullable=False),
    Column("taken_at", Double, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("at", Double, nullable=False, index=True),
)

footings = Table(
    "footings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("since", Double, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),
    # What signs must be known in full; whoever reads the database can sign.
    Column("secret", Text, nullable=False),
    Column("old_secret", Text, nullable=False),
    Column("old_until", Double),
    Column("made_at", Double, nullable=False),
    Column("made_by", Text, nullable=False),
    # Number of the last entry of the audit log that it needs no more.
    Column("cursor", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failed_at", Double),
    Column("next_at", Double),
    Column("error", Text, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("delivered_at", Double),
)

# What the fleet ran on each day; the last count of a day stays.
censuses = Table(
    "censuses",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("version", Text, primary_key=True),
    Column("rel", BigInteger, primary_key=True, autoincrement=False),
    Column("devices", Integer, nullable=False),
)

# What was told last of things that are rows nowhere else, so that nothing is told twice after a restart.
notices = Table(
    "notices",
    metadata,
    Column("name", Text, primary_key=True),
    Column("mark", Text, nullable=False),
)
