"""What the database says of how things go, for machines that ask every few seconds.

Rules:
- What is asked costs as many rows as there are unfinished rollouts, stages, states and strata, and as many as there are
  deliveries on their way; never as many as there are devices.
- A rollout that is over is not told of any more, and of the unfinished ones at most `MOST` one by one: those first that
  somebody is woken for, so that no number of drafts hides a halt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.judging import evidence
from orchestrator.core.judging.evidence import EVENTS, Bound, Evidence
from orchestrator.core.model import Phase, Rollout, Urgency
from orchestrator.core.pace.ceiling import Ceiling, Room
from orchestrator.core.rollout import UNFINISHED
from orchestrator.engine.offers import allowance
from orchestrator.ports import Queue, Tx

MOST = 100
"""Rollouts that are told of one by one."""

_FIRST = (Phase.HALTED, Phase.INCONCLUSIVE, Phase.RUNNING, Phase.PREPARING, Phase.PAUSED, Phase.DRAFT)


@dataclass(frozen=True, slots=True)
class Course:
    """How a rollout goes.

    Attributes:
        rollout: the rollout.
        updates: its devices, by stage and state.
        evidence: what is known for the halt, in total and by stratum.
        bound: what is known for passing the stage, None before the cohort is known.
    """

    rollout: Rollout
    updates: Counter[tuple[int, str]]
    evidence: Sequence[Evidence]
    bound: Bound | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the database says.

    Attributes:
        devices: registered devices.
        phases: unfinished rollouts by phase; every such phase is there.
        courses: how they go, by phase and newest first.
        queues: deliveries on their way.
        room: what the ceiling leaves.
        in_flight: slots that are taken, by urgency; every urgency is there.
        outage: whether an outage goes on.
    """

    devices: int
    phases: Counter[Phase]
    courses: Sequence[Course]
    queues: Sequence[Queue]
    room: Room
    in_flight: Counter[Urgency]
    outage: bool


def vitals(tx: Tx, now: float, limits: Ceiling) -> Vitals:
    """Return what the database says now, under this ceiling."""
    unfinished = tx.rollouts(UNFINISHED)
    phases = Counter(dict.fromkeys(sorted(UNFINISHED), 0))
    phases.update(rollout.phase for rollout in unfinished)
    return Vitals(
        devices=tx.fleet_size(),
        phases=phases,
        courses=[_course(tx, rollout) for rollout in _told(unfinished)],
        queues=tx.queues(),
        room=allowance.room(tx, limits, now),
        in_flight=_in_flight(tx),
        outage=tx.outage() is not None,
    )


def _told(unfinished: Sequence[Rollout]) -> Sequence[Rollout]:
    return sorted(unfinished, key=lambda rollout: _FIRST.index(rollout.phase))[:MOST]


def _course(tx: Tx, rollout: Rollout) -> Course:
    tally = tx.tally(rollout.id)
    updates: Counter[tuple[int, str]] = Counter()
    for key, count in tally.items():
        if key.state not in EVENTS:
            updates[key.stage, str(key.state)] += count
    bound = evidence.stage_bound(rollout, tally) if rollout.stages else None
    return Course(rollout, updates, evidence.halt_evidence(rollout, tally), bound)


def _in_flight(tx: Tx) -> Counter[Urgency]:
    taken = Counter(dict.fromkeys(Urgency, 0))
    for rollout_id, count in tx.in_flight().items():
        found = tx.rollout(rollout_id)
        assert found is not None, "rollouts are never deleted"
        taken[found.plan.urgency] += count
    return taken
