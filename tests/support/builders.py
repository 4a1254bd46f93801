"""Short ways to make core data in tests: every field has a plain default, every one can be named.

Rules:
- A builder returns the frozen dataclass itself, nothing wrapped; times count from 0.
- Sizes of stages are counts; `REST` stands for "all that are left".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.core.model import (
    Device,
    Phase,
    Plan,
    Reason,
    Rollout,
    SizeKind,
    Stage,
    StagePlan,
    TallyKey,
    Update,
    UpdateState,
)
from orchestrator.core.targeting import cohort

REST = -1
"""Size of a stage that takes all devices left."""


def make_stage_plan(size: int, limit: float | None = None, soak_s: float = 0.0) -> StagePlan:
    """Return a stage of `size` devices, or of all that are left with `REST`."""
    if size == REST:
        return StagePlan(SizeKind.REST, 0, soak_s, limit)
    return StagePlan(SizeKind.COUNT, size, soak_s, limit)


def make_plan(
    sizes: Sequence[int] = (20, 60, REST), limits: Sequence[float | None] = (), soak_s: float = 0.0, **changes: Any
) -> Plan:
    """Return a plan with stages of these sizes; limits that are not given are the default ones."""
    padded = [*limits, *[None] * (len(sizes) - len(limits))]
    stages = tuple(make_stage_plan(size, limit, soak_s) for size, limit in zip(sizes, padded, strict=True))
    return replace(Plan(name="spring", release="radio-2.0.0", stages=stages), **changes)


def make_draft(plan: Plan | None = None, **changes: Any) -> Rollout:
    """Return a rollout that was just created."""
    reason = Reason("created", "it was created")
    draft = Rollout(id=7, plan=plan or make_plan(), phase=Phase.DRAFT, reason=reason, actor="ann", moved_at=0.0)
    return replace(draft, **changes)


def make_rollout(plan: Plan | None = None, cohort_size: int = 200, **changes: Any) -> Rollout:
    """Return a running rollout in its first stage, with the stages that its plan gives this cohort."""
    plan = plan or make_plan()
    known = {"phase": Phase.RUNNING, "stages": cohort.stages_for(plan, cohort_size), "cohort_size": cohort_size}
    return make_draft(plan, **(known | changes))


def make_stage(base: int, **changes: Any) -> Stage:
    """Return a stage that has all the devices planned for it."""
    return replace(Stage(base=base, target=base), **changes)


def make_update(state: UpdateState = UpdateState.OFFERED, **changes: Any) -> Update:
    """Return an update of device `d1` to release counter 2."""
    update = Update(
        id=31, rollout_id=7, device_id="d1", stage=0, stratum="m1", rel=2, state=state, state_at=0.0, attempt=1
    )
    return update._replace(**changes)


def make_device(device: str = "d1", model: str = "m1", groups: Sequence[str] = (), **changes: Any) -> Device:
    """Return a registered device that runs release counter 1."""
    known = Device(
        id=device,
        model=model,
        groups=tuple(groups),
        version="1.0.0",
        rel=1,
        registered_at=0.0,
        seen_at=None,
        online=None,
    )
    return replace(known, **changes)


def make_tally(counts: Mapping[str, int], *, stage: int = 0, stratum: str = "m1", epoch: int = 0) -> Counter[TallyKey]:
    """Return the tally of one stage and stratum from counts by state word."""
    return Counter({TallyKey(epoch, stage, stratum, state): count for state, count in counts.items()})
