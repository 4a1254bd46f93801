"""Numbers of devices against the bounds of the plan, and what a sick one does to its update."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging.health import METRIC_MISSING, UNHEALTHY, HealthRule, Missing, Side, fault, is_well
from orchestrator.core.model import Deadlines, Update, UpdateState
from orchestrator.core.pace.retry import CODES, FailureClass, RetryPolicy
from orchestrator.core.update import Context, Fact, FactKind, Ignored, apply, tally_changes
from tests.support.builders import make_update

COOL = HealthRule("temperature", Side.BELOW, 80.0)
STRICT = HealthRule("voltage", Side.ABOVE, 3.3, Missing.FAIL)
S, F = UpdateState, FactKind


def context(*rules: HealthRule, **changes: Any) -> Context:
    return Context(Deadlines(), stage=0, epoch=0, retry=RetryPolicy(), health=rules, **changes)


def said(kind: FactKind, **metrics: float) -> Fact:
    return Fact(kind, 1, rel=2, metrics=tuple(metrics.items()))


def told(update: Update, *facts: Fact, rules: tuple[HealthRule, ...] = (COOL, STRICT)) -> Update:
    for fact in facts:
        result = apply(update, fact, context(*rules), 100.0)
        update = update if isinstance(result, Ignored) else result
    return update


@pytest.mark.parametrize(
    ("metrics", "final", "code"),
    [
        ({"temperature": 79.9, "voltage": 3.4}, True, ""),
        ({"temperature": 80.0, "voltage": 3.4}, True, UNHEALTHY),
        ({"temperature": 20.0, "voltage": 3.3}, True, UNHEALTHY),
        ({"voltage": 3.4}, True, ""),
        ({"temperature": 20.0}, True, METRIC_MISSING),
        ({"temperature": 20.0}, False, ""),
        ({"temperature": 99.0}, False, UNHEALTHY),
        ({"else": 1.0}, False, ""),
    ],
)
def test_one_number_out_of_its_bound_is_a_fault(metrics: dict[str, float], final: bool, code: str) -> None:
    assert fault((COOL, STRICT), metrics, final=final) == code


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_bound_is_met_on_one_side_only_and_never_at_itself(number: float, bound: float) -> None:
    sides = [is_well(HealthRule("m", side, bound), number) for side in Side]
    assert sum(sides) == (number != bound)


def test_a_sick_device_that_calls_itself_healthy_has_failed() -> None:
    for kind in (F.RUNNING, F.CONFIRMED):
        update = told(make_update(S.INSTALLED), said(kind, temperature=90, voltage=4))
        assert (update.state, update.code) == (S.FAILED, UNHEALTHY)


def test_a_device_that_keeps_a_number_to_itself_fails_at_its_confirmation() -> None:
    update = told(make_update(S.INSTALLED), said(F.RUNNING, temperature=20))
    assert update.state is S.RUNNING
    assert told(update, said(F.CONFIRMED, temperature=20)).code == METRIC_MISSING


def test_who_runs_something_else_is_told_apart_from_who_is_sick() -> None:
    fact = said(F.CONFIRMED, temperature=90)._replace(rel=1)
    assert told(make_update(S.INSTALLED), fact).code == "wrong_release"


def test_without_rules_no_number_is_looked_at() -> None:
    assert told(make_update(S.INSTALLED), said(F.CONFIRMED, temperature=900), rules=()).state is S.CONFIRMED


def test_who_is_sick_later_relapses_in_the_present_stage() -> None:
    healthy = told(make_update(S.INSTALLED), said(F.CONFIRMED, temperature=20, voltage=4))
    assert healthy.state is S.CONFIRMED
    later = apply(healthy, said(F.RUNNING, temperature=95), Context(Deadlines(), 2, 1, health=(COOL,)), 200.0)
    assert isinstance(later, Update)
    assert (later.state, later.relapsed_stage, later.relapsed_epoch) == (S.FAILED, 2, 1)
    assert sum(count for key, count in tally_changes([healthy], [later]).items() if key.state == "relapsed") == 1


def test_a_sick_device_does_not_try_again_by_itself() -> None:
    assert {CODES[code] for code in (UNHEALTHY, METRIC_MISSING)} == {FailureClass.PERMANENT}
    assert told(make_update(S.INSTALLED), said(F.CONFIRMED, temperature=90, voltage=4)).deadline_at is None


def test_every_order_of_what_a_sick_device_says_ends_the_same() -> None:
    facts = [
        said(F.ACCEPTED),
        said(F.INSTALLED),
        said(F.RUNNING, voltage=4),
        said(F.CONFIRMED, temperature=99, voltage=4),
    ]
    ends = {told(make_update(), *order).state for order in itertools.permutations(facts)}
    assert ends == {S.FAILED}
