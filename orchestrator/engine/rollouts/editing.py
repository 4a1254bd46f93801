"""Edits of the plan of a rollout: what changes, who must agree, and every version kept.

Rules:
- An edit is one transaction: the plan, its version, the event and the audit entry, or none of them.
- What loosens a limit waits for another person, as everything that goes on against evidence does.
- Who edits says which version they saw; two who edit at once cannot overwrite each other.
- An edit moves nothing and voids nothing: what was sealed stays good, and the conductor goes on with the new plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from orchestrator.core import edit
from orchestrator.core.edit import Change, Value
from orchestrator.core.model import Phase, Plan, Rollout
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import ApprovalNeededError, Matter, Proposal
from orchestrator.engine import named
from orchestrator.engine.offers import holds
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.trust.approvals import Ask, Rules, Wish, admit, are_asked
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import Event, Lane, PlanVersion, Store, Tx
from orchestrator.units import format_duration, format_share, format_size

_DURATIONS = frozenset(
    # last words of a path
    (
        "accept",
        "download",
        "install",
        "confirm",
        "wait",
        "longest",
        "soak",
        "uptime",
        "max_age",
        "registered",
        "soonest",
    )
)
_SHARES = frozenset(
    (
        "tolerated",
        "alpha",
        "max_failure_rate",
        "confidence",
        "resolved_share",
        "max_unreached",
        "max_failure_bound",
        "battery",
    )
)

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit led to, or would lead to.

    Attributes:
        version: version of the plan after it; the present one if nothing is different.
        changes: what it makes different.
    """

    version: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An edit that a person wants.

    Attributes:
        name: the rollout.
        plan: the plan that it shall have.
        expect: version of the plan that the person saw, None for whatever it is.
    """

    name: str
    plan: Plan
    expect: int | None = None


def compare(tx: Tx, wanted: Wanted) -> Edited:
    """Return what an edit would make different.

    Raises:
        NotFoundError: there is no such rollout.
        ConflictError: it is over, or its plan is another one by now (`plan_changed`).
        RequestError: something is different that cannot be edited any more (`not_editable`).
    """
    rollout, changes = _compare(tx, wanted)
    return Edited(rollout.plan_version + bool(changes), changes)


async def carry_out(
    conductor: Conductor, store: Store, rules: Rules, now: Callable[[], float], wanted: Wanted, wish: Wish
) -> Edited:
    """Edit the plan of a rollout; an edit that makes nothing different changes nothing.

    Raises:
        ApprovalNeededError: others must approve it first.
        NotFoundError: there is no such rollout, or a draft would bring a release that does not exist.
        ConflictError: it is over, or its plan is another one by now (`plan_changed`).
        RequestError: something is different that cannot be edited any more, or no reason is given.
        ForbiddenError: the glass cannot be broken from here.
    """
    if not wish.reason.strip():
        raise RequestError("to edit a plan, say why: it needs a reason", code="reason_needed")
    work = partial(_edit, wanted=wanted, wish=wish, rules=rules, now=now())
    done = await store.transact(Lane.OPERATOR, work)
    if isinstance(done, Proposal):
        raise ApprovalNeededError(done)
    rollout, edited = done
    if edited.changes:
        conductor.changed({rollout.id})
    return edited


def history(tx: Tx, name: str) -> list[View]:
    """Return the versions of the plan of a rollout, oldest first.

    Raises:
        NotFoundError: there is no such rollout.
    """
    return [
        {
            "version": item.version,
            "at": item.at,
            "actor": item.actor,
            "reason": item.reason,
            "changes": views_of(item.changes),
        }
        for item in tx.plan_versions(named.rollout(tx, name).id)
    ]


def views_of(changes: Sequence[Change]) -> list[View]:
    """Return changes as they are shown: values as the file of a plan has them."""
    return [
        {
            "path": item.path,
            "before": shown(item.path, item.before),
            "after": shown(item.path, item.after),
            "loosens": item.loosens,
        }
        for item in changes
    ]


def shown(path: str, value: Value) -> str | None:
    """Return a value as the file of a plan has it, None for nothing."""
    word = path.rpartition(".")[2]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if path == "jitter" or word in _DURATIONS:
        return format_duration(value)
    if word in _SHARES or (word == "jitter" and path != "jitter"):
        return format_share(value)
    return format_size(int(value)) if path == "require.free" else f"{value:g}"


def _edit(tx: Tx, wanted: Wanted, wish: Wish, rules: Rules, now: float) -> tuple[Rollout, Edited] | Proposal:
    rollout, changes = _compare(tx, wanted)
    if not changes:
        return rollout, Edited(rollout.plan_version, ())
    after = edit.edited(rollout, _whole(rollout, wanted.plan))
    if rollout.phase is Phase.DRAFT:
        operations.brought(tx, after.plan)
    ask = _ask(rollout, after, changes) if are_asked(tx, rules) else None
    waits = admit(tx, ask, wish, rules, now) if ask else None
    if waits is not None:
        return waits
    _save(tx, after, changes, wish, now)
    return after, Edited(after.plan_version, changes)


def _compare(tx: Tx, wanted: Wanted) -> tuple[Rollout, tuple[Change, ...]]:
    rollout = named.rollout(tx, wanted.name)
    changes = edit.changes(rollout, _whole(rollout, wanted.plan))
    if changes and wanted.expect not in (None, rollout.plan_version):
        last = tx.plan_versions(rollout.id)[-1]
        text = (
            f"the plan of {wanted.name} is version {rollout.plan_version} by now, made by {last.actor}, and not "
            f"{wanted.expect}; look at `ota rollout history {wanted.name}` and edit that"
        )
        raise ConflictError(text, code="plan_changed")
    return rollout, changes


def _whole(rollout: Rollout, plan: Plan) -> Plan:
    """Return a plan with what no file says: that it is a rollback stays."""
    return replace(plan, leaves=rollout.plan.leaves)


def _ask(before: Rollout, after: Rollout, changes: Sequence[Change]) -> Ask | None:
    name = after.plan.name
    need = approval.for_edit([item.path for item in changes if item.loosens])
    if need is None:
        return None
    stands = (before.plan_version, before.version, before.stage)
    bound = approval.digest("edit", name, asdict(after.plan), *stands)
    return Ask(Matter.EDIT, name, need, bound, f"edit of {name}, version {after.plan_version} ({summary(changes)})")


def summary(changes: Sequence[Change]) -> str:
    """Return changes on one line."""
    return ", ".join(f"{item['path']} {item['before'] or '-'} -> {item['after'] or '-'}" for item in views_of(changes))


def _save(tx: Tx, after: Rollout, changes: tuple[Change, ...], wish: Wish, now: float) -> None:
    actor, name = wish.caller.name, after.plan.name
    text = f"plan version {after.plan_version}: {summary(changes)}; {wish.reason.strip()}"
    tx.save_rollout(after, Event(now, after.phase, "edited", text, actor, after.stage))
    kept = PlanVersion(after.plan_version, after.plan, changes, actor, wish.reason.strip(), now)
    tx.add_plan_version(after.id, kept)
    said = {"version": kept.version, "changes": [summary([item]) for item in changes], "reason": kept.reason}
    said |= {"loosens": [item.path for item in changes if item.loosens], "sha256": approval.digest(asdict(kept.plan))}
    tx.audit(actor, "rollout.edited", name, said, now)
    holds.look_anew(tx, after)
