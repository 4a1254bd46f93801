"""What holds the devices that wait for an offer: the core's judgement over what the store knows of them.

Rules:
- Whoever waits is judged in the transaction that would offer the release, in pieces; who may not have it is not looked
  at again before its time, or before it says something new.
- Push and poll are one offer, so they are one judgement; a trigger is good only while the hours of its device are open.
- Who was waited for long enough comes back by itself when what holds it will have passed, where that is known.
- Who decides and who explains ask here, and get the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.core.model import OTAD, Artifact, Device, Reason, Rollout, Update
from orchestrator.core.pace import hold
from orchestrator.core.pace.hold import HELD, Candidate, Hold, Situation
from orchestrator.core.pace.requirement import Unmet
from orchestrator.core.pace.window import Zone
from orchestrator.core.rollout import Decision, Offer
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.dialect import STRICT
from orchestrator.core.update import Fact, FactKind
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.rollouts.releases import by_model, release_of, signing_rule, ways
from orchestrator.plans import zones
from orchestrator.ports import Tx

_ALL = 2**31
PIECE = 2000
"""At most so many devices are looked at in one transaction."""

_NOTHING_SAID = Situation()


def decide(tx: Tx, decision: Decision, now: float) -> Decision:
    """Return the decision without its offers where all devices that wait are held, and when the first is looked at."""
    found = tx.next_look(decision.rollout.id)
    if found is None or found[0] <= now:
        return decision
    look_at, code = found
    others = tuple(effect for effect in decision.effects if not isinstance(effect, Offer))
    text = f"all devices that wait for an offer are held; the one that is looked at first is held by {code}"
    return replace(decision, effects=others, reason=Reason(HELD, text), wake_at=look_at)


def free(tx: Tx, rollout: Rollout, wanted: int, now: float) -> tuple[list[Update], int]:
    """Find devices that may be offered the release now; the others that were looked at are held.

    Returns:
        Up to `wanted` of them in cohort order, and how many devices were looked at.
    """
    tx.release_holds(rollout.id, now, PIECE)
    found: list[Update] = []
    looked, piece = 0, wanted
    while len(found) < wanted and looked < PIECE:
        size = min(piece, PIECE - looked)
        waiting = tx.pending(rollout.id, len(found) + size)[len(found) :]
        held = judge(tx, rollout, waiting, now)
        found += [item for item in waiting if item.id not in held]
        _keep(tx, [(item, held[item.id]) for item in waiting if item.id in held], now)
        looked += len(waiting)
        piece *= 2
        if len(waiting) < size:
            break
    return found[:wanted], looked


def closes_at(tx: Tx, rollout: Rollout, device_ids: Sequence[str], now: float) -> dict[str, float]:
    """Return until when devices may begin, now where they may not; those for which no end is in sight are left out."""
    if not (rollout.plan.windows.windows or rollout.plan.windows.freezes):
        return {}
    places = {device.id: device.time_zone for device in tx.devices_named(device_ids)}
    closing = {name: hold.closes_at(rollout.plan, _zone(rollout, name, now), now) for name in set(places.values())}
    ends = {device_id: closing[name] for device_id, name in places.items()}
    return {device_id: at for device_id, at in ends.items() if at is not None}


def look_anew(tx: Tx, rollout: Rollout) -> None:
    """Let all held devices be looked at again: the plan is another one."""
    tx.release_holds(rollout.id, math.inf, _ALL)


def shut(tx: Tx, rollout: Rollout, updates: Sequence[Update], now: float) -> set[str]:
    """Return those devices of these updates that may not begin at this hour."""
    return {name for name, at in closes_at(tx, rollout, [item.device_id for item in updates], now).items() if at <= now}


def reasons(tx: Tx, rollout: Rollout, update: Update, now: float) -> tuple[Unmet, ...]:
    """Return all that holds a device without an offer now, each with the time when it may change."""
    found = judge(tx, rollout, [update], now).get(update.id)
    return () if found is None else found.reasons


def call_back(tx: Tx, unreached: Sequence[tuple[Update, Hold]]) -> None:
    """Let devices that nobody waits for come back when nothing holds them any more, where that time is known."""
    known = [(item, found.passes_at) for item, found in unreached]
    tx.save_updates([item._replace(deadline_at=at) for item, at in known if at != item.deadline_at], ())


def judge(tx: Tx, rollout: Rollout, waiting: Sequence[Update], now: float) -> dict[int, Hold]:
    """Return what holds each of these devices, by the number of its update; those that nothing holds are left out."""
    if not waiting:
        return {}
    names = [item.device_id for item in waiting]
    known = {device.id: device for device in tx.devices_named(names)}
    said = tx.situations(names)
    release = release_of(tx, rollout)
    brought, stones = by_model(tx, release), ways(tx, release)
    key = tx.secret(rollout.id)
    shut: dict[str, Unmet | None] = {}
    for name in {_zone_name(known.get(item.device_id)) for item in waiting}:
        shut[name] = hold.shut(rollout.plan, _zone(rollout, name, now), now)
    foreign = any(device.dialect != OTAD for device in known.values())
    signing = signing_rule(tx, brought) if foreign else STRICT
    unfit = {
        name: cohort.too_low(device, stones, moves=rollout.moves) or signing.left_out(device)
        for name, device in known.items()
    }
    judged = (
        (item.id, hold.judge(rollout.plan, key, _candidate(item, known, said, brought, unfit, shut), now))
        for item in waiting
    )
    return {update_id: found for update_id, found in judged if found is not None}


def _candidate(
    update: Update,
    known: Mapping[str, Device],
    said: Mapping[str, Situation],
    brought: Mapping[str, Artifact],
    unfit: Mapping[str, Reason | None],
    shut: Mapping[str, Unmet | None],
) -> Candidate:
    device = known.get(update.device_id)
    artifact = None if device is None else brought.get(device.model)
    return Candidate(
        device_id=update.device_id,
        attempt=update.attempt,
        since=update.state_at,
        rel=0 if device is None else device.rel,
        shut=shut[_zone_name(device)],
        situation=said.get(update.device_id, _NOTHING_SAID),
        size_bytes=0 if artifact is None else artifact.size_bytes,
        unfit=unfit.get(update.device_id),
    )


def _zone_name(device: Device | None) -> str:
    return "" if device is None else device.time_zone


def _zone(rollout: Rollout, name: str, now: float) -> Zone:
    """Return a wall clock; a zone that is not known, or that the database has lost, is that of the plan."""
    return zones.zone(name if name and zones.is_zone(name) else rollout.plan.windows.fallback, now)


def _keep(tx: Tx, held: Sequence[tuple[Update, Hold]], now: float) -> None:
    unreached = [(item, found) for item, found in held if found.unreached]
    facts = [(item, Fact(FactKind.UNANSWERED, code=found.code)) for item, found in unreached]
    changed = fold(tx, facts, now, Recorded())
    call_back(tx, [(changed[item.id], found) for item, found in unreached])
    tx.hold([(item, found) for item, found in held if not found.unreached])
