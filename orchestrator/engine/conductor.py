"""The conductor: wakes when tallies changed, a person spoke or time came, and lets the core decide.

Rules:
- A decision, what it saves and its effects are one transaction, in the operator's lane.
- Taking devices into a stage is bulk work in pieces, so that it never blocks a halt.
- A rollout is stepped until the answer is to wait; then its `wake_at` is remembered.
- The conductor decides nothing itself: `core.rollout` does, within `core.ceiling`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog

from orchestrator.core import cohort
from orchestrator.core import rollout as machine
from orchestrator.core.approval import ApprovalNeededError, Proposal
from orchestrator.core.ceiling import HELD, STANDARD, Ceiling
from orchestrator.core.cohort import Member
from orchestrator.core.model import Device, Phase, Rollout
from orchestrator.core.rollout import Command, Decision
from orchestrator.engine import allowance, effects
from orchestrator.engine.releases import by_model, release_of
from orchestrator.errors import NotFoundError, UnavailableError
from orchestrator.ports import Event, Lane, Store, Tx

CHUNK = 2000
KEPT = 50_000
"""Candidates that are kept beyond twice the wanted ones before they are cut."""
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

    @property
    def limits(self) -> Ceiling:
        """The blast ceiling over all rollouts."""
        return self._limits

    def changed(self, rollout_ids: set[int]) -> None:
        """Note that the tallies of these rollouts changed."""
        self._dirty |= rollout_ids
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
        """
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

    async def audience(self, name: str) -> int:
        """Return how many devices a rollout would take if it began now.

        Raises:
            NotFoundError: there is no such rollout.
        """
        rollout = await self._store.read(partial(_named, name=name))
        return sum([len(chunk) async for chunk in _chunks(self._store, rollout)])

    async def run(self) -> None:
        """Step rollouts for ever."""
        await self._wake_all()
        self._woken.set()
        while True:
            timeout_s = self._sleep_s()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            await self._wake_due()
            dirty, self._dirty = self._dirty, set()
            for rollout_id in sorted(dirty):
                await self._advance_safely(rollout_id)
            await asyncio.sleep(PACE_S)

    async def advance(self, rollout_id: int) -> None:
        """Step one rollout until there is nothing to do but to wait."""
        while True:
            hearing = self._hearing()
            step = partial(_step, rollout_id=rollout_id, now=self._now(), hearing=hearing, limits=self._limits)
            before, decision, moved = await self._store.transact(Lane.OPERATOR, step)
            if _is_event(before, decision.rollout):
                self._announce(decision)
            if decision.wake_at is not None:
                self._wake_at[rollout_id] = decision.wake_at
            else:
                self._wake_at.pop(rollout_id, None)
            for effect in decision.effects:
                if isinstance(effect, machine.Prepare):
                    await self._prepare(decision.rollout)
                if isinstance(effect, machine.Open):
                    await self._open(decision.rollout, effect.count)
            if decision.effects:
                self._planned()
            if not moved:
                return

    async def _advance_safely(self, rollout_id: int) -> None:
        try:
            await self.advance(rollout_id)
        except UnavailableError as error:
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

    async def _wake_all(self) -> None:
        self._look_at = asyncio.get_running_loop().time() + IDLE_S
        try:
            active = await self._store.read(lambda tx: tx.rollouts(_ACTIVE))
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
            return
        self._dirty |= {rollout.id for rollout in active}

    async def _prepare(self, rollout: Rollout) -> None:
        size = 0
        models: set[str] = set()
        async for chunk in _chunks(self._store, rollout):
            size += len(chunk)
            models.update(member.model for member in chunk)
        counted = partial(_prepared, rollout_id=rollout.id, size=size, strata=len(models))
        work = partial(counted, now=self._now(), limits=self._limits)
        decision = await self._store.transact(Lane.OPERATOR, work)
        if decision is not None:
            self._announce(decision)

    async def _open(self, rollout: Rollout, count: int) -> None:
        above = await self._store.read(lambda tx: tx.highest_rank(rollout.id))
        candidates: list[Member] = []
        async for chunk in _chunks(self._store, rollout):
            candidates += [member for member in chunk if member.rank > above]
            if len(candidates) > 2 * count + KEPT:
                candidates = await asyncio.to_thread(cohort.cut, candidates, above, count)
        candidates = await asyncio.to_thread(cohort.cut, candidates, above, count)
        for start in range(0, len(candidates), CHUNK):
            piece = partial(
                _open_piece, rollout_id=rollout.id, members=candidates[start : start + CHUNK], now=self._now()
            )
            await self._store.transact(Lane.BULK, piece)
        if len(candidates) < count:
            await self._store.transact(Lane.OPERATOR, partial(_exhausted, rollout_id=rollout.id))

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


async def _chunks(store: Store, rollout: Rollout) -> AsyncIterator[list[Member]]:
    """Yield the cohort in pieces, in the order of identifiers."""
    after = ""
    while True:
        devices, members = await store.read(partial(_members, rollout=rollout, after=after))
        if not devices:
            return
        after = devices[-1].id
        yield members


def _members(tx: Tx, rollout: Rollout, after: str) -> tuple[list[Device], list[Member]]:
    devices = tx.devices(after, CHUNK)
    release = release_of(tx, rollout)
    hardware = frozenset(by_model(tx, release))
    fixed_at = rollout.cohort_at
    chosen = [
        device
        for device in devices
        if cohort.belongs(device, rollout.plan, hardware, release.rel)
        and (fixed_at is None or device.registered_at <= fixed_at)
    ]
    return devices, list(cohort.members(tx.secret(rollout.id), chosen))


def _named(tx: Tx, name: str) -> Rollout:
    found = tx.rollout_named(name)
    if found is None:
        raise NotFoundError(f"there is no rollout named {name!r}")
    return found


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
    found = _named(tx, name)
    decision = machine.operate(found, command, actor=actor, reason=reason, now=now)
    if decision.rollout is not found:
        waits = admit(tx, found) if admit else None
        if waits is not None:
            return waits
        _save(tx, found, decision, now, limits)
    return decision


def _step(tx: Tx, rollout_id: int, now: float, hearing: bool, limits: Ceiling) -> tuple[Rollout, Decision, bool]:
    """Decide and save; says also whether that moved anything, so that another step could."""
    found = tx.rollout(rollout_id)
    assert found is not None, "rollouts are never deleted"
    decision = allowance.decide(tx, found, tx.fold(rollout_id), now, limits, hearing=hearing)
    if decision.reason.code == HELD:
        allowance.book(tx, 0, now)  # so that a clock that was set back does not make it wait for what never comes
    moved = _save(tx, found, decision, now, limits)
    return found, decision, moved


def _save(tx: Tx, before: Rollout, decision: Decision, now: float, limits: Ceiling) -> bool:
    after = decision.rollout
    event = None
    if _is_event(before, after):
        event = Event(now, after.phase, decision.reason.code, decision.reason.text, after.actor, after.stage)
        said = {"from": before.phase, "to": after.phase, "stage": after.stage, "code": event.code, "reason": event.text}
        tx.audit(after.actor, "rollout.moved", after.plan.name, said, now)
    if after != before:
        tx.save_rollout(after, event)
    moved = after != before
    for effect in decision.effects:
        if isinstance(effect, machine.Open | machine.Prepare):
            moved = True  # the conductor does them, in pieces
        else:
            moved |= effects.carry_out(tx, after, effect, now, limits)
    return moved


def _is_event(before: Rollout, after: Rollout) -> bool:
    """Say whether a change belongs on the record: another phase or stage, or the same phase entered anew."""
    return (before.phase, before.stage, before.version) != (after.phase, after.stage, after.version)


def _prepared(tx: Tx, rollout_id: int, size: int, strata: int, now: float, limits: Ceiling) -> Decision | None:
    found = tx.rollout(rollout_id)
    if found is None or found.phase is not Phase.PREPARING:
        return None  # somebody stopped it meanwhile
    most = allowance.warranted(tx, found) or size  # who registered since it was counted is left out of an emergency
    decision = machine.prepared(found, min(size, most), strata, now)
    _save(tx, found, decision, now, limits)
    return decision


def _open_piece(tx: Tx, rollout_id: int, members: list[Member], now: float) -> None:
    rollout = tx.rollout(rollout_id)
    assert rollout is not None, "rollouts are never deleted"
    if rollout.phase is Phase.RUNNING:
        release = release_of(tx, rollout)
        effects.open_members(tx, rollout, members, release.rel, now)


def _exhausted(tx: Tx, rollout_id: int) -> None:
    rollout = tx.rollout(rollout_id)
    if rollout is not None and rollout.phase is Phase.RUNNING:
        tx.save_rollout(machine.exhausted(rollout, tx.fold(rollout_id)), None)
