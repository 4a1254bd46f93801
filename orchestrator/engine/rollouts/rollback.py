"""Rollback: a new staged rollout that takes devices back from a release to an earlier one.

Rules:
- It is a draft like any other: looked at, edited, started and approved; the devices check it once more.
- Only a statement allows it: that of the earlier artifact has to name the release that is left. We cannot make one.
- It takes the devices that run the release now, in the stages and within the limits of the plan that brought it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.core.model import Artifact, Phase, Plan, Release, Rollout
from orchestrator.engine import named
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.releases import by_model, release_of
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Tx
from orchestrator.wire.topics import is_identifier

_STOPPED = frozenset({Phase.HALTED, Phase.DONE, Phase.ABORTED})
"""Phases in which no more devices get the release."""


@dataclass(frozen=True, slots=True)
class Back:
    """A rollback that a person wants.

    Attributes:
        name: the rollout whose release shall be left.
        to: the earlier release; "" for the newest one that has all it takes.
        new: what the rollback shall be called; "" for the name and `-rollback`.
        reason: why.
    """

    name: str
    to: str
    new: str
    reason: str


def draft(tx: Tx, back: Back, actor: str, now: float) -> Rollout:
    """Make the draft of a rollback.

    Raises:
        NotFoundError: there is no such rollout, or no such release.
        ConflictError: the rollout still brings its release (`not_stopped`), or the name is taken.
        RequestError: no release will do; `downgrade_not_allowed` where statements are in the way.
    """
    rollout = named.rollout(tx, back.name)
    if rollout.phase not in _STOPPED:
        text = f"{back.name} is {rollout.phase}; halt it first, or devices go forward and back at once"
        raise ConflictError(text, code="not_stopped")
    name = back.new or f"{back.name}-rollback"
    if not is_identifier(name):
        raise RequestError(f"{name[:80]!r} is not an identifier; name the rollback with --name")
    left = release_of(tx, rollout)
    release = _named(tx, back.to) if back.to else _newest(tx, rollout.plan, left)
    faults = _faults(tx, rollout.plan, left, release)
    if faults:
        raise RequestError("; ".join(faults), code="downgrade_not_allowed")
    made = operations.create_rollout(tx, _plan(rollout.plan, name, release, left), actor, now)
    said = {"of": back.name, "from": left.name, "to": release.name, "reason": back.reason}
    tx.audit(actor, "rollout.rollback", name, said, now)
    return made


def _plan(plan: Plan, name: str, release: Release, left: Release) -> Plan:
    return replace(plan, name=name, release=release.name, leaves=left.rel, seed=None, advisories=(), fixes_below=None)


def _named(tx: Tx, name: str) -> Release:
    found = tx.release(name)
    if found is None:
        raise NotFoundError(f"there is no release named {name[:80]!r}; see `ota release list`")
    return found


def _newest(tx: Tx, plan: Plan, left: Release) -> Release:
    """Return the newest earlier release for the same hardware, one whose statements allow it if there is any."""
    older = sorted((item for item in tx.releases() if item.rel < left.rel), key=lambda item: item.rel, reverse=True)
    fitting = [item for item in older if not any(_missing(tx, plan, left, item))]
    allowed = [item for item in fitting if not _faults(tx, plan, left, item)]
    for found in (*allowed, *fitting):
        return found
    raise RequestError(f"there is no release before {left.name} for its hardware; import one, or roll a new one out")


def _faults(tx: Tx, plan: Plan, left: Release, release: Release) -> list[str]:
    """Return why devices would not go back to a release, empty if they would."""
    if release.rel >= left.rel:
        return [f"{release.name} is not older than {left.name}; bring it with `ota rollout create`"]
    faults = list(_missing(tx, plan, left, release))
    newer = by_model(tx, left)
    for model, artifact in _pairs(tx, plan, left, release):
        if left.rel not in artifact.leaves:
            flags = " ".join(f"--leave {rel}" for rel in sorted({*artifact.leaves, left.rel}))
            faults.append(
                f"no statement allows to leave release counter {left.rel} for {release.name} on {model}: sign it "
                f"again with `ota artifact sign {flags} --replace`, and import it once more"
            )
        if artifact.sec < newer[model].sec:
            faults.append(f"{release.name} has an older security epoch than {left.name} on {model}; devices refuse it")
    return faults


def _missing(tx: Tx, plan: Plan, left: Release, release: Release) -> Iterable[str]:
    """Yield the hardware that a release has nothing for."""
    newer, older = by_model(tx, left), by_model(tx, release)
    for model in plan.models or sorted(newer):
        if model not in older or older[model].component != newer[model].component:
            yield f"{release.name} has no {newer[model].component} for {model}"


def _pairs(tx: Tx, plan: Plan, left: Release, release: Release) -> list[tuple[str, Artifact]]:
    older = by_model(tx, release)
    return [(model, older[model]) for model in plan.models or sorted(by_model(tx, left)) if model in older]
