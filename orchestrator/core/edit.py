"""What an edit of a plan changes, what of it loosens a limit, and what cannot be edited any more.

Rules:
- Until a rollout is started its plan is a draft; only what the rollout is named after stays.
- After that pace, limits and stages that have not begun can be edited; whom it is for and what it brings cannot.
- What no line of the tables names cannot be edited: a new key of a plan is never loosened by accident.
- Stages are compared by their gates: before an edited plan goes beyond so many devices it must demand as much as the
  old one did, by a gate of its own for each; else it loosens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate
from typing import Any

from orchestrator.core.judging import gate
from orchestrator.core.judging.outside import ServiceGate
from orchestrator.core.model import Phase, Plan, Rollout, SizeKind, Stage, StagePlan, Urgency
from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Consent, Unknown
from orchestrator.core.rollout import FINISHED
from orchestrator.core.targeting import cohort
from orchestrator.errors import ConflictError, RequestError

Value = int | float | str | bool | None
Loosens = Callable[[Any, Any], bool]
"""Says whether going from one value to another lets more happen, sooner, or with less evidence."""

_NOMINAL = 1_000_000
"""Devices by which stages are compared while the cohort is not known."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value of a plan that an edit makes different.

    Attributes:
        path: where it stands in the file of a plan, such as `halt.tolerated` or `stages.2.devices`.
        before: what it was, None for nothing.
        after: what it becomes.
        loosens: whether that lets more happen, sooner, or with less evidence.
    """

    path: str
    before: Value
    after: Value
    loosens: bool


@dataclass(frozen=True, slots=True)
class _Gate:
    """What must hold before a rollout goes beyond so many devices."""

    upto: int
    soak_s: float
    limit: float
    approve: bool
    asked: ServiceGate | None

    def demands(self, other: _Gate) -> bool:
        """Say whether this one demands at least what the other does, on the way to no more devices."""
        milder = self.soak_s < other.soak_s or self.limit > other.limit or (other.approve and not self.approve)
        return self.upto <= other.upto and not milder and other.asked in (None, self.asked)


def _more(before: Any, after: Any) -> bool:
    return (math.inf if after is None else after) > (math.inf if before is None else before)


def _less(before: Any, after: Any) -> bool:
    return (-math.inf if after is None else after) < (-math.inf if before is None else before)


def _never_or_more(before: int, after: int) -> bool:
    return _more(before or None, after or None)


def _any(_before: Any, _after: Any) -> bool:
    return True


def _none(_before: Any, _after: Any) -> bool:
    return False


def _fewer_entries(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    return any(item not in after for item in before)


def _more_choice(before: frozenset[object], after: frozenset[object]) -> bool:
    return bool(before) and not (after and after <= before)


def _faster(before: Ramp | None, after: Ramp | None) -> bool:
    if before is None or after is None:
        return after is None
    steeper = any(getattr(after, name) > getattr(before, name) for name in ("base", "factor", "cap"))
    return steeper or after.every_s < before.every_s


def _order(before: Urgency, after: Urgency) -> bool:
    return list(Urgency).index(after) < list(Urgency).index(before)


_RETRIES: dict[str, Loosens] = {
    f"retry.{kind}.{name}": _more if name == "attempts" else _none
    for kind in ("transient", "unexplained", "suspicious")
    for name in ("attempts", "base_s", "factor", "cap_s", "jitter")
}

EDITABLE: Mapping[str, Loosens] = {
    "in_flight": _more,
    "confidence": _less,
    "resolved_share": _less,
    "max_unreached": _more,
    "halt.tolerated": _more,
    "halt.alpha": _less,  # the probability of a halt without need: a smaller one asks for more evidence
    "halt.lost_after_reboot": _less,
    "halt.max_failures": _more,
    "halt.max_failure_rate": _more,
    "halt.min_sample": _more,
    "evidence.registered_s": _less,
    "evidence.strata": _less,
    "deadlines.accept_s": _more,
    "deadlines.download_s": _more,
    "deadlines.install_s": _more,
    "deadlines.confirm_s": _more,
    **_RETRIES,
    "retry.quarantine_after": _never_or_more,
    "windows.windows": _any,
    "windows.freezes": _fewer_entries,
    "windows.fallback": _any,
    "urgent_from": _order,
    "ramp": _faster,
    "jitter_s": _less,
    "soonest_s": _less,
    "require.battery_pct": _less,
    "require.charging": _less,
    "require.free_bytes": _less,
    "require.links": _more_choice,
    "require.unmetered": _less,
    "require.uptime_s": _less,
    "require.max_age_s": _more,
    "require.unknown": lambda _, after: after is Unknown.ALLOW,
    "consent.consent": lambda _, after: after is Consent.NOT_NEEDED,
    "consent.deferrals": _less,
    "consent.longest_s": _less,
    "health": _fewer_entries,
    "gate": lambda before, _: before is not None,
}
"""What can be edited while a rollout is on its way, and when that loosens it. `core` names, without the stages."""

FIXED = frozenset(
    [
        "delivery",
        "urgency",
        "models",
        "groups",
        "select",
        "open_cohort",
        "stratify",
        "severity",
        "advisories",
        "fixes_below",
    ]
)
"""What can be edited in a draft alone."""

NAMING = frozenset({"name", "release", "seed", "leaves"})
"""What is never edited."""

_FILE = {
    "models": "target.models",
    "groups": "target.groups",
    "open_cohort": "cohort",
    "fixes_below": "fixes.below",
    "windows.windows": "window.open",
    "windows.freezes": "freeze",
    "windows.fallback": "window.fallback",
    "consent.consent": "consent.mode",
    "require.battery_pct": "require.battery",
    "require.free_bytes": "require.free",
    "retry.quarantine_after": "quarantine.after",
}
_FILE_ENDS = {"base_s": "wait", "cap_s": "longest"}


def changes(rollout: Rollout, after: Plan) -> tuple[Change, ...]:
    """Return what another plan for a rollout makes different, empty if nothing.

    Args:
        rollout: the rollout as it stands, with its present plan.
        after: the plan that it shall have.

    Raises:
        ConflictError: the rollout is over.
        RequestError: something is different that cannot be edited any more; all of it is named.
    """
    if rollout.phase in FINISHED:
        raise ConflictError(f"the rollout is {rollout.phase}; its plan is history. Make a new rollout", code="over")
    draft = rollout.phase is Phase.DRAFT
    refused: list[str] = []
    found: list[Change] = []
    old, new = dict(settings(rollout.plan)), dict(settings(after))
    for path in (path for path in new if old[path] != new[path]):
        if path in NAMING or not (draft or path in EDITABLE):
            refused.append(_in_file(path))
        else:
            loosens = not draft and EDITABLE[path](old[path], new[path])
            found.append(Change(_in_file(path), _value(path, old[path]), _value(path, new[path]), loosens))
    staged = _stages(rollout.plan, after)
    unseen = _differing(rollout.plan, after) - {at for at, _ in staged}
    refused += [f"stages.{at}" for at in sorted(unseen)]
    refused += [item.path for at, item in staged if not draft and not _is_open(rollout, after, at, item.path)]
    if refused:
        raise RequestError(f"{_cannot(rollout)}: {', '.join(refused)}", code="not_editable")
    loosened = _loosened(rollout, after) if staged and not draft else set()
    if loosened.isdisjoint(at for at, _ in staged):
        loosened = {at for at, _ in staged if loosened}
    return (*found, *(replace(item, loosens=at in loosened) for at, item in staged))


def edited(rollout: Rollout, after: Plan) -> Rollout:
    """Return a rollout with another plan; stages that have not begun are sized anew, and nothing else moves."""
    return replace(rollout, plan=after, stages=_sized(rollout, after), plan_version=rollout.plan_version + 1)


def settings(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Yield every value of a plan but its stages, by its place in `core`."""
    yield from ((path, value) for path, value in _flat("", plan) if path != "stages")


def _flat(place: str, value: object) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, Ramp | ServiceGate):
        for item in fields(value):
            yield from _flat(f"{place}.{item.name}" if place else item.name, getattr(value, item.name))
    else:
        yield place, value


def _in_file(path: str) -> str:
    head, dot, end = path.rpartition(".")
    return _FILE.get(path) or f"{head}{dot}{_FILE_ENDS.get(end, end.removesuffix('_s'))}"


def _value(path: str, value: Any) -> Value:
    """Return a value as it is recorded: numbers and words as they are, the rest in a word."""
    if isinstance(value, Ramp):
        return f"{value.base} a minute, times {value.factor:g} every {value.every_s:g}s, up to {value.cap}"
    if isinstance(value, ServiceGate):
        return _entry(value)
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, tuple):
        return "; ".join(_entry(item) for item in value) or None
    if path == "require.battery_pct" and value is not None:
        return float(value) / 100
    return str(value) if isinstance(value, str) else value


def _entry(value: Any) -> str:
    """Return one entry of a list with all that it says, so that nothing of it changes unseen."""
    if not is_dataclass(value):
        return str(value)
    said = {item.name: getattr(value, item.name) for item in fields(value)}
    words = {name: " ".join(map(str, sorted(it))) if isinstance(it, frozenset) else it for name, it in said.items()}
    return ", ".join(f"{name[:-2]} {it:g}s" if name.endswith("_s") else f"{name} {it}" for name, it in words.items())


def _cannot(rollout: Rollout) -> str:
    if rollout.phase is Phase.DRAFT:
        return "what a rollout is named after is never edited; make another rollout for another"
    return f"it is {rollout.phase}, and this cannot be edited once a rollout was started; abort it and make a new one"


# Stages


def _stages(before: Plan, after: Plan) -> list[tuple[int, Change]]:
    """Return what is different in the stages, each with the index of its stage."""
    found = []
    for index in range(max(len(before.stages), len(after.stages))):
        old, new = _words(before.stages, index), _words(after.stages, index)
        for name in (name for name in (old | new) if _differ(old.get(name), new.get(name))):
            found.append((index, Change(f"stages.{index}.{name}", old.get(name), new.get(name), loosens=False)))
    return found


def _differing(before: Plan, after: Plan) -> set[int]:
    pairs = zip(before.stages, after.stages, strict=False)
    return {index for index, (old, new) in enumerate(pairs) if old != new}


def _differ(before: Value, after: Value) -> bool:
    """Say whether two values differ; a stage that is not there has none, which is no news where the other is plain."""
    return before != after and not (None in (before, after) and not (before or after))


def _words(stages: Sequence[StagePlan], index: int) -> dict[str, Value]:
    if index >= len(stages):
        return {}
    stage = stages[index]
    sizes = {SizeKind.COUNT: str(stage.size), SizeKind.PPM: f"{stage.size / 10_000:g}%", SizeKind.REST: "rest"}
    asked = _entry(stage.gate) if stage.gate else None
    return {
        "devices": sizes[stage.kind],
        "soak": stage.soak_s,
        "max_failure_bound": stage.limit,
        "group": stage.group or None,
        "approve": stage.approve,
        "gate": asked,
    }


def _is_open(rollout: Rollout, after: Plan, index: int, path: str) -> bool:
    """Say whether a stage can still be edited: not once it has passed, and its size only before it began."""
    sizes = path.endswith((".devices", ".group")) or not index < len(after.stages)
    if sizes and any(stage.group for stage in (*rollout.plan.stages, *after.stages)):
        return False  # how many are in a group was counted when the rollout began
    if rollout.cohort_size is None:
        return True
    return index > rollout.stage or (index == rollout.stage and not sizes)


def _loosened(rollout: Rollout, after: Plan) -> set[int]:
    """Return the stages whose gate the edited plan has no equal for; the last one where it ends with more, or less."""
    before = rollout.plan
    if rollout.cohort_size is None and _sizes(before) != _sizes(after):
        return set(range(max(len(before.stages), len(after.stages))))
    old, new = _gates(before, _known(rollout, before)), _gates(after, _known(rollout, after))
    loosened = set()
    free = 0
    for index, wanted in enumerate(old[:-1]):
        if wanted.upto >= new[-1].upto:
            break  # the edited plan ends here or before
        equal = next((at for at in range(free, len(new)) if new[at].demands(wanted)), None)
        if equal is None:
            loosened.add(index)
        else:
            free = equal + 1
    last = new[-1]
    if after.stages[-1].limit is None and before.stages[-1].limit is None:
        last = replace(last, limit=old[-1].limit)  # by default: with fewer devices it can show less, and opens nothing
    if not any(last.demands(wanted) for wanted in old):
        loosened.add(len(new) - 1)
    return loosened


def _gates(plan: Plan, stages: Sequence[Stage]) -> list[_Gate]:
    """Return the gates of a plan with stages of these sizes."""
    reach = accumulate(stage.target for stage in stages)
    bases = accumulate(stage.base for stage in stages)
    return [
        _Gate(
            upto,
            wanted.soak_s,
            gate.default_limit(base, plan.confidence) if wanted.limit is None else wanted.limit,
            wanted.approve,
            wanted.gate or plan.gate,
        )
        for wanted, upto, base in zip(plan.stages, reach, bases, strict=True)
    ]


def _known(rollout: Rollout, plan: Plan) -> tuple[Stage, ...]:
    return _sized(rollout, plan) or cohort.stages_for(plan, _NOMINAL)


def _sized(rollout: Rollout, plan: Plan) -> tuple[Stage, ...]:
    """Return the stages of a rollout under another plan, none while its cohort is not known."""
    if not rollout.stages or _sizes(rollout.plan) == _sizes(plan):
        return rollout.stages
    begun = rollout.stages[: rollout.stage + 1]
    size = rollout.cohort_size or 0
    left = max(size - sum(stage.target for stage in begun), 0)
    later = []
    for wanted in plan.stages[len(begun) :]:
        base = cohort.size_of(wanted, size, left)
        left -= base
        later.append(Stage(base=base, target=base))
    return (*begun, *later)


def _sizes(plan: Plan) -> list[tuple[SizeKind, int, str]]:
    return [(stage.kind, stage.size, stage.group) for stage in plan.stages]
