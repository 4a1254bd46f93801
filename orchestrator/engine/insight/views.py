"""The read side: what people and machines are shown. No decisions; why it is so is told in `explain`.

Rules:
- A view is plain data for JSON: words, numbers, lists; times are seconds since the epoch.
- Why something stands where it stands is asked from the same core functions that decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.core.judging import evidence
from orchestrator.core.judging.evidence import AGAIN, EVENTS
from orchestrator.core.model import (
    Artifact,
    Device,
    Plan,
    Release,
    Rollout,
    Tally,
    Update,
    UpdateState,
)
from orchestrator.core.pace.ceiling import STANDARD, Ceiling
from orchestrator.core.update import FAILURES
from orchestrator.engine import named
from orchestrator.engine.insight import trouble
from orchestrator.engine.offers import allowance
from orchestrator.ports import Tx

View = dict[str, Any]


def rollout_view(
    tx: Tx, name: str, now: float, *, hearing: bool, limits: Ceiling = STANDARD, faults: Sequence[str] = ()
) -> View:
    """Return a rollout with its stages, evidence and standing reason.

    Raises:
        NotFoundError: there is none of this name.
    """
    rollout = named.rollout(tx, name)
    tally = tx.tally(rollout.id)
    decision = allowance.decide(tx, rollout, tally, now, limits, hearing=hearing)
    reason = trouble.standing(tx, rollout, tally, decision.reason, faults)
    return {
        "id": rollout.id,
        "name": rollout.plan.name,
        "release": rollout.plan.release,
        "phase": rollout.phase.value,
        "reason": {"code": rollout.reason.code, "text": rollout.reason.text},
        "actor": rollout.actor,
        "moved_at": rollout.moved_at,
        "standing": {"code": reason.code, "text": reason.text, "wake_at": decision.wake_at},
        "stage": rollout.stage,
        "cohort_size": rollout.cohort_size,
        "epoch": rollout.epoch,
        "delivery": rollout.plan.delivery.value,
        "urgency": rollout.plan.urgency.value,
        **mended(rollout.plan),
        "in_flight": evidence.in_flight(tally),
        "in_flight_limit": rollout.plan.in_flight,
        "reached": reached(tally),
        "states": dict(sorted(_states(tally).items())),
        "stages": [_stage(rollout, tally, index) for index in range(len(rollout.plan.stages))],
        "evidence": [evidence_line(item) for item in evidence.halt_evidence(rollout, tally)],
        "bound": bound_line(rollout, tally),
    }


def rollout_line(rollout: Rollout, tally: Tally) -> View:
    """Return one line of the list of rollouts."""
    states = _states(tally)
    return {
        "id": rollout.id,
        "name": rollout.plan.name,
        "release": rollout.plan.release,
        "phase": rollout.phase.value,
        "stage": rollout.stage,
        "stages": len(rollout.plan.stages),
        "cohort_size": rollout.cohort_size,
        "confirmed": states[UpdateState.CONFIRMED],
        "failures": sum(states[state] for state in FAILURES | AGAIN),
        "in_flight": evidence.in_flight(tally),
        "reason": rollout.reason.text,
        "urgency": rollout.plan.urgency.value,
        **mended(rollout.plan),
    }


def mended(plan: Plan) -> View:
    """Return what a plan mends."""
    return {"severity": plan.severity.value, "advisories": list(plan.advisories), "fixes_below": plan.fixes_below}


def device_view(tx: Tx, device_id: str) -> View:
    """Return a device with its updates.

    Raises:
        NotFoundError: it is not registered.
    """
    device = named.device(tx, device_id)
    names = {rollout.id: rollout.plan.name for rollout in tx.rollouts()}
    return device_line(device) | {
        "updates": [update_line(item, names[item.rollout_id]) for item in tx.updates_of([device_id])],
    }


def device_line(device: Device) -> View:
    """Return one line of the list of devices."""
    return {
        "id": device.id,
        "model": device.model,
        "groups": list(device.groups),
        "version": device.version,
        "rel": device.rel,
        "online": device.online,
        "revision": device.revision,
        "site": device.site,
        "time_zone": device.time_zone,
        "tags": list(device.tags),
        "attributes": dict(device.attributes),
        "facts_at": device.facts_at,
        "quarantine": device.quarantine,
        "quarantined_at": device.quarantined_at,
        "endpoints": device.endpoints,
        "dialect": device.dialect,
        "enforces": list(device.enforces),
        "registered_at": device.registered_at,
        "seen_at": device.seen_at,
    }


def artifact_line(artifact: Artifact) -> View:
    """Return one line of the list of artifacts."""
    return {
        "sha256": artifact.sha256,
        "name": artifact.name,
        "version": artifact.version,
        "rel": artifact.rel,
        "hardware": list(artifact.hardware),
        "component": artifact.component,
        "size_bytes": artifact.size_bytes,
        "uri": artifact.uri,
        "source_version": artifact.source_version,
        "format": artifact.format,
        "recognised": artifact.recognised,
        "signature": artifact.signature,
        "warnings": [{"code": item.code, "text": item.text, "remedy": item.remedy} for item in artifact.remarks],
    }


def release_line(release: Release) -> View:
    """Return one line of the list of releases."""
    return {
        "name": release.name,
        "version": release.version,
        "rel": release.rel,
        "artifacts": list(release.artifacts),
        "moves": release.moves,
        "created_at": release.created_at,
    }


def reached(tally: Tally) -> int:
    """Return how many devices were ever exposed to the release: all but those that never began."""
    unexposed = {UpdateState.PENDING, UpdateState.UNREACHED, UpdateState.SUPERSEDED, *EVENTS}
    return sum(count for key, count in tally.items() if key.state not in unexposed)


def _states(tally: Tally) -> Counter[str]:
    states: Counter[str] = Counter()
    for key, count in tally.items():
        states[str(key.state)] += count
    return states


def _stage(rollout: Rollout, tally: Tally, index: int) -> View:
    view: View = {"index": index, "phase": "waiting", "base": None, "target": None}
    if index < len(rollout.stages):
        stage = rollout.stages[index]
        phase = "passed" if stage.passed_at else "open" if index == rollout.stage else "waiting"
        view |= {"base": stage.base, "target": stage.target, "phase": phase, "passed_at": stage.passed_at}
    counts = evidence.stage_counts(tally, index)
    return view | {
        "opened": counts.opened,
        "in_flight": counts.in_flight,
        "confirmed": counts.confirmed,
        "failures": counts.failures,
        "unreached": counts.unreached,
    }


def evidence_line(item: evidence.Evidence) -> View:
    """Return what is known for the halt."""
    return {
        "stratum": item.stratum or "all",
        "k": item.failures,
        "n": item.exposed,
        "e": item.e_value,
        "threshold": item.threshold,
    }


def bound_line(rollout: Rollout, tally: Tally) -> View | None:
    """Return what is known for passing the current stage, None before the cohort is known."""
    if not rollout.stages:
        return None
    bound = evidence.stage_bound(rollout, tally)
    return {"k": bound.failures, "n": bound.exposed, "upper": bound.upper, "limit": bound.limit}


def update_line(item: Update, rollout: str) -> View:
    """Return an update of the rollout of this name."""
    return {
        "rollout": rollout,
        "state": item.state.value,
        "state_at": item.state_at,
        "stage": item.stage,
        "attempt": item.attempt,
        "progress": item.progress,
        "code": item.code,
        "deadline_at": item.deadline_at,
    }
