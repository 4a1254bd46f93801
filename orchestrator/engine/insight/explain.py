"""Why a rollout and a device stand where they stand, and what would change that: words first, then figures.

Rules:
- Asked are the same core functions that decide, at the same moment; nothing is judged here.
- The fields are promised in docs/explain.md: more may come, none changes its meaning.
- A time at which something may change is one at which time alone can change it; None where something must happen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from orchestrator.core import rollout as machine
from orchestrator.core.judging import diversity, evidence, judgement, liars, prospect
from orchestrator.core.judging.evidence import AGAIN, EVENTS
from orchestrator.core.judging.prospect import ToHalt
from orchestrator.core.model import DAEMON, Device, Phase, Rollout, Tally, Update, UpdateState
from orchestrator.core.pace.ceiling import HELD, STANDARD, Ceiling
from orchestrator.core.reason import counted
from orchestrator.core.rollout import Decision
from orchestrator.core.trust.approval import State
from orchestrator.core.update import FAILURES, IN_FLIGHT
from orchestrator.engine import named
from orchestrator.engine.insight import obstacles, trouble, views
from orchestrator.engine.insight.views import View
from orchestrator.engine.offers import allowance
from orchestrator.engine.targeting.unsigned import exception_for
from orchestrator.ports import DeliveryKind, Event, Tx

_WORDS = frozenset({"operator_skip", "operator_advance"})
"""By which a person puts their word in the place of a stage's evidence."""
_GATES = {
    "opening": "opening",
    "offering": "offers",
    "slots_taken": "offers",
    HELD: "offers",
    "retrying": "offers",
    "deaf": "link",
    "unresolved": "resolved",
    "finishing": "resolved",
    "soaking": "soak",
    "unreached": "reached",
    "strata": "strata",
    "inconclusive": "bound",
    "passed": "bound",
    "extended": "bound",
    "evidence": "halt",
    "lost_after_reboot": "halt",
    "max_failures": "halt",
    "max_failure_rate": "halt",
}
"""Which rule decides, by the code of the standing reason; a code that is not here is its own rule."""


def explain_rollout(
    tx: Tx, name: str, now: float, *, hearing: bool, limits: Ceiling = STANDARD, faults: Sequence[str] = ()
) -> View:
    """Return why a rollout stands where it stands, what would change that, and how it came here.

    Args:
        tx: the transaction.
        name: of the rollout.
        now: present time.
        hearing: whether silence may be judged.
        limits: the blast ceiling.
        faults: what is wrong with the keys that sign triggers, nothing if one is good.

    Raises:
        NotFoundError: there is none of this name.
    """
    rollout = named.rollout(tx, name)
    tally = tx.tally(rollout.id)
    decision = allowance.decide(tx, rollout, tally, now, limits, hearing=hearing)
    decision = replace(decision, reason=trouble.standing(tx, rollout, tally, decision.reason, faults))
    refusals = trouble.refusals(tx, rollout, tally)
    events = told_once(tx.events(rollout.id))
    return {
        "name": name,
        "release": rollout.plan.release,
        "urgency": rollout.plan.urgency.value,
        **views.mended(rollout.plan),
        "phase": rollout.phase.value,
        "since": rollout.moved_at,
        "actor": rollout.actor,
        "because": decision.reason.text,
        "code": decision.reason.code,
        "next": [*trouble.summary(refusals, tally), *_what_next(rollout, tally, decision)],
        "failures": trouble.failures(tx, rollout, tally),
        "refusals": refusals,
        "wake_at": decision.wake_at,
        "gate": _gate(rollout, decision),
        "waits_for": _waits_for(rollout, tally, decision),
        "evidence": [_to_halt(item) for item in prospect.to_halt(rollout, tally)],
        "lost": _lost(rollout, tally),
        "bound": _bound(rollout, tally),
        "strata": _strata(tally),
        "diversity": _diversity(rollout, tally),
        "people": _people(tx, name, events),
        "events": [
            {"at": item.at, "phase": item.phase.value, "stage": item.stage, "code": item.code, "text": item.text}
            | {"actor": item.actor}
            for item in events
        ],
    }


def explain_device(
    tx: Tx, device_id: str, now: float, *, hearing: bool, limits: Ceiling = STANDARD, faults: Sequence[str] = ()
) -> View:
    """Return why a device has or has not each release that is being rolled out, with its history.

    Args:
        tx: the transaction.
        device_id: the device.
        now: present time.
        hearing: whether silence may be judged.
        limits: the blast ceiling.
        faults: what is wrong with the keys that sign triggers, nothing if one is good.

    Raises:
        NotFoundError: it is not registered.
    """
    device = named.device(tx, device_id)
    updates = {item.rollout_id: item for item in tx.updates_of([device_id])}
    rollouts = [item for item in tx.rollouts() if item.id in updates or item.phase not in machine.FINISHED]
    found = []
    for rollout in rollouts:
        standing = allowance.decide(tx, rollout, tx.tally(rollout.id), now, limits, hearing=hearing)
        found.append(_why(tx, device, rollout, updates.get(rollout.id), standing, now, faults))
    return {"device": views.device_line(device), "rollouts": found}


def _what_next(rollout: Rollout, tally: Tally, decision: Decision) -> list[str]:
    if rollout.phase in machine.FINISHED:
        return ["nothing: it is over"]
    lines = [f"a person may: {', '.join(machine.possible(rollout.phase))}"]
    if rollout.phase is Phase.HALTED:
        lines.append("resume needs a reason and begins a new evidence epoch with half the alpha")
    if rollout.phase in machine.JUDGED and rollout.stages:
        lines += _would_halt(prospect.to_halt(rollout, tally)[0])
    if rollout.phase is Phase.RUNNING and rollout.stages:
        lines += [*_would_pass(rollout, tally), *liars.sentences(liars.liars(rollout, tally))]
        lines += [text for text in (diversity.hopeless(rollout, tally),) if text]
    if rollout.phase is Phase.RUNNING and decision.wake_at is not None:
        until = {HELD: "there is room under the ceiling", "soaking": "the soak is over"}
        lines.append(f"it goes on by itself when {until.get(decision.reason.code, 'that time has come')}")
    return lines


def _would_halt(total: ToHalt) -> list[str]:
    if total.halts_at is None:
        return []
    known, halts_at = total.evidence, counted(total.halts_at, "failure")
    return [f"it halts at {halts_at} in the {counted(known.exposed, 'device')} exposed so far ({known.failures} now)"]


def _would_pass(rollout: Rollout, tally: Tally) -> list[str]:
    found = prospect.to_pass(rollout, tally)
    if rollout.current.waived:
        return ["its stage passes on the word of a person, whatever its bound is"]
    if found.more is None:
        return [
            f"with {counted(found.failures, 'failure')} no number of healthy devices brings its bound within the limit"
        ]
    if found.more:
        return [f"{found.more} more healthy devices bring its bound within the limit ({found.under_way} are under way)"]
    return ["its bound is within the limit as soon as no device that is under way fails"] if found.under_way else []


def _gate(rollout: Rollout, decision: Decision) -> View:
    return {
        "stage": rollout.stage,
        "stages": len(rollout.plan.stages),
        "rule": _GATES.get(decision.reason.code, decision.reason.code),
        "code": decision.reason.code,
        "text": decision.reason.text,
    }


def _waits_for(rollout: Rollout, tally: Tally, decision: Decision) -> list[View]:
    """Return everything that stands before the end of the current stage, in the order in which it is judged."""
    found = [_waited(decision.reason.code, decision.reason.text, at=decision.wake_at)]
    if rollout.phase is not Phase.RUNNING or not rollout.stages:
        return [] if rollout.phase in machine.FINISHED else found
    counts, stage = evidence.stage_counts(tally, rollout.stage), rollout.current
    slots = judgement.slots(rollout.plan, counts.confirmed)
    in_flight, needed = evidence.in_flight(tally), math.ceil(rollout.plan.resolved_share * counts.reached)
    found += [
        _waited("open", "devices taken into the stage", counts.opened, stage.target),
        _waited(
            "offers", f"devices without an offer; {in_flight} of {slots} slots are taken", evidence.pending(tally), 0
        ),
        _waited("retries", "devices that will try again", evidence.retrying(tally), 0),
        _waited("reports", "devices that gave their evidence", counts.resolved, needed),
    ]
    soak_s = judgement.soak_s(rollout)
    if soak_s and stage.resolved_at is not None:
        found.append(_waited("soak", "seconds of soak", at=stage.resolved_at + soak_s, need=soak_s))
    elif soak_s:
        found.append(_waited("soak", "seconds of soak, from when the reports are there", need=soak_s))
    passing = prospect.to_pass(rollout, tally)
    if passing.needed is None or passing.more:
        shown = None if passing.needed is None or passing.more is None else passing.needed - passing.more
        found.append(_waited("bound", "devices that show how they are", shown, passing.needed))
    if wanted := diversity.needed(rollout):
        green = sum(item.is_green for item in diversity.strata(rollout, tally))
        found.append(_waited("strata", "strata that are healthy by themselves", min(green, wanted), wanted))
    return [found[0], *(item for item in found[1:] if item["have"] is None or item["have"] != item["need"])]


def _waited(code: str, text: str, have: int | None = None, need: float | None = None, at: float | None = None) -> View:
    return {"code": code, "text": text, "have": have, "need": need, "may_change_at": at}


def _to_halt(found: ToHalt) -> View:
    return views.evidence_line(found.evidence) | {"halts_at": found.halts_at, "more": found.more}


def _lost(rollout: Rollout, tally: Tally) -> View | None:
    if not rollout.stages:
        return None
    limit = judgement.lost_limit(rollout, evidence.stage_counts(tally, rollout.stage))
    return {"k": evidence.lost(rollout, tally), "halts_at": limit}


def _bound(rollout: Rollout, tally: Tally) -> View | None:
    line = views.bound_line(rollout, tally)
    if line is None:
        return None
    found = prospect.to_pass(rollout, tally)
    counts = {"failed": found.failures, "confirmed": found.confirmed, "under_way": found.under_way}
    return line | counts | {"needed": found.needed, "more": found.more}


def _diversity(rollout: Rollout, tally: Tally) -> View | None:
    if not rollout.stages or not diversity.needed(rollout):
        return None
    found = diversity.strata(rollout, tally)
    lines = [
        {"stratum": item.name, "green": item.is_green, "healthy": item.healthy, "k": item.failures, "n": item.exposed}
        | {"allowed": item.allowed}
        for item in found
    ]
    return {"needed": diversity.needed(rollout), "green": sum(item.is_green for item in found), "strata": lines}


def _strata(tally: Tally) -> list[View]:
    found: dict[str, View] = {}
    for key, count in tally.items():
        line = found.setdefault(
            key.stratum, {"stratum": key.stratum, "opened": 0, "in_flight": 0, "confirmed": 0, "failures": 0}
        )
        line["opened"] += 0 if key.state in EVENTS else count
        line["in_flight"] += count if key.state in IN_FLIGHT else 0
        line["confirmed"] += count if key.state == UpdateState.CONFIRMED else 0
        line["failures"] += count if key.state in AGAIN or key.state in FAILURES else 0
    return [found[stratum] for stratum in sorted(found)]


def told_once(events: Sequence[Event]) -> list[Event]:
    """Return events without the moves to the next stage that only carry out the word of a person before them."""
    found = list(events[:1])
    for before, item in pairwise(events):
        same = (item.code, item.text, item.actor) == (before.code, before.text, before.actor)
        if not (item.code in _WORDS and item.phase is Phase.RUNNING and same and item.stage == before.stage + 1):
            found.append(item)
    return found


def _people(tx: Tx, name: str, events: list[Event]) -> list[View]:
    """Return what persons did to a rollout, oldest first: its moves, and what they said to proposals about it."""
    found = [
        {"at": item.at, "actor": item.actor, "did": item.code.removeprefix("operator_"), "text": _said(item)}
        for item in events
        if item.actor != DAEMON and (item.code.startswith("operator_") or item.code == "created")
    ]
    for proposal in tx.proposals_about(name):
        asked = f"asked for {proposal.matter}" + ("" if proposal.state is State.USED else f" ({proposal.state})")
        found.append({"at": proposal.made_at, "actor": proposal.proposer, "did": asked, "text": proposal.reason})
        found += [
            {
                "at": vote.at,
                "actor": vote.actor,
                "did": f"{'approved' if vote.approves else 'rejected'} {proposal.matter}",
                "text": vote.reason,
            }
            for vote in proposal.votes
        ]
    return sorted(found, key=lambda item: float(item["at"]))


def _said(event: Event) -> str:
    return "" if event.code == "created" else event.text


def _why(
    tx: Tx,
    device: Device,
    rollout: Rollout,
    update: Update | None,
    standing: Decision,
    now: float,
    faults: Sequence[str],
) -> View:
    reasons = obstacles.obstacles(tx, device, rollout, update, standing, now)
    view: View = {"rollout": rollout.plan.name, "release": rollout.plan.release, "phase": rollout.phase.value}
    view |= {"unsigned_allowed": exception_for(tx, device, rollout)}
    told = [{"code": item.code, "text": item.text, "may_change_at": item.may_change_at} for item in reasons]
    if update is None:
        return view | {"state": None, "because": reasons[0].text, "reasons": told}
    parcels, lines = tx.parcels(update.id), tx.lines(update.id)
    unsigned = trouble.unsigned(parcels, faults)
    if unsigned is not None:
        told.insert(0, {"code": unsigned.code, "text": unsigned.text, "may_change_at": None})
    return view | {
        "state": update.state.value,
        "because": obstacles.sentence(update) if unsigned is None else unsigned.text,
        "reasons": told,
        "update": views.update_line(update, rollout.plan.name),
        "deliveries": [
            {"kind": item.kind.value, "state": item.state.value, "seq": item.seq, "planned_at": item.planned_at}
            for item in parcels
        ],
        "triggered": sum(1 for item in parcels if item.kind is DeliveryKind.INSTALL and item.state.value == "sent"),
        "refusal": trouble.last_refusal(update, lines),
        "reports": [
            {"at": line.at, "kind": line.kind, "code": line.code, "text": line.text, "boot": line.boot, "n": line.n}
            for line in lines
        ],
    }
