"""Folds facts into updates, within the transaction of whoever has the facts.

Rules:
- All facts of one call are folded in order before one row is written per update.
- The tally changes are written in the transaction that caused them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core import update as machine
from orchestrator.core.model import Rollout, Update
from orchestrator.core.update import IN_FLIGHT, Context, Fact, Ignored
from orchestrator.ports import Tx


@dataclass(slots=True)
class Recorded:
    """What a transaction of the recorder did.

    Attributes:
        rollouts: rollouts whose tallies changed.
        ignored: facts that changed nothing, by reason.
        unknown: identifiers of senders that are not registered.
        planned: whether deliveries were planned.
        judged: deadlines that had passed and were looked at.
    """

    rollouts: set[int] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    planned: bool = False
    judged: int = 0


def fold(tx: Tx, facts: Iterable[tuple[Update, Fact]], now: float, done: Recorded) -> dict[int, Update]:
    """Fold facts into updates, store what changed and the tally changes.

    Returns:
        The changed updates by number.
    """
    contexts: dict[int, Context] = {}
    before: dict[int, Update] = {}
    after: dict[int, Update] = {}
    for update, fact in facts:
        current = after.get(update.id, update)
        if update.rollout_id not in contexts:
            contexts[update.rollout_id] = context(tx.rollout(update.rollout_id))
        result = machine.apply(current, fact, contexts[update.rollout_id], now)
        if isinstance(result, Ignored):
            done.ignored[result.reason] += 1
            continue
        before.setdefault(update.id, update)
        after[update.id] = result
    slots = [item for item in after.values() if (item.state in IN_FLIGHT) != (before[item.id].state in IN_FLIGHT)]
    tx.save_updates(after.values(), slots)
    _change_tallies(tx, before, after, done)
    return after


def context(rollout: Rollout | None) -> Context:
    """Return what the update machine must know of a rollout."""
    assert rollout is not None, "an update always belongs to a rollout"
    return Context(rollout.plan.deadlines, rollout.stage, rollout.epoch, rollout.plan.retry, rollout.plan.health)


def _change_tallies(tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], done: Recorded) -> None:
    changed: defaultdict[int, list[Update]] = defaultdict(list)
    for update in after.values():
        changed[update.rollout_id].append(update)
    for rollout_id, updates in changed.items():
        tx.change_tallies(rollout_id, machine.tally_changes([before[item.id] for item in updates], updates))
        done.rollouts.add(rollout_id)
