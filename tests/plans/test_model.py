from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Deadlines, Delivery, EvidenceRule, HaltRule, Plan, SizeKind, StagePlan, Urgency
from orchestrator.errors import ConfigError
from orchestrator.plans import parse_plan

LEAST = {"name": "spring", "release": "radio-2", "stages": [{"devices": "rest"}]}


def faults_of(document: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_plan(document)
    return caught.value.faults


def test_the_least_plan_is_the_defaults() -> None:
    assert parse_plan(LEAST) == Plan("spring", "radio-2", (StagePlan(SizeKind.REST, 0),))


def test_everything_can_be_said() -> None:
    document = {
        "name": "spring",
        "release": "radio-2",
        "delivery": "poll",
        "urgency": "security",
        "target": {"models": ["m1", "m2"], "groups": ["lab"]},
        "in_flight": 7,
        "stages": [
            {"devices": 20, "soak": "90s", "max_failure_bound": "15%"},
            {"devices": "2.5%", "soak": "1.5h"},
            {"devices": "rest"},
        ],
        "halt": {
            "tolerated": "2%",
            "alpha": "1%",
            "lost_after_reboot": False,
            "max_failures": 3,
            "max_failure_rate": "4%",
            "min_sample": 50,
        },
        "evidence": {"registered": "7d", "strata": 2},
        "deadlines": {"accept": "2d", "download": "30m", "install": "500ms", "confirm": "1m"},
        "confidence": "99%",
        "resolved_share": "90%",
        "max_unreached": "25%",
        "seed": 5,
    }
    assert parse_plan(document) == Plan(
        name="spring",
        release="radio-2",
        stages=(
            StagePlan(SizeKind.COUNT, 20, 90.0, 0.15),
            StagePlan(SizeKind.PPM, 25_000, 5400.0),
            StagePlan(SizeKind.REST, 0),
        ),
        delivery=Delivery.POLL,
        urgency=Urgency.SECURITY,
        models=("m1", "m2"),
        groups=("lab",),
        in_flight=7,
        halt=HaltRule(0.02, 0.01, False, 3, 0.04, 50),
        evidence=EvidenceRule(604_800.0, 2),
        deadlines=Deadlines(172_800.0, 1800.0, 0.5, 60.0),
        confidence=0.99,
        resolved_share=0.9,
        max_unreached=0.25,
        seed=5,
    )


def test_a_stage_may_be_counted_in_millionths() -> None:
    stages = [{"devices": "250ppm"}, {"devices": "rest"}]
    assert parse_plan({"name": "a", "release": "b", "stages": stages}).stages[0] == StagePlan(SizeKind.PPM, 250)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "Spring"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "spring\n"}, "name"),
        ({"release": ""}, "release"),
        ({"stages": []}, "stages"),
        ({"stages": [{"devices": 1}] * 51}, "stages"),
        ({"stages": "rest"}, "stages"),
        ({"stages": [{}]}, "stages.0.devices"),
        ({"stages": [{"devices": 0}]}, "stages.0.devices"),
        ({"stages": [{"devices": -5}]}, "stages.0.devices"),
        ({"stages": [{"devices": 2**53}]}, "stages.0.devices"),
        ({"stages": [{"devices": True}]}, "stages.0.devices"),
        ({"stages": [{"devices": 1.5}]}, "stages.0.devices"),
        ({"stages": [{"devices": "20"}]}, "stages.0.devices"),
        ({"stages": [{"devices": "0%"}]}, "stages.0.devices"),
        ({"stages": [{"devices": "101%"}]}, "stages.0.devices"),
        ({"stages": [{"devices": "all"}]}, "stages.0.devices"),
        ({"stages": [{"devices": "rest", "soak": 30}]}, "stages.0.soak"),
        ({"stages": [{"devices": "rest", "soak": "-1s"}]}, "stages.0.soak"),
        ({"stages": [{"devices": "rest", "max_failure_bound": 0.1}]}, "stages.0.max_failure_bound"),
        ({"stages": [{"devices": "rest", "wait": "1s"}]}, "stages.0.wait"),
        ({"delivery": "pigeon"}, "delivery"),
        ({"urgency": "high"}, "urgency"),
        ({"target": {"models": ["M1"]}}, "target.models.0"),
        ({"target": ["m1"]}, "target"),
        ({"in_flight": 0}, "in_flight"),
        ({"in_flight": 2**53}, "in_flight"),
        ({"in_flight": 10**30}, "in_flight"),
        ({"halt": {"tolerated": "0%"}}, "halt.tolerated"),
        ({"halt": {"tolerated": "40%"}}, "halt.tolerated"),
        ({"halt": {"alpha": "50%"}}, "halt.alpha"),
        ({"halt": {"max_failures": 0}}, "halt.max_failures"),
        ({"halt": {"max_failures": 10**30}}, "halt.max_failures"),
        ({"halt": {"min_sample": 10**30}}, "halt.min_sample"),
        ({"deadlines": {"accept": "0s"}}, "deadlines.accept"),
        ({"deadlines": {"confirm": "soon"}}, "deadlines.confirm"),
        ({"confidence": "49%"}, "confidence"),
        ({"confidence": "100%"}, "confidence"),
        ({"resolved_share": "0%"}, "resolved_share"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_each_fault_names_its_place(changes: dict[str, Any], place: str) -> None:
    assert [fault.partition(": ")[0] for fault in faults_of(LEAST | changes)] == [place]


def test_all_faults_come_at_once() -> None:
    faults = faults_of({"name": "UPPER", "stages": [{"devices": 0, "x": 1}], "halt": {"alpha": 1}})
    assert [fault.partition(": ")[0] for fault in faults] == [
        "name",
        "release",
        "stages.0.devices",
        "stages.0.x",
        "halt.alpha",
    ]


def test_only_the_last_stage_may_take_the_rest() -> None:
    assert faults_of(LEAST | {"stages": [{"devices": "rest"}, {"devices": 5}]}) == [
        'stages.0.devices: only the last stage may take "rest"; write a number of devices or a share such as "5%"'
    ]


def test_a_size_that_is_not_understood_says_what_would_be() -> None:
    assert faults_of(LEAST | {"stages": [{"devices": "some"}]}) == [
        "stages.0.devices: 'some' is not a stage size; "
        'write a number of devices, a share such as "5%" or "250ppm", or "rest"'
    ]


@pytest.mark.parametrize("document", [None, [], "plan", 5, {1: 2}])
def test_what_is_no_plan_at_all(document: Any) -> None:
    assert faults_of(document)


WORDS = st.sampled_from(
    ["name", "release", "stages", "devices", "rest", "5%", "10s", "halt", "alpha", "target", "models", "in_flight"]
    + ["seed", "soak", "deadlines", "confidence", "delivery", "poll", "tolerated", "accept", "spring"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, JSON, max_size=6))
def test_whatever_is_written_is_a_plan_or_a_fault(document: dict[str, Any]) -> None:
    for candidate in (document, LEAST | document):
        try:
            plan = parse_plan(candidate)
        except ConfigError as error:
            assert error.faults
            assert all(": " in fault for fault in error.faults)
        else:
            assert 0 < plan.halt.tolerated < 0.4
            assert all(stage.kind is not SizeKind.REST for stage in plan.stages[:-1])
