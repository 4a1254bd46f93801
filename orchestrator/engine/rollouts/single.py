"""A release for one device: the plan of that, and what becomes of it when somebody assigns, cancels or gives up.

Rules:
- It is a rollout like any other, with one stage of one device: its limits, approvals and evidence hold.
- A device that its plan would leave out is refused at once, with the reason that an explanation would give.
- Giving up moves an update only after its rollout was aborted, to where silence would move it.
"""

from __future__ import annotations

from itertools import count

from orchestrator.core import update as machine
from orchestrator.core.model import Delivery, Device, Phase, Plan, Release, Rollout, SizeKind, StagePlan, Update
from orchestrator.core.model import UpdateState as S
from orchestrator.core.rollout import FINISHED, UNFINISHED
from orchestrator.core.targeting import cohort
from orchestrator.core.update import FAILURES, Fact
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.rollouts import operations, quarantine
from orchestrator.engine.rollouts.releases import by_model, signing_rule, ways
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import Tx

CLOSED = FAILURES | {S.CONFIRMED, S.REFUSED, S.RECALLED, S.SUPERSEDED}
"""States of an update whose device is not expected to do anything more about it."""

_STUCK = frozenset({Phase.HALTED, Phase.INCONCLUSIVE})


def plan_of(name: str, release: Release, device_id: str) -> Plan:
    """Return the plan that brings a release to one device."""
    stages = (StagePlan(SizeKind.REST, 0),)
    return Plan(name, release.name, stages, delivery=Delivery.POLL, select=_selecting(device_id))


def under_way(tx: Tx, device_id: str, *releases: str) -> list[Rollout]:
    """Return the rollouts for this one device that are not over, newest first: of these releases, of any without."""
    return tx.rollouts(UNFINISHED, releases=releases, select=_selecting(device_id))


def stuck(tx: Tx, release: Release, device_id: str) -> list[str]:
    """Return the names of those that stand still because the device failed, and that a new one takes the place of."""
    return [item.plan.name for item in under_way(tx, device_id, release.name) if item.phase in _STUCK]


def assign(tx: Tx, release: Release, device: Device, actor: str, now: float) -> tuple[Rollout, bool]:
    """Return the rollout that brings a release to a device; one is made in draft if none is under way.

    Returns:
        The rollout, and whether there is anything to do: False if the device is on its way already.

    Raises:
        RequestError: the device may not have it (`left_out`).
    """
    found = next(iter(under_way(tx, device.id, release.name)), None)
    if found is not None and found.phase not in _STUCK:
        update = update_of(tx, found, device.id)
        if update is None:
            return found, True  # it waits for an approval, or is just being opened
        if update.state not in CLOSED:
            return found, False
    plan = plan_of(_free_name(tx, release), release, device.id)
    _check(tx, plan, release, device)
    return operations.create_rollout(tx, plan, actor, now), True


def update_of(tx: Tx, rollout: Rollout, device_id: str) -> Update | None:
    """Return the update of a device in a rollout, None while it is not taken in."""
    return next((item for item in tx.updates_of([device_id]) if item.rollout_id == rollout.id), None)


def is_single(rollout: Rollout, device_id: str) -> bool:
    """Say whether a rollout is for this one device alone."""
    return rollout.plan.select == _selecting(device_id)


def give_up(tx: Tx, update: Update, now: float, *, actor: str) -> set[int]:
    """Wait no longer for a device to answer its recall; returns the rollouts whose tallies this changed.

    Raises:
        ConflictError: its rollout was not aborted before.
    """
    rollout = tx.rollout(update.rollout_id)
    assert rollout is not None, "an update always belongs to a rollout"
    if rollout.phase not in FINISHED:
        raise ConflictError("cancel it first, so that the device can say what became of it", code="not_cancelled")
    if update.state is not S.RECALLING:
        return set()
    done = Recorded()
    changed = fold(tx, [(update, Fact(machine.silence(update)))], now, done)
    quarantine.after_failures(tx, {update.id: update}, changed, now)
    said = {"update": update.id, "rollout": rollout.plan.name, "begun": update.begun}
    tx.audit(actor, "recall.given_up", update.device_id, said, now)
    return done.rollouts


def _free_name(tx: Tx, release: Release) -> str:
    """Return a name for another rollout of a release; people may have given some of the kind to their own."""
    names = (f"{release.name}-{number}" for number in count(tx.count_rollouts([release.name]) + 1))
    return next(name for name in names if tx.rollout_named(name) is None)


def _check(tx: Tx, plan: Plan, release: Release, device: Device) -> None:
    brought = by_model(tx, release)
    why = cohort.left_out(
        device,
        plan,
        frozenset(brought),
        release.rel,
        ways=ways(tx, release),
        moves=release.moves,
        signing=signing_rule(tx, brought),
    )
    if why is not None:
        raise RequestError(f"{device.id} cannot have {release.name}: {why.text}", code=why.code)


def _selecting(device_id: str) -> str:
    return f'id == "{device_id}"'
