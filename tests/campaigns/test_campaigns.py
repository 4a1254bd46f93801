"""Campaigns in CI, and that they would find something: each part of the engine that is broken here is found by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Delivery
from orchestrator.core.pace.ceiling import STANDARD
from tests.campaigns import campaigns, mutants
from tests.campaigns.campaigns import script_of
from tests.campaigns.devices import HONEST
from tests.campaigns.house import silent
from tests.campaigns.mutants import MUTANTS, SEEN, Mutant
from tests.campaigns.play import play
from tests.campaigns.reading import BrokenError
from tests.campaigns.script import Script, Step, draw, shorter
from tests.support.builders import REST, make_plan

pytestmark = pytest.mark.no_cover  # being traced would double what these take, and other tests cover the code

PARTS = 20
COUNT = 500


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    silent()
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_every_campaign(part: int) -> None:
    result = campaigns.examine(range(part * COUNT // PARTS, (part + 1) * COUNT // PARTS))
    assert result.found == []
    assert result.tried.total() == COUNT // PARTS
    assert result.reasons["killed"] > 0


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_promise_holds_in_what_hypothesis_thinks_of(chance: Any) -> None:
    play(draw(chance))


def test_a_number_is_the_same_campaign_again() -> None:
    for number in range(3):
        first, second = play(script_of(number)), play(script_of(number))
        assert (first.phases, first.digest) == (second.phases, second.digest)
    assert script_of(0) != script_of(0, seed=2)


def test_what_fails_is_made_shorter() -> None:
    script = script_of(0)
    step = script.steps[len(script.steps) // 3]
    short = shorter(script, lambda tried: step in tried.steps)
    assert short.steps == (step,)
    assert (len(short.plans), len(short.characters)) == (1, 1)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_engine_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    numbers = (SEEN.get(mutant.__name__, 0), *range(COUNT))
    assert any(campaigns.fault(script_of(number)) is not None for number in numbers)


@pytest.mark.parametrize(
    ("mutant", "day", "found"),
    [
        (
            mutants.publish_what_was_stopped,  # claimed, link lost, halted, link back
            ("conduct 5 0", "seal 5 0", "dispatch 1 3", "command 2 3", "link 5 0", "dispatch 5 1"),
            "published after halted",
        ),
        (
            mutants.acknowledge_before_storing,  # the process dies in the transaction that should store reports
            ("conduct 5 0", "seal 5 0", "dispatch 5 1", "hear 12 3", "act 12 3", "deliver 0 15"),
            "accepted reports have no line",
        ),
    ],
)
def test_what_is_rare_among_campaigns_is_found_by_hand(
    mutant: Mutant, day: Sequence[str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan((REST,), name="rollout-0", delivery=Delivery.PUSH)
    steps = tuple(Step(name, int(what), int(how)) for name, what, how in map(str.split, day))
    script = Script((HONEST,) * 20, (plan,), STANDARD, steps)
    assert campaigns.fault(script) is None
    mutant(monkeypatch)
    with pytest.raises(BrokenError, match=found):
        play(script)
