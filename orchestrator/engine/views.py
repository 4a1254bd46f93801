"""The read side: what people and machines are shown. No decisions.

Rules:
- A view is plain data for JSON: words, numbers, lists; times are seconds since the epoch.
- Why something stands where it stands is asked from the same core functions that decide.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from orchestrator.core import evidence, gate
from orchestrator.core import rollout as machine
from orchestrator.core.ceiling import HELD, STANDARD, Ceiling
from orchestrator.core.model import RELAPSED, Artifact, Device, Phase, Release, Rollout, Tally, Update, UpdateState
from orchestrator.core.update import FAILURES
from orchestrator.engine import allowance
from orchestrator.engine.releases import by_model, release_of
from orchestrator.errors import NotFoundError
from orchestrator.ports import DeliveryKind, Tx

View = dict[str, Any]


def rollout_view(tx: Tx, name: str, now: float, *, hearing: bool, limits: Ceiling = STANDARD) -> View:
    """Return a rollout with its stages, evidence and standing reason.

    Raises:
        NotFoundError: there is none of this name.
    """
    rollout = _rollout(tx, name)
    tally = tx.tally(rollout.id)
    decision = allowance.decide(tx, rollout, tally, now, limits, hearing=hearing)
    return {
        "id": rollout.id,
        "name": rollout.plan.name,
        "release": rollout.plan.release,
        "phase": rollout.phase.value,
        "reason": {"code": rollout.reason.code, "text": rollout.reason.text},
        "actor": rollout.actor,
        "moved_at": rollout.moved_at,
        "standing": {"code": decision.reason.code, "text": decision.reason.text, "wake_at": decision.wake_at},
        "stage": rollout.stage,
        "cohort_size": rollout.cohort_size,
        "epoch": rollout.epoch,
        "delivery": rollout.plan.delivery.value,
        "urgency": rollout.plan.urgency.value,
        "in_flight": evidence.in_flight(tally),
        "in_flight_limit": rollout.plan.in_flight,
        "reached": reached(tally),
        "states": dict(sorted(_states(tally).items())),
        "stages": [_stage(rollout, tally, index) for index in range(len(rollout.plan.stages))],
        "evidence": [_evidence(item) for item in evidence.halt_evidence(rollout, tally)],
        "bound": _bound(rollout, tally),
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
        "failures": sum(states[state] for state in FAILURES) + states[RELAPSED],
        "in_flight": evidence.in_flight(tally),
        "reason": rollout.reason.text,
    }


def explain_rollout(tx: Tx, name: str, now: float, *, hearing: bool, limits: Ceiling = STANDARD) -> View:
    """Return why a rollout stands where it stands, what would change that, and how it came here."""
    rollout = _rollout(tx, name)
    tally = tx.tally(rollout.id)
    decision = allowance.decide(tx, rollout, tally, now, limits, hearing=hearing)
    return {
        "name": name,
        "phase": rollout.phase.value,
        "because": decision.reason.text,
        "code": decision.reason.code,
        "next": _what_next(rollout, tally, decision),
        "wake_at": decision.wake_at,
        "evidence": [_evidence(item) for item in evidence.halt_evidence(rollout, tally)],
        "bound": _bound(rollout, tally),
        "events": [
            {"at": item.at, "phase": item.phase.value, "stage": item.stage, "code": item.code, "text": item.text}
            | {"actor": item.actor}
            for item in tx.events(rollout.id)
        ],
    }


def device_view(tx: Tx, device_id: str) -> View:
    """Return a device with its updates.

    Raises:
        NotFoundError: it is not registered.
    """
    device = _device(tx, device_id)
    names = {rollout.id: rollout.plan.name for rollout in tx.rollouts()}
    return device_line(device) | {
        "updates": [_update(item, names[item.rollout_id]) for item in tx.updates_of([device_id])],
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
        "registered_at": device.registered_at,
        "seen_at": device.seen_at,
    }


def explain_device(tx: Tx, device_id: str) -> View:
    """Return why a device has or has not each release that is being rolled out, with its history."""
    device = _device(tx, device_id)
    updates = {item.rollout_id: item for item in tx.updates_of([device_id])}
    rollouts = [item for item in tx.rollouts() if item.id in updates or item.phase not in machine.FINISHED]
    return {
        "device": device_line(device),
        "rollouts": [_why(tx, device, rollout, updates.get(rollout.id)) for rollout in rollouts],
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
    }


def release_line(release: Release) -> View:
    """Return one line of the list of releases."""
    return {
        "name": release.name,
        "version": release.version,
        "rel": release.rel,
        "artifacts": list(release.artifacts),
        "created_at": release.created_at,
    }


def reached(tally: Tally) -> int:
    """Return how many devices were ever exposed to the release: all but those that never began."""
    unexposed = {UpdateState.PENDING, UpdateState.UNREACHED, UpdateState.SUPERSEDED, RELAPSED}
    return sum(count for key, count in tally.items() if key.state not in unexposed)


def _rollout(tx: Tx, name: str) -> Rollout:
    rollout = tx.rollout_named(name)
    if rollout is None:
        raise NotFoundError(f"there is no rollout named {name[:80]!r}")
    return rollout


def _device(tx: Tx, device_id: str) -> Device:
    device = tx.device(device_id)
    if device is None:
        raise NotFoundError(f"there is no device {device_id[:80]!r}")
    return device


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


def _evidence(item: evidence.Evidence) -> View:
    return {
        "stratum": item.stratum or "all",
        "k": item.failures,
        "n": item.exposed,
        "e": item.e_value,
        "threshold": item.threshold,
    }


def _bound(rollout: Rollout, tally: Tally) -> View | None:
    if not rollout.stages:
        return None
    bound = evidence.stage_bound(rollout, tally)
    return {"k": bound.failures, "n": bound.exposed, "upper": bound.upper, "limit": bound.limit}


def _what_next(rollout: Rollout, tally: Tally, decision: machine.Decision) -> list[str]:
    if rollout.phase in machine.FINISHED:
        return ["nothing: it is over"]
    commands = ", ".join(machine.TABLE[rollout.phase])
    lines = [f"a person may: {commands}"]
    if rollout.phase is Phase.HALTED:
        lines.append("resume needs a reason and begins a new evidence epoch with half the alpha")
    if rollout.phase is not Phase.RUNNING or not rollout.stages:
        return lines
    total = evidence.halt_evidence(rollout, tally)[0]
    least = gate.least_failures_to_halt(max(total.exposed, 1), rollout.plan.halt.tolerated, total.threshold)
    if least is not None:
        lines.append(
            f"it halts at {least} failures in the {total.exposed} devices exposed so far ({total.failures} now)"
        )
    if decision.wake_at is not None:
        until = "there is room under the ceiling" if decision.reason.code == HELD else "the soak is over"
        lines.append(f"it goes on by itself when {until}")
    return lines


def _update(item: Update, rollout: str) -> View:
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


def _why(tx: Tx, device: Device, rollout: Rollout, update: Update | None) -> View:
    view: View = {"rollout": rollout.plan.name, "release": rollout.plan.release, "phase": rollout.phase.value}
    if update is None:
        return view | {"state": None, "because": _why_not(tx, device, rollout)}
    parcels = tx.parcels(update.id)
    return view | {
        "state": update.state.value,
        "because": _STATE_TEXT[update.state].format(code=update.code or "no reason given"),
        "update": _update(update, rollout.plan.name),
        "deliveries": [
            {"kind": item.kind.value, "state": item.state.value, "seq": item.seq, "planned_at": item.planned_at}
            for item in parcels
        ],
        "triggered": sum(1 for item in parcels if item.kind is DeliveryKind.INSTALL and item.state.value == "sent"),
        "reports": [
            {"at": line.at, "kind": line.kind, "code": line.code, "text": line.text, "boot": line.boot, "n": line.n}
            for line in tx.lines(update.id)
        ],
    }


def _why_not(tx: Tx, device: Device, rollout: Rollout) -> str:
    release = release_of(tx, rollout)
    if device.rel >= release.rel:
        return f"it runs release counter {device.rel} already; the release has {release.rel}"
    if device.model not in by_model(tx, release):
        return f"the release has no artifact for {device.model}"
    if rollout.plan.models and device.model not in rollout.plan.models:
        return f"the plan takes {', '.join(rollout.plan.models)} only"
    if rollout.plan.groups and set(rollout.plan.groups).isdisjoint(device.groups):
        return f"it is in none of the groups {', '.join(rollout.plan.groups)}"
    if rollout.phase is Phase.DRAFT:
        return "the rollout is not started"
    if rollout.cohort_at is not None and device.registered_at > rollout.cohort_at:
        return "it was registered after the cohort was fixed"
    return f"its turn has not come: stage {rollout.stage + 1} of {len(rollout.plan.stages)} is open"


_STATE_TEXT = {
    UpdateState.PENDING: "its stage is open; it waits for an in-flight slot or for the rollout to run",
    UpdateState.OFFERED: "it was offered the release and has not answered yet",
    UpdateState.UNREACHED: "it did not answer before the accept deadline; it gets another chance when it says hello",
    UpdateState.REFUSED: "it refused the offer: {code}",
    UpdateState.ACCEPTED: "it is downloading",
    UpdateState.DOWNLOADED: "it is installing",
    UpdateState.RECALLING: "it is being recalled and has not answered yet",
    UpdateState.RECALLED: "it was recalled before it installed anything",
    UpdateState.TOO_LATE: "it was recalled too late and is installing",
    UpdateState.INSTALLED: "it is rebooting into the release",
    UpdateState.RUNNING: "it runs the release and tests itself",
    UpdateState.CONFIRMED: "it runs the release and is healthy",
    UpdateState.EXPIRED: "it began and then fell silent; silence counts as failure",
    UpdateState.LOST: "it fell silent after the reboot; silence counts as failure",
    UpdateState.FAILED: "it failed: {code}",
    UpdateState.ROLLED_BACK: "it went back to its old release: {code}",
    UpdateState.SUPERSEDED: "a newer rollout took this device over",
}
