"""Templates are plans, differ in what they promise, and are copied with the names that a person gives."""

from __future__ import annotations

import pytest

from orchestrator import plans
from orchestrator.core.model import Plan, SizeKind, Urgency
from orchestrator.errors import ConfigError, NotFoundError
from tests.plans.odds import PLANS


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_each_keeps_the_halt_rules_and_starts_small(name: str) -> None:
    plan = PLANS[name]
    assert plan.halt.lost_after_reboot
    assert plan.halt.tolerated <= 0.02
    assert (plan.stages[0].kind, plan.stages[-1].kind) == (SizeKind.COUNT, SizeKind.REST)
    assert plan.stages[0].size <= 20


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_each_says_what_it_is_for_in_one_line(name: str) -> None:
    assert plans.purpose(name).endswith(".")
    assert plans.purpose(name) in plans.template(name).splitlines()[1]


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_a_line_of_prose_is_no_longer_than_a_screen(name: str) -> None:
    assert max(map(len, plans.template(name).splitlines())) <= 120


def test_they_are_listed_from_the_slowest_to_the_fastest() -> None:
    soaks = [sum(stage.soak_s for stage in PLANS[name].stages) for name in plans.TEMPLATES]
    assert soaks == sorted(soaks, reverse=True)
    assert soaks[0] >= 7 * 86_400
    assert soaks[-1] == 0


def test_urgency_is_what_the_name_says() -> None:
    assert [PLANS[name].urgency for name in plans.TEMPLATES] == [
        Urgency.NORMAL,
        Urgency.NORMAL,
        Urgency.SECURITY,
        Urgency.EMERGENCY,
    ]


def named(text: str) -> tuple[str, str]:
    plan: Plan = plans.read_plan(text)
    return plan.name, plan.release


@pytest.mark.parametrize("name", ["spring", "2026-01-01", "1.5", "true", "0x10"])
def test_a_copy_has_the_names_that_it_was_given(name: str) -> None:
    text = plans.template("standard", rollout=name, release=f"{name}-r")
    assert named(text) == (name, f"{name}-r")
    assert text.splitlines()[7:] == plans.template("standard").splitlines()[7:]


def test_without_names_it_has_placeholders() -> None:
    assert named(plans.template("standard")) == ("my-rollout", "my-release")


@pytest.mark.parametrize("name", ["UP", "a\nrelease: x", "\\1", ""])
def test_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no identifier"):
        plans.template("standard", rollout=name)


@pytest.mark.parametrize("name", ["fast", "../plan", ""])
def test_a_template_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(NotFoundError, match="there are cautious, standard, security, emergency"):
        plans.template(name)
