"""Campaigns in CI, and that they would find something: each part of the engine that is broken here is found by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.outbox import SqlOutbox
from orchestrator.core.model import Delivery, Rollout, Update
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.engine.offers import allowance, dispatcher
from orchestrator.engine.reports import folding, recorder
from orchestrator.engine.reports.folding import Recorded
from orchestrator.engine.rollouts import effects
from orchestrator.ports import DeliveryState, Parcel, Tx
from tests.campaigns import campaigns
from tests.campaigns.campaigns import script_of
from tests.campaigns.devices import HONEST
from tests.campaigns.house import silent
from tests.campaigns.play import play
from tests.campaigns.promises import BrokenError
from tests.campaigns.script import Step, draw, shorter
from tests.support.builders import REST, make_plan

pytestmark = pytest.mark.no_cover  # being traced would double what these take, and other tests cover the code

PARTS = 10
COUNT = 200

Patch = Callable[[pytest.MonkeyPatch], None]


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


def claim_without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim what was read with the batch before, whatever became of its rollout since."""
    claim, ahead = SqlOutbox.claim, list[Parcel]()

    def eager(self: SqlOutbox, limit: int, now: float) -> list[Parcel]:
        if not ahead:
            ahead.extend(claim(self, 3 * limit, now))
            self.settle([item.id for item in ahead[limit:]], DeliveryState.SEALED, now)
        taken = ahead[:limit]
        del ahead[:limit]
        self.settle([item.id for item in taken], DeliveryState.CLAIMED, now)
        return taken

    monkeypatch.setattr(SqlOutbox, "claim", eager)


def forget_a_tally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no change that concerns a single device."""
    change = folding._change_tallies

    def forgetful(tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], done: Recorded) -> None:
        if len(after) != 1:
            change(tx, before, after, done)

    monkeypatch.setattr(folding, "_change_tallies", forgetful)


def offer_beyond_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer the release to one device more than was decided."""
    offer = effects.offer

    def generous(tx: Tx, rollout: Rollout, count: int, *others: Any) -> Any:
        return offer(tx, rollout, count + 1, *others)

    monkeypatch.setattr(effects, "offer", generous)


def void_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what is queued where it is when a rollout stops."""
    monkeypatch.setattr(effects, "withdraw", lambda tx, rollout, now: None)


def forget_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no offer against the blast ceiling."""
    monkeypatch.setattr(allowance, "book", lambda tx, count, now: None)


def store_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledge what was not stored."""

    async def nothing(self: recorder.Recorder, sayings: Iterable[object]) -> None:
        return

    monkeypatch.setattr(recorder.Recorder, "_store_surely", nothing)


def publish_what_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash, publish again whatever was claimed, whatever became of its rollout."""
    monkeypatch.setattr(dispatcher, "_sort_out", lambda tx, now: tx.claimed())


MUTANTS: list[Patch] = [
    claim_without_looking,
    forget_a_tally,
    offer_beyond_the_slots,
    void_nothing,
    forget_the_ceiling,
    store_no_report,
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_engine_is_found(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    assert any(campaigns.fault(script_of(number)) is not None for number in range(COUNT))


def test_what_is_published_after_it_was_stopped_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rare among the campaigns, so here by hand: claimed, link lost, halted, link back."""
    known = script_of(0)
    plan = replace(known.plans[0], stages=make_plan((REST,)).stages, delivery=Delivery.PUSH, in_flight=100)
    day = ("conduct 1 1", "seal 1 1", "dispatch 1 3", "command 0 3", "link 0 1", "dispatch 1 1")
    steps = tuple(Step(name, int(what), int(how)) for name, what, how in map(str.split, day))
    script = replace(known, characters=(HONEST,) * 20, plans=(plan,), ceiling=STANDARD, steps=steps)
    assert campaigns.fault(script) is None
    publish_what_was_stopped(monkeypatch)
    with pytest.raises(BrokenError, match="published after halted"):
        play(script)
