"""How many lies flip a gate: the least number, checked by trying every one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging import diversity, evidence
from orchestrator.core.judging.liars import Liars, liars, sentences
from orchestrator.core.model import MET, EvidenceRule, Rollout, TallyKey
from tests.support.builders import REST, make_plan, make_rollout, make_tally

counts = st.fixed_dictionaries(
    {"confirmed": st.integers(0, 120), "failed": st.integers(0, 6), "running": st.integers(0, 6)}
)


def lied(tally: Counter[TallyKey], lies: int, stratum: str = "m1") -> Counter[TallyKey]:
    moved = tally.copy()
    moved[TallyKey(0, 0, stratum, "confirmed")] -= lies
    moved[TallyKey(0, 0, stratum, "failed")] += lies
    return moved


def passes(rollout: Rollout, tally: Counter[TallyKey]) -> bool:
    return evidence.stage_bound(rollout, tally).holds


def halts(rollout: Rollout, tally: Counter[TallyKey]) -> bool:
    return any(item.halts for item in evidence.halt_evidence(rollout, tally))


@given(counts, st.sampled_from([0.05, 0.1, 0.3]))
def test_the_numbers_are_the_least_ones(told: dict[str, int], limit: float) -> None:
    rollout, tally = make_rollout(make_plan((130, REST), (limit, None)), 500), make_tally(told)
    found = liars(rollout, tally)
    tries = range(told["confirmed"] + 1)
    unpass = [lies for lies in tries if not passes(rollout, lied(tally, lies))] if passes(rollout, tally) else []
    unhalt = [lies for lies in tries if halts(rollout, lied(tally, lies))] if not halts(rollout, tally) else []
    assert found == Liars(told["confirmed"], min(unpass, default=None), min(unhalt, default=None))


@given(st.integers(0, 40), st.integers(0, 40))
def test_lies_of_one_stratum_are_counted_there(ours: int, theirs: int) -> None:
    rollout = replace(make_rollout(make_plan((80, REST)), 500), strata=2)
    tally = make_tally({"confirmed": ours}, stratum="m1") + make_tally({"confirmed": theirs}, stratum="m2")
    least = [
        lies
        for stratum, most in (("m1", ours), ("m2", theirs))
        for lies in range(most + 1)
        if halts(rollout, lied(tally, lies, stratum))
    ]
    assert (liars(rollout, tally).unhalt or 999) <= min(least, default=999)


@given(st.lists(counts, min_size=2, max_size=3), st.integers(1, 4), st.sampled_from([0.1, 0.3]))
def test_with_strata_the_number_is_the_least_of_all_ways_to_lie(
    told: list[dict[str, int]], wanted: int, limit: float
) -> None:
    told = [part | {"confirmed": part["confirmed"] % 13} for part in told]  # every way to lie is tried
    plan = make_plan((130, REST), (limit, None), evidence=EvidenceRule(strata=wanted))
    rollout = make_rollout(plan, 500, strata=len(told))
    tally = Counter[TallyKey]()
    for number, part in enumerate(told):
        tally += make_tally(part, stratum=f"m{number}")

    def passes_after(lies: Sequence[int]) -> bool:
        moved = tally
        for number, count in enumerate(lies):
            moved = lied(moved, count, f"m{number}")
        return passes(rollout, moved) and diversity.lacking(rollout, moved) is None

    least = None
    if passes_after([0] * len(told)):
        ways = product(*(range(part["confirmed"] + 1) for part in told))
        least = next((sum(lies) for lies in sorted(ways, key=sum) if not passes_after(lies)), None)
    assert liars(rollout, tally).unpass == least


def test_what_relapsed_is_no_confirmation_and_other_epochs_do_not_count() -> None:
    rollout = replace(make_rollout(make_plan((20, REST)), 200), epoch=1)
    tally = make_tally({"confirmed": 20}) + make_tally({"confirmed": 12, "relapsed": 2}, epoch=1)
    assert liars(rollout, tally).confirmed == 10


def test_it_is_said_in_words_only_where_lies_matter() -> None:
    assert sentences(Liars(20, 2, 3)) == [
        "its stage would not pass if 2 of the 20 confirmations were lies",
        "it would have halted if 3 of the 20 confirmations were lies",
    ]
    assert sentences(Liars(20, None, None)) == []


def test_where_the_lies_are_few_beside_what_was_shown_before_none_of_them_flip_the_bound() -> None:
    rollout = make_rollout(make_plan((600, REST), (0.05, None)), 2000)
    assert liars(rollout, make_tally({"confirmed": 3, MET: 500})).unpass is None
