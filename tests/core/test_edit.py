"""Edits of plans: what they change, what of it loosens, and what cannot be edited any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import edit
from orchestrator.core.judging.outside import ServiceGate
from orchestrator.core.model import EvidenceRule, HaltRule, Phase, Rollout, SizeKind, Stage, StagePlan, Urgency
from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Link, Requirements, Unknown
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.pace.window import Freeze, Window, Windows
from orchestrator.core.targeting.advisory import Severity
from orchestrator.errors import ConflictError, RequestError
from tests.support.builders import REST, make_draft, make_plan, make_rollout

PLAN = make_plan((20, 60, REST), soak_s=3600.0)
RUNNING = make_rollout(PLAN, 1000)
GATE = ServiceGate("https://metrics.example/", "up == true")


def changed(rollout: Rollout = RUNNING, **changes: Any) -> tuple[edit.Change, ...]:
    return edit.changes(rollout, replace(rollout.plan, **changes))


def loosened(rollout: Rollout = RUNNING, **changes: Any) -> list[str]:
    return [item.path for item in changed(rollout, **changes) if item.loosens]


def staged(*sizes: int, soak_s: float = 3600.0, limits: tuple[float | None, ...] = ()) -> tuple[StagePlan, ...]:
    return make_plan(sizes, limits, soak_s).stages


# Every key


def test_every_key_of_a_plan_is_decided_about() -> None:
    found = {path for path, _ in edit.settings(PLAN)}
    assert found == set(edit.EDITABLE) | edit.FIXED | edit.NAMING
    assert not set(edit.EDITABLE) & edit.FIXED


def test_the_same_plan_changes_nothing() -> None:
    assert changed() == ()


@pytest.mark.parametrize("name", sorted(edit.FIXED | edit.NAMING))
def test_whom_it_is_for_and_what_it_brings_stays(name: str) -> None:
    other: Any = {
        "delivery": "push",
        "urgency": Urgency.SECURITY,
        "open_cohort": True,
        "models": ("m2",),
        "groups": ("lab",),
        "seed": 7,
        "fixes_below": 7,
        "advisories": ("CVE-2026-1",),
        "severity": Severity.HIGH,
    }.get(name, "other")
    with pytest.raises(RequestError) as refused:
        changed(**{name: other})
    assert refused.value.code == "not_editable"
    draft = make_draft(PLAN)
    if name in edit.FIXED:
        assert [item.loosens for item in changed(draft, **{name: other})] == [False]
    else:
        with pytest.raises(RequestError):
            changed(draft, **{name: other})


def test_all_that_cannot_be_edited_is_named_at_once_as_the_file_calls_it() -> None:
    with pytest.raises(RequestError) as refused:
        changed(models=("m2",), open_cohort=True, in_flight=5)
    assert refused.value.message.endswith("abort it and make a new one: target.models, cohort")


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.ABORTED])
def test_what_is_over_is_history(phase: Phase) -> None:
    with pytest.raises(ConflictError) as refused:
        changed(replace(RUNNING, phase=phase))
    assert refused.value.code == "over"


def test_a_draft_may_become_anything_and_loosens_nothing() -> None:
    draft = make_draft(PLAN)
    assert loosened(draft, in_flight=5000, stages=staged(REST, soak_s=0)) == []
    assert changed(draft, in_flight=5000) == (edit.Change("in_flight", 100, 5000, loosens=False),)


# What loosens: each value in both directions

SAFE_FIRST: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("in_flight", {"in_flight": 50}, {"in_flight": 51}),
    ("confidence", {"confidence": 0.99}, {"confidence": 0.9}),
    ("resolved_share", {"resolved_share": 0.99}, {"resolved_share": 0.5}),
    ("max_unreached", {"max_unreached": 0.1}, {"max_unreached": 0.2}),
    ("halt.tolerated", {"halt": HaltRule(tolerated=0.01)}, {"halt": HaltRule(tolerated=0.02)}),
    ("halt.alpha", {"halt": HaltRule(alpha=0.1)}, {"halt": HaltRule(alpha=0.05)}),
    ("halt.lost_after_reboot", {"halt": HaltRule()}, {"halt": HaltRule(lost_after_reboot=False)}),
    ("halt.max_failures", {"halt": HaltRule(max_failures=3)}, {"halt": HaltRule()}),
    ("halt.max_failure_rate", {"halt": HaltRule(max_failure_rate=0.1)}, {"halt": HaltRule(max_failure_rate=0.2)}),
    ("ramp", {"ramp": Ramp(10, 2.0, 100, 60.0)}, {"ramp": None}),
    ("ramp", {"ramp": Ramp(10, 2.0, 100, 60.0)}, {"ramp": Ramp(10, 2.0, 100, 30.0)}),
    ("ramp", {"ramp": Ramp(10, 2.0, 100, 60.0)}, {"ramp": Ramp(10, 2.0, 200, 60.0)}),
    ("jitter", {"jitter_s": 60.0}, {"jitter_s": 0.0}),
    ("urgent_from", {"urgent_from": Urgency.EMERGENCY}, {"urgent_from": Urgency.SECURITY}),
    ("freeze", {"windows": Windows((), (Freeze(1, 2, "fair"),))}, {"windows": Windows()}),
    ("require.battery", {"require": Requirements(battery_pct=40)}, {"require": Requirements()}),
    ("require.links", {"require": Requirements(links=frozenset({Link.WIFI}))}, {"require": Requirements()}),
    ("require.unknown", {"require": Requirements()}, {"require": Requirements(unknown=Unknown.ALLOW)}),
    ("evidence.registered", {"evidence": EvidenceRule(7200.0)}, {"evidence": EvidenceRule(3600.0)}),
    ("evidence.strata", {"evidence": EvidenceRule(strata=2)}, {"evidence": EvidenceRule(strata=1)}),
    ("quarantine.after", {"retry": RetryPolicy(quarantine_after=3)}, {"retry": RetryPolicy(quarantine_after=0)}),
    (
        "retry.transient.attempts",
        {"retry": RetryPolicy(transient=Retry(3, 60.0))},
        {"retry": RetryPolicy(transient=Retry(4, 60.0))},
    ),
]


@pytest.mark.parametrize(("path", "safe", "loose"), SAFE_FIRST)
def test_what_loosens_in_one_direction_does_not_in_the_other(
    path: str, safe: dict[str, Any], loose: dict[str, Any]
) -> None:
    before = replace(RUNNING, plan=replace(PLAN, **safe))
    assert loosened(before, **loose) == [path]
    back = replace(RUNNING, plan=replace(PLAN, **loose))
    assert [item.path for item in changed(back, **safe)] == [path]
    assert loosened(back, **safe) == []


def test_other_hours_always_loosen_because_nobody_can_tell() -> None:
    assert loosened(windows=Windows((Window(0, 3600),))) == ["window.open"]


def test_a_service_that_is_asked_is_added_freely_and_never_taken_away_freely() -> None:
    assert loosened(gate=GATE) == []
    assert loosened(replace(RUNNING, plan=replace(PLAN, gate=GATE)), gate=None) == ["gate"]


def test_a_service_of_a_stage_is_not_exchanged_for_another_unseen() -> None:
    with_gate = (PLAN.stages[0], replace(PLAN.stages[1], gate=GATE), PLAN.stages[2])
    at = replace(RUNNING, plan=replace(PLAN, stages=with_gate))
    other = (PLAN.stages[0], replace(PLAN.stages[1], gate=replace(GATE, url="https://other.example/")), PLAN.stages[2])
    [change] = changed(at, stages=other)
    assert (change.path, change.loosens) == ("stages.1.gate", True)
    assert "https://other.example/" in str(change.after)
    assert loosened(stages=with_gate) == []


def test_every_key_of_a_stage_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody decided about is refused, not lost."""
    whole = edit._words
    monkeypatch.setattr(edit, "_words", lambda *given: {**whole(*given), "soak": None})
    with pytest.raises(RequestError, match=r"stages\.1$"):
        changed(stages=(PLAN.stages[0], replace(PLAN.stages[1], soak_s=1.0), PLAN.stages[2]))


def test_what_is_in_a_list_is_told_whole() -> None:
    [change] = changed(windows=Windows((Window(0, 3600, frozenset({1, 0})),)))
    assert (change.before, change.after) == (None, "begins 0s, ends 3600s, days 0 1")


def test_a_longer_wait_before_a_retry_is_no_loosening() -> None:
    slower = RetryPolicy(transient=Retry(5, 600.0))
    assert [(item.path, item.loosens) for item in changed(retry=slower)] == [("retry.transient.wait", False)]


# Stages


def test_the_open_stage_keeps_its_size_and_a_passed_one_everything() -> None:
    at = replace(RUNNING, stage=1)
    for stages, path in (
        (staged(30, 60, REST), "stages.0.devices"),
        ((replace(PLAN.stages[0], soak_s=7200.0), *PLAN.stages[1:]), "stages.0.soak"),
        (staged(20, 50, REST), "stages.1.devices"),
        (staged(20), "stages.1.devices"),
    ):
        with pytest.raises(RequestError) as refused:
            changed(at, stages=stages)
        assert path in refused.value.message
    longer = (PLAN.stages[0], replace(PLAN.stages[1], soak_s=7200.0), PLAN.stages[2])
    assert changed(at, stages=longer) == (edit.Change("stages.1.soak", 3600.0, 7200.0, loosens=False),)


@pytest.mark.parametrize(
    ("stages", "loosens"),
    [
        (staged(20, 60, REST), False),
        (staged(20, 60, 200, REST), False),  # one more gate on the way
        (staged(20, 200, REST), True),
        (staged(20, REST), True),
        (staged(20, 60), False),  # it ends early
        (staged(20, 60, REST, soak_s=60.0), True),
        (staged(20, 60, REST, soak_s=7200.0), False),
        (staged(20, 60, REST, limits=(None, 0.5, None)), True),
        (staged(20, 60, REST, limits=(None, 0.01, None)), False),
        (staged(20, 60, REST, limits=(None, None, 0.001)), False),
        (staged(20, 60, REST, limits=(None, None, 0.9)), True),
        (staged(20, 10, REST), True),  # fewer devices prove less before the rest
        (staged(20, 10, 50, REST), False),
    ],
)
def test_stages_loosen_where_less_is_demanded_before_so_many_devices(
    stages: tuple[StagePlan, ...], loosens: bool
) -> None:
    assert bool(loosened(stages=stages)) is loosens


def test_a_plan_that_ended_early_may_not_silently_take_all() -> None:
    before = make_rollout(make_plan((20, 60)), 1000)
    assert loosened(before, stages=make_plan((20, 60, REST)).stages) == ["stages.2.devices"]


def test_stages_that_have_not_begun_are_sized_anew_and_the_others_stay() -> None:
    at = replace(RUNNING, stages=(Stage(20, 34, passed_at=5.0), *RUNNING.stages[1:]), stage=1)
    after = edit.edited(at, replace(PLAN, stages=staged(20, 60, 100, REST)))
    assert after.stages == (*at.stages[:2], Stage(100, 100), Stage(806, 806))
    assert (after.plan_version, after.version, after.phase, after.reason) == (2, at.version, at.phase, at.reason)


def test_another_pace_leaves_stages_as_they_are() -> None:
    at = replace(RUNNING, stages=(replace(RUNNING.stages[0], target=34), *RUNNING.stages[1:]))
    assert edit.edited(at, replace(PLAN, in_flight=7)).stages == at.stages


def test_before_the_cohort_is_known_other_sizes_loosen() -> None:
    preparing = make_draft(PLAN, phase=Phase.PREPARING)
    assert loosened(preparing, stages=staged(20, 50, REST))
    assert loosened(preparing, stages=staged(20, 60, REST, soak_s=7200.0)) == []
    assert edit.edited(preparing, replace(PLAN, stages=staged(20, 50, REST))).stages == ()


def test_stages_of_groups_keep_their_sizes() -> None:
    stages = (StagePlan(SizeKind.COUNT, 20, group="lab"), StagePlan(SizeKind.REST, 0))
    at = make_rollout(replace(PLAN, stages=stages), 1000)
    with pytest.raises(RequestError):
        changed(at, stages=(stages[0], StagePlan(SizeKind.COUNT, 50)))
    slower = (stages[0], replace(stages[1], soak_s=60.0))
    assert [item.path for item in changed(at, stages=slower)] == ["stages.1.soak"]


def test_a_gate_is_shown_as_its_file_has_it() -> None:
    wanted = replace(PLAN, gate=replace(GATE, every_s=0.2))
    (change,) = edit.changes(replace(RUNNING, plan=replace(PLAN, gate=GATE)), wanted)
    assert change.after == "url https://metrics.example/, condition up == true, every 0.2s, timeout 10s, if_unmet hold"


SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=4)


@given(old=SIZES, new=SIZES)
def test_no_edit_that_passes_silently_reaches_more_devices_before_any_gate(old: list[int], new: list[int]) -> None:
    """Whatever the old plan let happen before its k-th gate bounds what the new one lets happen before its own."""
    before = make_rollout(make_plan((10, *old)), 1000)
    plan = replace(before.plan, stages=make_plan((10, *new)).stages)
    if not any(item.loosens for item in edit.changes(before, plan)):
        reach_old = [sum(stage.target for stage in before.stages[: at + 1]) for at in range(len(before.stages))]
        stages = edit.edited(before, plan).stages
        reach_new = [sum(stage.target for stage in stages[: at + 1]) for at in range(len(stages))]
        assert reach_new[-1] <= reach_old[-1]
        for at, reach in enumerate(reach_old[:-1]):
            assert reach_new[at] <= reach if at < len(reach_new) else True
