"""The conductor: wakes when tallies changed, a person spoke or time came, and lets the core decide.

Rules:
- A decision, what it saves and its effects are one transaction, in the operator's lane.
- Counting a cohort and taking devices into a stage is work of its own beside the loop, one at a time for each rollout
  and in pieces, so that meanwhile every rollout is judged; it ends when its rollout moves on without it.
- A rollout is stepped until the answer is to wait; then its `wake_at` is remembered.
- One step offers the release to `OFFERS` devices at most, so that reports and other rollouts get their turn.
- The conductor decides nothing itself: `core.rollout` does, within `core.pace.ceiling`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import structlog

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence
from orchestrator.core.judging.judgement import ASKS
from orchestrator.core.model import DAEMON, Phase, Rollout
from orchestrator.core.pace.ceiling import HELD, STANDARD, Ceiling
from orchestrator.core.pace.hold import overrides
from orchestrator.core.rollout import Command, Decision
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.trust.approval import ApprovalNeededError, Proposal
from orchestrator.engine import named
from orchestrator.engine.offers import allowance
from orchestrator.engine.rollouts import effects
from orchestrator.engine.rollouts.reaction import Reaction
from orchestrator.engine.rollouts.releases import release_of
from orchestrator.engine.rollouts.stops import STOPS, Stop, Stops
from orchestrator.engine.targeting.audience import audience_of, waiting
from orchestrator.errors import UnavailableError
from orchestrator.ports import Event, Lane, Store, Tx

CHUNK = 500
"""Devices that one transaction takes into a stage."""
OFFERS = 250
RETRY_S = 1.0
PACE_S = 0.1
"""Rollouts are stepped at most this often, so that a flood of reports leaves the writer to the reports."""
IDLE_S = 5.0
"""Rollouts are looked at this often even if nothing seems to have happened."""

Admit = Callable[[Tx, Rollout], Proposal | None]
"""Says what waits for approval before a command on a rollout is carried out, None if nothing does."""

_ACTIVE = (Phase.PREPARING, Phase.RUNNING, Phase.PAUSED, Phase.INCONCLUSIVE)
_log = structlog.get_logger(__name__)


class Conductor:
    """Moves rollouts.

    Args:
        store: where they are.
        now: the clock.
        hearing: whether silence may be judged.
        planned: called when deliveries were planned.
        limits: the blast ceiling over all rollouts.

    Attributes:
        stops: what waits for the store.
        reaction: how fast rollouts were halted.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        hearing: Callable[[], bool],
        planned: Callable[[], None],
        limits: Ceiling = STANDARD,
    ) -> None:
        self._store = store
        self._now = now
        self._hearing = hearing
        self._planned = planned
        self._limits = limits
        self._dirty: set[int] = set()
        self._wake_at: dict[int, float] = {}
        self._look_at = 0.0
        self._woken = asyncio.Event()
        self._works: dict[int, _Work] = {}
        self.stops = Stops(self._store_stop)
        self.reaction = Reaction()

    @property
    def limits(self) -> Ceiling:
        """The blast ceiling over all rollouts."""
        return self._limits

    def changed(self, rollout_ids: set[int]) -> None:
        """Note that the tallies of these rollouts changed."""
        self._dirty |= rollout_ids
        self.reaction.changed(rollout_ids)
        self._woken.set()

    async def command(
        self, name: str, command: Command, *, actor: str, reason: str, admit: Admit | None = None
    ) -> Decision:
        """Carry out what a person wants; returns once it is durable.

        Args:
            name: name of the rollout.
            command: what the person wants.
            actor: who it is.
            reason: why.
            admit: asked in the same transaction whether other persons must approve it first; None lets all through.

        Raises:
            ApprovalNeededError: others must approve it first.
            NotFoundError: there is no such rollout.
            ConflictError: its phase does not allow it.
            RequestError: a reason is needed.
            UnavailableError: the store cannot be written; a stop is obeyed all the same (`stopped_here`).
        """
        try:
            await self.stops.store()
            return await self._carry_out(name, command, actor=actor, reason=reason, admit=admit)
        except UnavailableError as error:
            if error.code != "store" or command not in STOPS:
                raise
            await self._stop_here(name, command, actor, reason)
            text = (
                f"the store cannot be written ({error.message}); {name} is stopped in this process all the same: "
                f"nothing more goes out, and the {command} is stored as soon as it can be. Make room, and do not "
                "restart the daemon while `ota status` says that it is not stored"
            )
            raise UnavailableError(text, code="stopped_here") from error

    async def _carry_out(
        self, name: str, command: Command, *, actor: str, reason: str, admit: Admit | None
    ) -> Decision:
        said = partial(_command, name=name, command=command, actor=actor, reason=reason, admit=admit)
        work = partial(said, now=self._now(), limits=self._limits)
        decision = await self._store.transact(Lane.OPERATOR, work)
        if isinstance(decision, Proposal):
            raise ApprovalNeededError(decision)
        if decision.effects:
            self._planned()
        self._announce(decision)
        self.changed({decision.rollout.id})
        return decision

    async def _store_stop(self, stop: Stop) -> None:
        await self._carry_out(stop.name, stop.command, actor=stop.actor, reason=stop.reason, admit=None)

    async def _stop_here(self, name: str, command: Command, actor: str, reason: str) -> None:
        """Obey a stop that cannot be stored, if it is one that this rollout can have."""
        found, tally = await self._store.read(lambda tx: ((item := named.rollout(tx, name)), tx.tally(item.id)))
        machine.operate(found, tally, command, actor=actor, reason=reason, now=self._now())
        self.stops.add(Stop(found.id, name, command, actor, reason))

    async def audience(self, name: str) -> int:
        """Return how many devices a rollout would take if it began now.

        Raises:
            NotFoundError: there is no such rollout.
        """
        rollout = await self._store.read(partial(named.rollout, name=name))
        audience = await self._store.read(partial(audience_of, rollout=rollout))
        return sum([len(chunk) async for chunk in waiting(self._store, audience)])

    async def run(self) -> None:
        """Step rollouts for ever."""
        await self._wake_all()
        self._woken.set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                timeout_s = self._sleep_s()
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
                await self._wake_due()
                await self._store_stops()
                await self._step_all(tasks)
                await asyncio.sleep(PACE_S)

    async def advance(self, rollout_id: int) -> None:
        """Step one rollout until there is nothing to do but to wait, with the work beside it."""
        while True:
            decision, moved = await self._step(rollout_id)
            await self._do(decision)
            if not moved:
                return

    async def _step_all(self, tasks: asyncio.TaskGroup) -> None:
        """Step what changed until all of it waits, in turns."""
        moving: set[int] = set()
        while moving or self._dirty:
            due, self._dirty = moving | self._dirty, set()
            moving = {rollout_id for rollout_id in sorted(due) if await self._step_safely(rollout_id, tasks)}

    async def _step_safely(self, rollout_id: int, tasks: asyncio.TaskGroup) -> bool:
        """Step a rollout and see to the work beside it; says whether another step could move it."""
        try:
            decision, moved = await self._step(rollout_id)
        except UnavailableError as error:
            self._put_off(rollout_id, error)
            return False
        work = self._works.get(rollout_id)
        if work is not None and not is_wanted(work.rollout, decision.rollout):
            work.task.cancel()
            del self._works[rollout_id]
            work = None
        if not _is_long(decision):
            return moved
        if work is None:
            task = tasks.create_task(self._do_beside(decision), name=f"work for rollout {rollout_id}")
            self._works[rollout_id] = _Work(decision.rollout, task)
        return False

    async def _step(self, rollout_id: int) -> tuple[Decision, bool]:
        """Take one step; says also whether another one could move the rollout."""
        hearing, since = self._hearing(), self.reaction.looking(rollout_id)
        step = partial(take_step, rollout_id=rollout_id, now=self._now(), hearing=hearing, limits=self._limits)
        before, decision, moved = await self._store.transact(Lane.OPERATOR, step)
        if _is_event(before, decision.rollout):
            self._announce(decision)
        if decision.rollout.phase is Phase.HALTED is not before.phase:
            self.reaction.halted(rollout_id, since)
        if decision.wake_at is not None:
            self._wake_at[rollout_id] = decision.wake_at
        else:
            self._wake_at.pop(rollout_id, None)
        if decision.effects:
            self._planned()
        return decision, moved

    async def _do(self, decision: Decision) -> None:
        """Do the long work that a decision asks for."""
        for effect in decision.effects:
            match effect:
                case machine.Prepare():
                    await self._prepare(decision.rollout)
                case machine.Open(count):
                    await self._open(decision.rollout, count)

    async def _do_beside(self, decision: Decision) -> None:
        """Do long work beside the loop, and have the rollout looked at again."""
        rollout_id = decision.rollout.id
        try:
            await self._do(decision)
        except UnavailableError as error:
            self._put_off(rollout_id, error)
        else:
            self.changed({rollout_id})
        self._works.pop(rollout_id, None)

    def _put_off(self, rollout_id: int, error: UnavailableError) -> None:
        _log.error("store.unavailable", error=error.message)
        self._wake_at[rollout_id] = self._now() + RETRY_S

    def _sleep_s(self) -> float:
        if not self._wake_at:
            return IDLE_S
        return min(max(min(self._wake_at.values()) - self._now(), 0.0), IDLE_S)

    async def _wake_due(self) -> None:
        now = self._now()
        self._dirty |= {rollout_id for rollout_id, at in self._wake_at.items() if at <= now}
        if asyncio.get_running_loop().time() >= self._look_at:
            await self._wake_all()

    async def _store_stops(self) -> None:
        try:
            await self.stops.store()
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)

    async def _wake_all(self) -> None:
        self._look_at = asyncio.get_running_loop().time() + IDLE_S
        try:
            active = await self._store.read(lambda tx: tx.rollouts(_ACTIVE))
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
            return
        self._dirty |= {rollout.id for rollout in active}

    async def _prepare(self, rollout: Rollout) -> None:
        audience = await self._store.read(partial(audience_of, rollout=rollout))
        size = 0
        strata: set[str] = set()
        groups: Counter[str] = Counter()
        async for chunk in waiting(self._store, audience):
            size += len(chunk)
            strata.update(member.stratum for member in chunk)
            groups.update(group for member in chunk for group in member.groups)
            if rollout.plan.stratify and len(strata) > cohort.MAX_STRATA:
                break
        possible = cohort.most_strata(rollout.plan, audience.hardware, len(strata))
        counted = partial(take_cohort, rollout_id=rollout.id, size=size, strata=possible, groups=groups)
        work = partial(counted, now=self._now(), limits=self._limits)
        decision = await self._store.transact(Lane.OPERATOR, work)
        if decision is not None:
            self._announce(decision)

    async def _open(self, rollout: Rollout, count: int) -> None:
        audience, taken = await self._store.read(
            lambda tx: (audience_of(tx, rollout), evidence.opened_by_stratum(tx.tally(rollout.id)))
        )
        queue = cohort.Queue(taken if rollout.plan.stratify else None)
        async for chunk in waiting(self._store, audience):
            queue.add(chunk)
        group = rollout.plan.stages[rollout.stage].group
        cut = await asyncio.to_thread(queue.cut, count, group, late=rollout.is_in_last_stage)
        members: list[Member] = []
        async for chunk in waiting(self._store, audience):
            members += [member for member in chunk if cut.takes(member)]
            if len(members) >= CHUNK:
                await self._open_pieces(rollout, members)
                members = []
        await self._open_pieces(rollout, members)
        if cut.count < count:
            left = queue.left(group)
            work = partial(note_exhausted, rollout=rollout, late=left, now=self._now())
            await self._store.transact(Lane.OPERATOR, work)

    async def _open_pieces(self, rollout: Rollout, members: list[Member]) -> None:
        for start in range(0, len(members), CHUNK):
            chosen = members[start : start + CHUNK]
            piece = partial(open_piece, rollout=rollout, members=chosen, now=self._now())
            await self._store.transact(Lane.BULK, piece)

    def _announce(self, decision: Decision) -> None:
        rollout = decision.rollout
        _log.info(
            "rollout.moved",
            rollout=rollout.plan.name,
            phase=rollout.phase.value,
            stage=rollout.stage,
            code=decision.reason.code,
            reason=decision.reason.text,
            actor=rollout.actor,
        )


class _Work(NamedTuple):
    """What is done for a rollout beside the loop, and how the rollout stood when it began."""

    rollout: Rollout
    task: asyncio.Task[None]


def is_wanted(before: Rollout, now: Rollout) -> bool:
    """Say whether work that was begun for a rollout is still wanted as it stands now."""
    if (before.version, before.stage, before.cohort_at) != (now.version, now.stage, now.cohort_at):
        return False  # the last: a clock was set, and the times of devices with it
    return not (now.stages and now.leaves_stage)


def _is_long(decision: Decision) -> bool:
    return any(isinstance(effect, machine.Open | machine.Prepare) for effect in decision.effects)


def _command(
    tx: Tx,
    name: str,
    command: Command,
    actor: str,
    reason: str,
    now: float,
    limits: Ceiling,
    admit: Admit | None,
) -> Decision | Proposal:
    found = named.rollout(tx, name)
    decision = machine.operate(found, tx.tally(found.id), command, actor=actor, reason=reason, now=now)
    if decision.rollout is not found:
        waits = admit(tx, found) if admit else None
        if waits is not None:
            return waits
        _save(tx, found, decision, now, limits)
    return decision


def take_step(tx: Tx, rollout_id: int, now: float, hearing: bool, limits: Ceiling) -> tuple[Rollout, Decision, bool]:
    """Decide and save; says also whether that moved anything, so that another step could."""
    found = tx.rollout(rollout_id)
    assert found is not None, "rollouts are never deleted"
    decision = allowance.decide(tx, found, tx.fold(rollout_id), now, limits, hearing=hearing)
    if decision.reason.code == HELD:
        allowance.book(tx, 0, now)  # so that a clock that was set back does not make it wait for what never comes
    if decision.effects:
        decision = replace(decision, effects=tuple(_piece_of(effect) for effect in decision.effects))
    moved = _save(tx, found, decision, now, limits)
    if decision.reason.code == ASKS and tx.tell(f"gate {found.id}", f"stage {found.stage} epoch {found.epoch}"):
        said = {"stage": found.stage, "reason": decision.reason.text}
        tx.audit(DAEMON, "rollout.asks", found.plan.name, said, now)
    return found, decision, moved


def _save(tx: Tx, before: Rollout, decision: Decision, now: float, limits: Ceiling) -> bool:
    after = decision.rollout
    event = None
    if _is_event(before, after):
        event = Event(now, after.phase, decision.reason.code, decision.reason.text, after.actor, after.stage)
        said = {"from": before.phase, "to": after.phase, "stage": after.stage, "code": event.code, "reason": event.text}
        if after.stage != before.stage:
            said["passed"] = before.stage
        begins = before.phase is Phase.DRAFT and after.phase is Phase.PREPARING
        tx.audit(after.actor, "rollout.moved", after.plan.name, said | (after.plan.mends if begins else {}), now)
    if after != before:
        tx.save_rollout(after, event)
    moved = after != before
    for effect in decision.effects:
        if isinstance(effect, machine.Open | machine.Prepare):
            moved = True  # the conductor does them, in pieces
        else:
            moved |= effects.carry_out(tx, after, effect, now, limits)
    return moved


def _piece_of(effect: machine.Effect) -> machine.Effect:
    return machine.Offer(min(effect.count, OFFERS)) if isinstance(effect, machine.Offer) else effect


def _is_event(before: Rollout, after: Rollout) -> bool:
    """Say whether a change belongs on the record: another phase or stage, or what a person did within one."""
    return _told(before) != _told(after)


def _told(rollout: Rollout) -> tuple[object, ...]:
    return rollout.phase, rollout.stage, rollout.version, rollout.reason, rollout.moved_at


def take_cohort(
    tx: Tx,
    rollout_id: int,
    size: int,
    strata: int,
    now: float,
    limits: Ceiling,
    groups: Mapping[str, int] | None = None,
) -> Decision | None:
    """Begin to run with a cohort of this size; None if somebody stopped the rollout meanwhile."""
    found = tx.rollout(rollout_id)
    if found is None or found.phase is not Phase.PREPARING:
        return None
    most = allowance.warranted(tx, found) or size  # who registered since it was counted is left out of an emergency
    decision = machine.prepared(found, min(size, most), strata, now, groups)
    _save(tx, found, decision, now, limits)
    if decision.rollout.phase is Phase.RUNNING and (overridden := overrides(found.plan)):
        said = {"urgency": found.plan.urgency, "overrides": overridden}
        tx.audit(found.actor, "rollout.overrides", found.plan.name, said, now)
    return decision


def open_piece(tx: Tx, rollout: Rollout, members: list[Member], now: float) -> None:
    """Take members of the cohort into the current stage, if the rollout still stands as when they were chosen."""
    found = tx.rollout(rollout.id)
    assert found is not None, "rollouts are never deleted"
    if found.phase is Phase.RUNNING and is_wanted(rollout, found):
        release = release_of(tx, found)
        if found.plan.stratify:
            members = cohort.bounded(members, evidence.opened_by_stratum(tx.tally(found.id)))
        effects.open_members(tx, found, members, release.rel, now)


def note_exhausted(tx: Tx, rollout: Rollout, late: int, now: float) -> None:
    """Correct the cohort when fewer devices than expected were left to open, if the rollout stands as it did then.

    Args:
        tx: the transaction.
        rollout: the rollout as it stood when its stage was opened.
        late: devices that were left all the same, because they wait for the last stage.
        now: present time.
    """
    found = tx.rollout(rollout.id)
    if found is None or found.phase is not Phase.RUNNING or not is_wanted(rollout, found):
        return
    after = machine.exhausted(found, tx.fold(found.id), late)
    text = f"{after.current.target} of {found.current.target} devices; {late} were registered too late for this stage"
    event = Event(now, found.phase, "registered_late", text, DAEMON, found.stage)
    tx.save_rollout(after, event if late else None)
