"""The engine in memory: carries out decisions on a handful of devices and loses what it is told to lose.

Rules:
- Effects are carried out as the engine does, in order and at once; nothing is decided here.
- Tallies are kept as sums of changes; `recount` counts them anew.
- A promise that must hold at the moment of an effect is asserted in that effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.core import rollout as machine
from orchestrator.core import update
from orchestrator.core.judging import evidence, judgement
from orchestrator.core.model import Phase, Plan, Rollout, TallyKey, Update, UpdateState
from orchestrator.core.rollout import Command, Decision
from orchestrator.core.targeting import cohort
from orchestrator.core.update import Context, Fact, FactKind, Ignored
from tests.support.builders import make_device, make_draft

S, F = UpdateState, FactKind
RECALLABLE = (S.OFFERED, S.ACCEPTED, S.DOWNLOADED)
ENOUGH_ROUNDS = 1500
_BEFORE_REBOOT = (F.ACCEPTED, F.DOWNLOADED, F.INSTALLED)

GOOD = (*_BEFORE_REBOOT, F.RUNNING, F.CONFIRMED)
ROLLS_BACK = (*_BEFORE_REBOOT, F.ROLLED_BACK)
RELAPSES = (*GOOD, F.FAILED)
DIES = _BEFORE_REBOOT
HANGS = (F.ACCEPTED,)
REFUSES = (F.REFUSED,)
ABSENT = ()
Behaviour = tuple[FactKind, ...]


@dataclass
class Device:
    """A device that plays a fixed part.

    Attributes:
        part: what it says about one attempt, in order.
        said: how much of it was said.
        holds: whether it works on the attempt; a recalled device does not.
    """

    part: Behaviour
    said: int = 0
    holds: bool = False

    def trigger(self) -> None:
        """Begin, or begin again after a recall; a device that is at it already goes on."""
        if not self.holds:
            self.holds, self.said = True, 0

    def recall(self) -> FactKind | None:
        """Stop if nothing was installed."""
        if not self.part:
            return None
        if F.INSTALLED in self.part[: self.said]:
            return F.TOO_LATE
        self.holds = False
        return F.RECALLED

    def act(self) -> FactKind | None:
        """Say the next thing, if there is one."""
        if not self.holds or self.said == len(self.part):
            return None
        self.said += 1
        return self.part[self.said - 1]


@dataclass
class ToyStore:
    """One rollout, its updates and tallies, what is queued for devices and what is under way from them."""

    plan: Plan
    parts: Sequence[Behaviour]
    models: Sequence[str] = ("m1",)
    secret: bytes = b"secret"
    now: float = 0.0
    wake_at: float | None = None
    offers: int = 0
    updates: dict[str, Update] = field(default_factory=dict)
    tally: Counter[TallyKey] = field(default_factory=Counter)
    queued: list[str] = field(default_factory=list)
    mail: list[tuple[str, Fact]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Register the devices."""
        registry = [make_device(f"d{at}", self.models[at % len(self.models)]) for at in range(len(self.parts))]
        self.members = sorted(cohort.members(self.secret, registry))
        self.devices = {device.id: Device(part) for device, part in zip(registry, self.parts, strict=True)}
        self.rollout: Rollout = make_draft(self.plan)

    def operate(self, command: Command) -> None:
        """Carry out a command of a person."""
        self._carry_out(machine.operate(self.rollout, self.tally, command, actor="ann", reason="because", now=self.now))

    def step(self, *, hearing: bool = True) -> bool:
        """Let evidence and time decide; says whether anything came of it."""
        before = self.rollout
        decision = judgement.step(before, self.tally, self.now, hearing=hearing)
        self.wake_at = decision.wake_at
        self.reasons.append(decision.reason.code)
        self._carry_out(decision)
        return bool(decision.effects) or self.rollout is not before

    def claim(self, count: int) -> int:
        """Send queued triggers; says how many."""
        sent, self.queued = self.queued[:count], self.queued[count:]
        for device_id in sent:
            self.devices[device_id].trigger()
        return len(sent)

    def act(self, device_id: str) -> bool:
        """Let a device say its next thing; it is under way until delivered."""
        kind = self.devices[device_id].act()
        if kind is not None:
            self.mail.append((device_id, Fact(kind, attempt=1, rel=2)))
        return kind is not None

    def deliver(self, at: int, *, again: bool = False) -> None:
        """Deliver one report that is under way, out of order if wanted, and once more later with `again`."""
        device_id, fact = self.mail[at] if again else self.mail.pop(at)
        self.fold(device_id, fact)

    def advance(self, seconds: float) -> None:
        """Move the clock and judge silence."""
        self.now += seconds
        due = [item for item in self.updates.values() if item.deadline_at is not None and item.deadline_at <= self.now]
        for item in due:
            self.fold(item.device_id, Fact(update.silence(item)))

    def fold(self, device_id: str, fact: Fact) -> None:
        """Fold one fact into the update of a device."""
        before = self.updates[device_id]
        context = Context(self.plan.deadlines, self.rollout.stage, self.rollout.epoch)
        after = update.apply(before, fact, context, self.now)
        if isinstance(after, Ignored):
            return
        self.updates[device_id] = after
        self._change(update.tally_changes([before], [after]))

    def forget(self, count: int) -> None:
        """Strike up to `count` devices that no stage has taken off the registry, last ones first."""
        for _ in range(min(count, len(self.members) - len(self.updates))):
            self.members.pop()

    def recount(self) -> Counter[TallyKey]:
        """Count the tallies anew."""
        return Counter(key for item in self.updates.values() for key in update.contributions(item))

    def in_state(self, *states: UpdateState) -> list[Update]:
        """Return the updates in these states, in cohort order."""
        found = (self.updates.get(member.device_id) for member in self.members)
        return [item for item in found if item is not None and item.state in states]

    def settle(self) -> None:
        """Lose nothing more, and go on until nothing happens by itself, which must come soon."""
        for _ in range(ENOUGH_ROUNDS):
            if not self.round() and not self._wait():
                return
        raise AssertionError(f"it never comes to rest: {self.reasons[-5:]}")

    def round(self) -> bool:
        """Decide, send, let every device say one thing, deliver; says whether anything happened."""
        moved = self.step()
        moved |= self.claim(len(self.queued)) > 0
        moved |= sum(self.act(device_id) for device_id in self.devices) > 0
        moved |= bool(self.mail)
        while self.mail:
            self.deliver(0)
        return moved

    def _wait(self) -> bool:
        times = [item.deadline_at for item in self.updates.values()] + [self.wake_at]
        coming = [at for at in times if at is not None and at > self.now]
        if coming:
            self.advance(min(coming) - self.now)
        return bool(coming)

    def _change(self, changes: Counter[TallyKey]) -> None:
        self.tally.update(changes)
        self.tally = Counter({key: count for key, count in self.tally.items() if count})

    def _carry_out(self, decision: Decision) -> None:
        self.rollout = decision.rollout
        for effect in decision.effects:
            match effect:
                case machine.Prepare():
                    strata = len({member.model for member in self.members})
                    self._carry_out(machine.prepared(self.rollout, len(self.members), strata, self.now))
                case machine.Open(count):
                    self._open(count)
                case machine.Offer(count):
                    self._offer(count)
                case machine.VoidQueued():
                    self._fold_all(self.queued, F.WITHDRAW)
                    self.queued = []
                case machine.Recall():
                    self._recall()
                case machine.Return():
                    self._fold_all([item.device_id for item in self.in_state(S.RECALLED)], F.RETURN)

    def _open(self, count: int) -> None:
        assert self.rollout.phase is Phase.RUNNING
        above = max((member.rank for member in self.members if member.device_id in self.updates), default=-1)
        found = cohort.cut(self.members, above, count)
        for member in found:
            self._open_one(member)
        if len(found) < count:
            self.rollout = machine.exhausted(self.rollout, self.tally)

    def _open_one(self, member: cohort.Member) -> None:
        item = Update(
            id=len(self.updates) + 1,
            rollout_id=self.rollout.id,
            device_id=member.device_id,
            stage=self.rollout.stage,
            stratum=member.model,
            rel=2,
            state=S.PENDING,
            state_at=self.now,
        )
        self.updates[item.device_id] = item
        self._change(update.tally_changes([], [item]))

    def _offer(self, count: int) -> None:
        assert self.rollout.phase is Phase.RUNNING
        confirmed = evidence.stage_counts(self.tally, self.rollout.stage).confirmed
        assert evidence.in_flight(self.tally) + count <= judgement.slots(self.plan, confirmed)
        chosen = [item.device_id for item in self.in_state(S.PENDING)[:count]]
        assert len(chosen) == count > 0
        self._fold_all(chosen, F.OFFER)
        self.queued += chosen
        self.offers += count

    def _recall(self) -> None:
        recalled = [item.device_id for item in self.in_state(*RECALLABLE)]
        self._fold_all(recalled, F.RECALL)
        for device_id in recalled:
            kind = self.devices[device_id].recall()
            if kind is not None:
                self.mail.append((device_id, Fact(kind, attempt=1)))

    def _fold_all(self, device_ids: Iterable[str], kind: FactKind) -> None:
        for device_id in list(device_ids):
            self.fold(device_id, Fact(kind))
