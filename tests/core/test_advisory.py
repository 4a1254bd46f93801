"""What a rollout mends: the form of advisories, and what the record says of them."""

from __future__ import annotations

import pytest

from orchestrator.core.targeting.advisory import MAX_ADVISORIES, Severity, is_advisory
from orchestrator.errors import ConfigError
from orchestrator.plans import parse_plan
from tests.support.builders import make_plan

PLAN = {"name": "spring", "release": "r", "stages": [{"devices": "rest"}]}


@pytest.mark.parametrize(
    "text", ["CVE-2026-1234", "CVE-1999-0001", f"CVE-2026-{'9' * 19}", "GHSA-2g4f-4pwh-qvx6", "GHSA-xxxx-rrrr-2222"]
)
def test_the_number_of_an_advisory_is_taken(text: str) -> None:
    assert is_advisory(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CVE-2026-123",
        "cve-2026-1234",
        "CVE-26-1234",
        f"CVE-2026-{'9' * 20}",
        "CVE-2026-1234\n",
        " CVE-2026-1234",
        "CVE-2026-12a4",
        "CVE-2026-١٢٣٤",
        "GHSA-2g4f-4pwh",
        "GHSA-2g4f-4pwh-qvxa",
        "GHSA-2G4F-4PWH-QVX6",
        "RHSA-2026:1234",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    assert not is_advisory(text)
    with pytest.raises(ConfigError) as caught:
        parse_plan(PLAN | {"advisories": [text]})
    assert "is no advisory; write its number, such as CVE-2026-1234" in str(caught.value)


def test_a_plan_has_at_most_so_many() -> None:
    numbers = [f"CVE-2026-{1000 + at}" for at in range(MAX_ADVISORIES + 1)]
    assert len(parse_plan(PLAN | {"advisories": numbers[:-1]}).advisories) == MAX_ADVISORIES
    with pytest.raises(ConfigError):
        parse_plan(PLAN | {"advisories": numbers})


def test_an_advisory_that_stands_there_twice_is_one() -> None:
    assert parse_plan(PLAN | {"advisories": ["CVE-2026-1234"] * 2}).advisories == ("CVE-2026-1234",)


def test_the_record_says_what_a_plan_says_and_no_more() -> None:
    assert make_plan().mends == {}
    plan = parse_plan(PLAN | {"severity": "low", "advisories": ["CVE-2026-1234"], "fixes": {"below": 7}})
    assert plan.severity is Severity.LOW
    assert plan.mends == {"severity": "low", "advisories": ["CVE-2026-1234"], "fixes_below": 7}
