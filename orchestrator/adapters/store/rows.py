"""Rows to core data and back.

Rules:
- One function per direction and noun; nothing else knows column names.
- Lists and nested data are JSON that we wrote ourselves; what does not decode is a damaged database.
- Decoders are made here, while one thread imports us. msgspec publishes what it knows of a dataclass before it is
  complete, so that two threads which meet a type for the first time together crash the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row

from orchestrator.core.edit import Change
from orchestrator.core.model import (
    Artifact,
    Device,
    Facts,
    Phase,
    Plan,
    Reason,
    Release,
    Remark,
    Rollout,
    Stage,
    Update,
    UpdateState,
)
from orchestrator.core.pace.hold import Situation
from orchestrator.ports import DeliveryKind, DeliveryState, Parcel, PlanVersion

_NAMES = msgspec.json.Decoder(tuple[str, ...])
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])
_FACTS = msgspec.json.Decoder(Facts)
_SITUATION = msgspec.json.Decoder(Situation)
_RELS = msgspec.json.Decoder(tuple[int, ...])
_REMARKS = msgspec.json.Decoder(tuple[Remark, ...])
_PLAN = msgspec.json.Decoder(Plan)
_CHANGES = msgspec.json.Decoder(tuple[Change, ...])
_STAGES = msgspec.json.Decoder(tuple[Stage, ...])
_STATES = {state.value: state for state in UpdateState}


def to_json(value: object) -> str:
    """Return compact JSON of core data."""
    return msgspec.json.encode(value).decode()


def names(text: str) -> tuple[str, ...]:
    """Return a list of names as a column holds it."""
    return _NAMES.decode(text)


def device(row: Row[Any]) -> Device:
    """Return the device of a row of `devices`."""
    return Device(
        id=row.id,
        model=row.model,
        groups=_NAMES.decode(row.groups),
        version=row.version,
        rel=row.rel,
        registered_at=row.registered_at,
        seen_at=row.seen_at,
        online=row.online,
        revision=row.revision,
        site=row.site,
        time_zone=row.time_zone,
        tags=_NAMES.decode(row.tags),
        attributes=_ATTRIBUTES.decode(row.attributes),
        facts_at=row.facts_at,
        quarantine=row.quarantine,
        quarantined_at=row.quarantined_at,
        endpoints=row.endpoints,
        dialect=row.dialect,
        enforces=_NAMES.decode(row.enforces),
    )


def device_values(item: Device, token_hash: str) -> dict[str, object]:
    """Return the columns of a device."""
    return {
        "id": item.id,
        "model": item.model,
        "version": item.version,
        "rel": item.rel,
        "registered_at": item.registered_at,
        "seen_at": item.seen_at,
        "online": item.online,
        "token_hash": token_hash or None,
        "endpoints": item.endpoints,
        **facts_values(item.facts),
        "facts_at": item.facts_at,
    }


def facts_values(facts: Facts) -> dict[str, object]:
    """Return the columns of what operators say of a device."""
    return {
        "groups": to_json(facts.groups),
        "revision": facts.revision,
        "site": facts.site,
        "time_zone": facts.time_zone,
        "tags": to_json(facts.tags),
        "attributes": to_json(facts.attributes),
        "dialect": facts.dialect,
        "enforces": to_json(facts.enforces),
    }


def facts(text: str) -> Facts:
    """Return the facts of a row of `past_facts`."""
    return _FACTS.decode(text)


def situation(text: str) -> Situation:
    """Return what a device said of itself, of its row of `devices`."""
    return _SITUATION.decode(text)


def artifact(row: Row[Any]) -> Artifact:
    """Return the artifact of a row of `artifacts`."""
    return Artifact(
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        name=row.name,
        version=row.version,
        rel=row.rel,
        sec=row.sec,
        component=row.component,
        hardware=_NAMES.decode(row.hardware),
        format=row.format,
        min_from=row.min_from,
        statement=row.statement,
        uri=row.uri,
        source_version=row.source_version,
        leaves=_RELS.decode(row.leaves),
        signature=row.signature,
        sha1=row.sha1,
        md5=row.md5,
        recognised=row.recognised,
        remarks=_REMARKS.decode(row.remarks),
    )


def artifact_values(item: Artifact, now: float) -> dict[str, object]:
    """Return the columns of an artifact."""
    values = {name: getattr(item, name) for name in Artifact.__dataclass_fields__}
    lists = {"hardware": to_json(item.hardware), "leaves": to_json(item.leaves), "remarks": to_json(item.remarks)}
    return values | lists | {"imported_at": now}


def release(row: Row[Any], hashes: tuple[str, ...]) -> Release:
    """Return the release of a row of `releases`."""
    return Release(row.name, row.version, row.rel, hashes, row.created_at, row.moves)


def rollout(row: Row[Any]) -> Rollout:
    """Return the rollout of a row of `rollouts`, and of whether its release moves devices."""
    return Rollout(
        id=row.id,
        plan=_PLAN.decode(row.plan),
        phase=Phase(row.phase),
        reason=Reason(row.reason_code, row.reason_text),
        actor=row.actor,
        moved_at=row.moved_at,
        version=row.version,
        stage=row.stage,
        stages=_STAGES.decode(row.stages),
        cohort_size=row.cohort_size,
        cohort_at=row.cohort_at,
        strata=row.strata,
        epoch=row.epoch,
        plan_version=row.plan_version,
        moves=row.moves,
    )


def rollout_values(item: Rollout) -> dict[str, object]:
    """Return the columns of a rollout, without its number and its secret."""
    return {
        "name": item.plan.name,
        "release": item.plan.release,
        "plan": to_json(item.plan),
        "phase": item.phase.value,
        "reason_code": item.reason.code,
        "reason_text": item.reason.text,
        "actor": item.actor,
        "moved_at": item.moved_at,
        "version": item.version,
        "stage": item.stage,
        "stages": to_json(item.stages),
        "cohort_size": item.cohort_size,
        "cohort_at": item.cohort_at,
        "strata": item.strata,
        "epoch": item.epoch,
        "plan_version": item.plan_version,
    }


def plan_version(row: Row[Any]) -> PlanVersion:
    """Return the version of a plan of a row of `plan_versions`."""
    plan, changes = _PLAN.decode(row.plan), _CHANGES.decode(row.changes)
    return PlanVersion(row.version, plan, changes, row.actor, row.reason, row.at)


def plan_version_values(rollout_id: int, item: PlanVersion) -> dict[str, object]:
    """Return the columns of a version of the plan of a rollout."""
    return {
        "rollout_id": rollout_id,
        "version": item.version,
        "plan": to_json(item.plan),
        "changes": to_json(item.changes),
        "actor": item.actor,
        "reason": item.reason,
        "at": item.at,
    }


UPDATE_COLUMNS = (
    "id",
    "rollout_id",
    "device_id",
    "stage",
    "stratum",
    "rel",
    "state",
    "state_at",
    "epoch",
    "attempt",
    "begun",
    "deadline_at",
    "progress",
    "code",
    "relapsed_stage",
    "relapsed_epoch",
    "failed_epoch",
)
"""Columns of `updates` in the order of the fields of `Update`."""


_STATE_AT = UPDATE_COLUMNS.index("state")
_BEGUN_AT = UPDATE_COLUMNS.index("begun")


def update(row: Sequence[Any]) -> Update:
    """Return the update of a row selected as `UPDATE_COLUMNS`."""
    values = list(row)
    values[_STATE_AT] = _STATES[values[_STATE_AT]]
    values[_BEGUN_AT] = bool(values[_BEGUN_AT])
    return Update(*values)


UPDATE_CHANGES = (
    "state",
    "state_at",
    "epoch",
    "attempt",
    "begun",
    "deadline_at",
    "progress",
    "code",
    "relapsed_stage",
    "relapsed_epoch",
    "failed_epoch",
)
"""Columns of `updates` that can change."""


def update_values(item: Update) -> tuple[object, ...]:
    """Return `UPDATE_CHANGES` of an update, and its number."""
    return (
        item.state.value,
        item.state_at,
        item.epoch,
        item.attempt,
        item.begun,
        item.deadline_at,
        item.progress,
        item.code,
        item.relapsed_stage,
        item.relapsed_epoch,
        item.failed_epoch,
        item.id,
    )


def parcel(row: Row[Any]) -> Parcel:
    """Return the delivery of a row of `deliveries`."""
    return Parcel(
        id=row.id,
        kind=DeliveryKind(row.kind),
        state=DeliveryState(row.state),
        update_id=row.update_id,
        attempt=row.attempt,
        device_id=row.device_id,
        model=row.model,
        rollout_id=row.rollout_id,
        rollout_version=row.rollout_version,
        push=row.push,
        planned_at=row.planned_at,
        expires_at=row.expires_at,
        seq=row.seq,
        token=row.token,
        token_hash=row.token_hash,
        stage=row.stage,
    )
