"""One rollout in memory, as the engine's transactions see it.

Rules:
- It answers what the engine asks of `ports.Tx` for one rollout, and nothing else: what is missing here fails loudly.
- It decides nothing and knows no device: what was given to devices waits in `given` until the run takes it.
- No other rollout exists, and nothing is undone: a transaction never fails.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.core.judging import evidence
from orchestrator.core.judging.outside import Answer, Verdict
from orchestrator.core.model import Device, Phase, Release, Rollout, Tally, TallyKey, Update, UpdateState
from orchestrator.core.pace.hold import Hold, Situation
from orchestrator.core.targeting.cohort import Member
from orchestrator.ports import DeliveryKind, Event

REL = 2
"""Release counter that the rollout brings."""


class Given(NamedTuple):
    """A delivery that was planned.

    Attributes:
        kind: a trigger or a recall.
        update: whom it is for.
        push: whether it goes out at once; otherwise it waits for a poll.
    """

    kind: DeliveryKind
    update: Update
    push: bool


class Ledger:
    """The state of one rollout.

    Attributes:
        current: the rollout as it was saved last.
        tallies: its tallies.
        moves: its record.
        given: deliveries that no device has been told of yet.
        waiting: updates whose trigger waits for a poll and can still be withdrawn.
        offered: updates that were ever offered the release.
    """

    def __init__(self, rollout: Rollout, fleet_size: int, secret: bytes = b"") -> None:
        self.current = rollout
        self.tallies: Counter[TallyKey] = Counter()
        self.moves: list[Event] = []
        self.given: list[Given] = []
        self.waiting: set[int] = set()
        self.offered: set[int] = set()
        self._fleet_size = fleet_size
        self._secret = secret
        self._held: dict[int, Hold] = {}
        self._looks: list[tuple[float, int]] = []
        self._release = Release(rollout.plan.release, "rehearsed", REL, (), 0.0)
        self._updates: list[Update] = []
        self._ranks: list[int] = []
        self._pending: list[tuple[int, int]] = []
        self._deadlines: list[tuple[float, int]] = []
        self._offers: dict[int, int] = {}

    # What the run asks

    def update(self, number: int) -> Update:
        """Return an update by its number."""
        return self._updates[number - 1]

    def next_deadline(self) -> float | None:
        """Return when the next silence will be judged."""
        while self._deadlines and self._is_stale(self._deadlines[0]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _is_stale(self, entry: tuple[float, int]) -> bool:
        return self.update(entry[1]).deadline_at != entry[0]

    # ports.Registry and ports.Catalogue

    def devices_named(self, device_ids: Iterable[str]) -> list[Device]:
        """See `ports.Registry.devices_named`: nothing is known of any."""
        del device_ids
        return []

    def situations(self, device_ids: Iterable[str]) -> dict[str, Situation]:
        """See `ports.Registry.situations`: no device said anything."""
        del device_ids
        return {}

    def fleet_size(self) -> int:
        """See `ports.Registry.fleet_size`."""
        return self._fleet_size

    def release(self, name: str) -> Release:
        """See `ports.Catalogue.release`."""
        del name
        return self._release

    # ports.Rollouts

    def rollout(self, rollout_id: int) -> Rollout:
        """See `ports.Rollouts.rollout`."""
        del rollout_id
        return self.current

    def rollouts(self, phases: Iterable[Phase] = ()) -> list[Rollout]:
        """See `ports.Rollouts.rollouts`."""
        wanted = frozenset(phases)
        return [self.current] if not wanted or self.current.phase in wanted else []

    def save_rollout(self, rollout: Rollout, event: Event | None) -> None:
        """See `ports.Rollouts.save_rollout`."""
        self.current = rollout
        if event is not None:
            self.moves.append(event)

    def secret(self, rollout_id: int) -> bytes:
        """See `ports.Rollouts.secret`."""
        del rollout_id
        return self._secret

    def offers(self) -> dict[int, int]:
        """See `ports.Rollouts.offers`."""
        return self._offers

    def save_offers(self, offers: Mapping[int, int]) -> None:
        """See `ports.Rollouts.save_offers`."""
        self._offers = dict(offers)

    def in_flight(self) -> dict[int, int]:
        """See `ports.Rollouts.in_flight`."""
        return {self.current.id: evidence.in_flight(self.tallies)}

    def change_tallies(self, rollout_id: int, changes: Counter[TallyKey]) -> None:
        """See `ports.Rollouts.change_tallies`."""
        del rollout_id
        tallies = self.tallies
        for key, change in changes.items():
            tallies[key] += change
            if not tallies[key]:
                del tallies[key]

    def tally(self, rollout_id: int) -> Tally:
        """See `ports.Rollouts.tally`."""
        return self.fold(rollout_id)

    def fold(self, rollout_id: int) -> Tally:
        """See `ports.Rollouts.fold`."""
        del rollout_id
        return self.tallies

    def warrant(self, rollout_id: int) -> None:
        """See `ports.Approvals.warrant`: none; what it would allow is in the ceiling of the run."""
        del rollout_id

    def tell(self, *_: Any) -> bool:
        """See `ports.Webhooks.tell`; nobody is told of a rehearsal."""
        return False

    def audit(self, *_: Any) -> None:
        """See `ports.AuditLog.audit`; a rehearsal leaves no record."""

    # ports.Surroundings

    def gate_answer(self, rollout_id: int, stage: int) -> Answer:
        """See `ports.Surroundings.gate_answer`: every service lets every stage pass."""
        del rollout_id
        return Answer(stage, math.inf, Verdict.PASS, "rehearsed")

    def outage(self) -> None:
        """See `ports.Surroundings.outage`: there is none."""

    # ports.Updates

    def open_updates(self, rollout: Rollout, members: Sequence[Member], rel: int, now: float) -> list[Update]:
        """See `ports.Updates.open_updates`."""
        opened = []
        for number, member in enumerate(members, len(self._updates) + 1):
            opened.append(
                Update(
                    number,
                    rollout.id,
                    member.device_id,
                    rollout.stage,
                    member.stratum or member.model,
                    rel,
                    UpdateState.PENDING,
                    now,
                    rollout.epoch,
                )
            )
            self._ranks.append(member.rank)
            insort(self._pending, (member.rank, number))
        self._updates += opened
        return opened

    def updates(self, update_ids: Iterable[int]) -> dict[int, Update]:
        """See `ports.Updates.updates`."""
        return {number: self.update(number) for number in update_ids}

    def save_updates(self, updates: Iterable[Update], slots: Iterable[Update] | None = None) -> None:
        """See `ports.Updates.save_updates`."""
        del slots
        for item in updates:
            before = self._updates[item.id - 1]
            self._updates[item.id - 1] = item
            if before.state is UpdateState.PENDING:
                if item.state is not UpdateState.PENDING and self._held.pop(item.id, None) is None:
                    del self._pending[bisect_left(self._pending, self._place(item))]
            elif item.state is UpdateState.PENDING:
                insort(self._pending, self._place(item))
            if item.deadline_at is not None and item.deadline_at != before.deadline_at:
                heapq.heappush(self._deadlines, (item.deadline_at, item.id))

    def pending(self, rollout_id: int, limit: int) -> list[Update]:
        """See `ports.Updates.pending`."""
        del rollout_id
        return [self.update(number) for _, number in self._pending[:limit]]

    def hold(self, held: Sequence[tuple[Update, Hold]]) -> None:
        """See `ports.Updates.hold`."""
        for item, found in held:
            del self._pending[bisect_left(self._pending, self._place(item))]
            self._held[item.id] = found
            heapq.heappush(self._looks, (found.look_at, item.id))

    def release_holds(self, rollout_id: int, now: float, limit: int) -> None:
        """See `ports.Updates.release_holds`."""
        del rollout_id
        while limit and self._looks and self._looks[0][0] <= now:
            _, number = heapq.heappop(self._looks)
            if self._held.pop(number, None) is not None:
                insort(self._pending, self._place(self.update(number)))
                limit -= 1

    def next_look(self, rollout_id: int) -> tuple[float, str] | None:
        """See `ports.Updates.next_look`."""
        del rollout_id
        if self._pending:
            return None
        while self._looks and self._looks[0][1] not in self._held:
            heapq.heappop(self._looks)
        return (self._looks[0][0], self._held[self._looks[0][1]].code) if self._looks else None

    def updates_in(self, rollout_id: int, states: Iterable[UpdateState]) -> list[Update]:
        """See `ports.Updates.updates_in`."""
        del rollout_id
        wanted = frozenset(states)
        return [item for item in self._updates if item.state in wanted]

    def updates_of(self, device_ids: Iterable[str], states: Iterable[UpdateState] = ()) -> list[Update]:
        """See `ports.Updates.updates_of`: asked for what a device has in other rollouts, and there are none."""
        del device_ids, states
        return []

    def overdue(self, now: float, limit: int) -> list[Update]:
        """See `ports.Updates.overdue`."""
        due: dict[int, Update] = {}
        while len(due) < limit and (at := self.next_deadline()) is not None and at <= now:
            _, number = heapq.heappop(self._deadlines)
            due[number] = self.update(number)
        return list(due.values())

    def _place(self, update: Update) -> tuple[int, int]:
        return self._ranks[update.id - 1], update.id

    # ports.Outbox

    def plan(self, kind: DeliveryKind, updates: Sequence[Update], version: int, now: float, *, push: bool) -> None:
        """See `ports.Outbox.plan`."""
        del version, now
        for item in updates:
            self.given.append(Given(kind, item, push))
            if kind is DeliveryKind.INSTALL:
                self.offered.add(item.id)
                if not push:
                    self.waiting.add(item.id)

    def withdraw(self, rollout_id: int) -> list[int]:
        """See `ports.Outbox.withdraw`; what is pushed is on the wire at once."""
        del rollout_id
        withdrawn, self.waiting = sorted(self.waiting), set()
        return withdrawn

    def reachable(self, rollout_id: int, now: float) -> list[int]:
        """See `ports.Outbox.reachable`: none, for a device that gets no trigger in time never gets one."""
        del rollout_id, now
        return []

    def were_exposed(self, update_ids: Collection[int]) -> set[int]:
        """See `ports.Outbox.were_exposed`; no rollout is superseded here."""
        return self.offered.intersection(update_ids)
