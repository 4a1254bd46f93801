"""One run of a rehearsal: the engine's own transactions on a ledger in memory, and virtual devices, in virtual time.

Rules:
- Decisions, offers, stages, silence and the folding of facts are the daemon's code; here is only who calls it when.
- The conductor is woken as in the daemon: by changed tallies, at most once per `PACE_S`, and when time came.
- Windows are those of one time zone, and every device meets what is required of it.
- Nobody operates the rollout: it ends where a person would be asked, once every device has come to rest.
- The same scenario and number give the same run, on every machine.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from random import Random
from typing import NamedTuple, cast

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence
from orchestrator.core.model import Delivery, Device, Phase, Plan, Reason, Rollout, Urgency
from orchestrator.core.pace.ceiling import STANDARD, Ceiling
from orchestrator.core.pace.requirement import ConsentRule, Requirements
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.update import Fact, FactKind
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.recorder import SILENCE_CHUNK
from orchestrator.engine.reports.recording import record_silence
from orchestrator.engine.rollouts.conductor import CHUNK, PACE_S, note_exhausted, open_piece, take_cohort, take_step
from orchestrator.ports import DeliveryKind, Tx
from orchestrator.rehearsal.fleet import Character, Fleet, draw
from orchestrator.rehearsal.ledger import REL, Given, Ledger

ROLLOUT_ID = 1
RUNS_PER_SEED = 2**32
WRONG_COUNT, WRONG_SHARE = 100, 0.05
"""A bad build that is offered to more devices than both of these has been advanced wrongly."""

LONG_AGO = -1e9
"""When devices registered that are late for no plan: some 30 years before the run."""

_ENDS = frozenset({Phase.DONE, Phase.HALTED, Phase.INCONCLUSIVE})
_WITHOUT_CEILING = Ceiling(share=1.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is rehearsed.

    Attributes:
        plan: the plan; its target and release are not looked at, every device is in the cohort.
        fleet: the devices.
        seed: fixes all runs.
    """

    plan: Plan
    fleet: Fleet
    seed: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether the build fails on more devices than the plan tolerates."""
        return self.fleet.bad_share > self.plan.halt.tolerated


class Outcome(NamedTuple):
    """How one run ended.

    Attributes:
        phase: `done`, `halted` or `inconclusive`.
        code: why.
        stage: stage in which it ended, from 0.
        offered: devices that were ever offered the release.
        reached: devices that began the update.
        broken: devices that installed a release that fails on them.
        finish_s: time from the start to the end.
        wrong: whether a bad build was advanced wrongly.
    """

    phase: Phase
    code: str
    stage: int
    offered: int
    reached: int
    broken: int
    finish_s: float
    wrong: bool


@dataclass(slots=True)
class _Unit:
    """A device at work.

    Attributes:
        character: what it will do.
        said: how many words of its part it has said.
        turn: rises when its plans change; what was planned under an older one is void.
    """

    character: Character
    said: int = 0
    turn: int = 0

    @property
    def installed(self) -> bool:
        return FactKind.INSTALLED in self.character.part[: self.said]


class _Coming(NamedTuple):
    """Something that a device will do."""

    at: float
    order: int
    number: int
    turn: int
    kind: FactKind


def rehearse(scenario: Scenario, number: int) -> Outcome:
    """Run a scenario once.

    Args:
        scenario: what is rehearsed.
        number: which of its runs, from 0.
    """
    run = Run(scenario, number)
    run.finish()
    return run.outcome()


@cache
def registry(fleet: Fleet, stratify: str = "", groups: tuple[str, ...] = ()) -> tuple[Device, ...]:
    """Return the devices as a registry would know them, the same ones for every run; strata are of equal size.

    Args:
        fleet: the devices.
        stratify: what the plan stratifies by, "" for the model.
        groups: groups with a stage of their own; the same devices are in all of them.
    """
    models = fleet.models
    word = stratify.removeprefix("attr.") if stratify.startswith("attr.") else ""
    return tuple(
        Device(
            id=f"d{at:06}",
            model=models[at % len(models)],
            groups=groups if fleet.is_grouped(at // len(models)) else (),
            version="1.0.0",
            rel=REL - 1,
            registered_at=0.0 if fleet.is_late(at // len(models)) else LONG_AGO,
            seen_at=None,
            online=None,
            site=models[at % len(models)],
            attributes={word: models[at % len(models)]} if word else {},
        )
        for at in range(fleet.devices)
    )


def secret_of(scenario: Scenario, number: int) -> bytes:
    """Return the secret that orders the cohort of a run."""
    return cohort.secret_from_seed(scenario.seed * RUNS_PER_SEED + number)


class Run:
    """One run, from the moment at which a person has started the rollout.

    Attributes:
        now: virtual time in seconds.
        ledger: the rollout, its updates and tallies.
    """

    def __init__(self, scenario: Scenario, number: int) -> None:
        self.now = 0.0
        plan = _rehearsable(scenario.plan)
        started = Rollout(ROLLOUT_ID, plan, Phase.PREPARING, Reason("started", "rehearsed"), "rehearsal", 0.0)
        self.ledger = Ledger(started, scenario.fleet.devices, secret_of(scenario, number))
        self._tx = cast(Tx, self.ledger)
        self._scenario = scenario
        # A warrant is made for the devices that an emergency has to reach.
        self._limits = _WITHOUT_CEILING if scenario.plan.urgency is Urgency.EMERGENCY else STANDARD
        self._polls = scenario.plan.delivery is Delivery.POLL
        groups = sorted({stage.group for stage in scenario.plan.stages if stage.group})
        devices = registry(scenario.fleet, scenario.plan.stratify, tuple(groups))
        ranked = cohort.members(secret_of(scenario, number), devices, scenario.plan, self.now)
        self._waiting = sorted(ranked, key=attrgetter("rank"))
        self._chance = Random(f"rehearsal {scenario.seed} {number}")
        self._units: list[_Unit] = []
        self._coming: list[_Coming] = []
        self._order = 0
        self._wake_at: float | None = None
        self._dirty_at: float | None = 0.0
        self._decided_at = -math.inf

    def finish(self) -> None:
        """Let time pass until nothing happens any more."""
        while self.turn():
            pass

    def turn(self) -> bool:
        """Do what comes next; says whether there was anything."""
        coming = self._coming
        while coming and coming[0].turn != self._units[coming[0].number - 1].turn:
            heapq.heappop(coming)
        acts_at = coming[0].at if coming else math.inf
        silent_at = self._or_never(self.ledger.next_deadline())
        decides_at = min(self._or_never(self._dirty_at), self._or_never(self._wake_at))
        at = min(acts_at, silent_at, decides_at)
        if at == math.inf:
            return False
        self.now = max(self.now, at)
        if acts_at <= at:
            self._act(heapq.heappop(coming))
        elif silent_at <= at:
            self.judge_silence()
        else:
            self.decide()
        return True

    def say(self, number: int, kind: FactKind) -> None:
        """Let the device of an update say a word to the recorder."""
        update = self.ledger.update(number)
        done = Recorded()
        fold(self._tx, [(update, Fact(kind, update.attempt, rel=REL))], self.now, done)
        self._note(done)

    def judge_silence(self) -> None:
        """Judge the deadlines that have passed."""
        self._note(record_silence(self._tx, self.now, SILENCE_CHUNK))

    def decide(self) -> None:
        """Let the conductor step the rollout until it waits, and give out what it planned."""
        self._dirty_at, self._decided_at = None, self.now
        moved = True
        while moved:
            _, decision, moved = take_step(self._tx, ROLLOUT_ID, self.now, hearing=True, limits=self._limits)
            self._wake_at = decision.wake_at
            for effect in decision.effects:
                match effect:
                    case machine.Prepare():
                        self._take_cohort()
                    case machine.Open(count):
                        self._open(count)
        self._give_out()

    def outcome(self) -> Outcome:
        """Return how it ended."""
        rollout, ledger, scenario = self.ledger.current, self.ledger, self._scenario
        assert rollout.phase in _ENDS, f"the run came to rest while it was {rollout.phase}: {rollout.reason}"
        offered = len(ledger.offered)
        too_many = offered > max(WRONG_COUNT, WRONG_SHARE * scenario.fleet.devices)
        return Outcome(
            phase=rollout.phase,
            code=rollout.reason.code,
            stage=rollout.stage,
            offered=offered,
            reached=sum(ledger.update(number).begun for number in ledger.offered),
            broken=sum(unit.character.broken and unit.installed for unit in self._units),
            finish_s=rollout.moved_at,
            wrong=scenario.is_bad and (rollout.phase is Phase.DONE or too_many),
        )

    def _take_cohort(self) -> None:
        plan, waiting = self._scenario.plan, self._waiting
        found = len({member.stratum or member.model for member in waiting})
        strata = cohort.most_strata(plan, frozenset(self._scenario.fleet.models), found)
        groups = Counter(group for member in waiting for group in member.groups)
        take_cohort(self._tx, ROLLOUT_ID, len(waiting), strata, self.now, self._limits, groups)

    def _open(self, count: int) -> None:
        plan = self._scenario.plan
        queue = cohort.Queue(evidence.opened_by_stratum(self.ledger.tallies) if plan.stratify else None)
        queue.add(self._waiting)
        group = plan.stages[self.ledger.current.stage].group
        cut = queue.cut(count, group, late=self.ledger.current.is_in_last_stage)
        found = [member for member in self._waiting if cut.takes(member)]
        self._waiting = [member for member in self._waiting if not cut.takes(member)]
        for start in range(0, len(found), CHUNK):
            self._open_piece(found[start : start + CHUNK])
        if cut.count < count:
            note_exhausted(self._tx, self.ledger.current, queue.left(group), self.now)

    def _open_piece(self, members: list[Member]) -> None:
        open_piece(self._tx, self.ledger.current, members, self.now)
        self._units += [_Unit(draw(self._scenario.fleet, self._chance)) for _ in members]

    def _give_out(self) -> None:
        given, self.ledger.given = self.ledger.given, []
        for item in given:
            self._give(item)

    def _give(self, given: Given) -> None:
        unit = self._units[given.update.id - 1]
        if not unit.character.part:
            return  # it never connects
        wait_s = unit.character.poll_at * self._scenario.fleet.poll_s if self._polls else 0.0
        at = self.now + wait_s + unit.character.pauses_s[0]
        if given.kind is DeliveryKind.CANCEL:
            self._plan(at, given.update.id, unit.turn, FactKind.RECALLED)
        else:
            unit.said, unit.turn = 0, unit.turn + 1
            self._plan(at, given.update.id, unit.turn, unit.character.part[0])

    def _act(self, coming: _Coming) -> None:
        number, unit = coming.number, self._units[coming.number - 1]
        if coming.kind is FactKind.RECALLED:
            self._obey_recall(number, unit)
            return
        if unit.said == 0 and self._polls and number not in self.ledger.waiting:
            return  # it asks, and its trigger was withdrawn
        self.ledger.waiting.discard(number)
        unit.said += 1
        self.say(number, coming.kind)
        part = unit.character.part
        if unit.said < len(part):
            self._plan(self.now + unit.character.pauses_s[unit.said], number, unit.turn, part[unit.said])

    def _obey_recall(self, number: int, unit: _Unit) -> None:
        if unit.installed:
            self.say(number, FactKind.TOO_LATE)
        else:
            unit.turn += 1
            self.say(number, FactKind.RECALLED)

    def _plan(self, at: float, number: int, turn: int, kind: FactKind) -> None:
        self._order += 1
        heapq.heappush(self._coming, _Coming(at, self._order, number, turn, kind))

    def _note(self, done: Recorded) -> None:
        if done.rollouts and self._dirty_at is None:
            self._dirty_at = max(self.now, self._decided_at + PACE_S)

    @staticmethod
    def _or_never(at: float | None) -> float:
        return math.inf if at is None else at


def _rehearsable(plan: Plan) -> Plan:
    """Return a plan for devices that meet what is required and measure nothing, and a person who approves at once."""
    stages = tuple(replace(stage, approve=False) for stage in plan.stages)
    return replace(plan, stages=stages, require=Requirements(), consent=ConsentRule(), health=())
