"""Devices repeat and reorder: no order and no repetition of what they say changes what counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import update
from orchestrator.core.judging import evidence
from orchestrator.core.model import Deadlines, TallyKey, Update, UpdateState
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.update import Context, Fact, FactKind
from tests.support.builders import make_plan, make_rollout, make_update

S, F = UpdateState, FactKind
SAID = [F.ACCEPTED, F.PROGRESS, F.DOWNLOADED, F.INSTALLED, F.RUNNING, F.CONFIRMED, F.FAILED, F.ROLLED_BACK]
SAID += [F.REFUSED, F.RECALLED, F.TOO_LATE]
PASSING = "link_lost"
DECIDED = [kind for kind in FactKind if kind not in (*SAID, F.GAVE_UP, F.POSTPONED)]
RETRY = RetryPolicy(transient=Retry(attempts=3, base_s=60.0))
CURRENT = Context(Deadlines(), stage=0, epoch=0, retry=RETRY)
JUDGED = Context(Deadlines(), stage=1, epoch=0, retry=RETRY)

said = st.builds(
    Fact,
    kind=st.sampled_from(SAID),
    attempt=st.just(1),
    code=st.sampled_from(["", "hash_mismatch", PASSING]),
    rel=st.sampled_from([2, 2, 2, 1]),
    progress=st.integers(0, 100),
)
decided = st.builds(Fact, kind=st.sampled_from(DECIDED))


@st.composite
def two_orders(draw: st.DrawFn) -> tuple[list[Fact], list[Fact]]:
    """Return the same facts in two orders, each with repetitions of its own."""
    facts = draw(st.lists(said, min_size=1, max_size=8))
    return tuple(  # type: ignore[return-value]
        draw(st.permutations(facts + draw(st.lists(st.sampled_from(facts), max_size=8)))) for _ in range(2)
    )


def fold(facts: Sequence[Fact], context: Context = CURRENT) -> tuple[Update, Counter[TallyKey]]:
    """Fold facts from an offer on, and the tallies as the sum of their changes."""
    here = make_update(S.OFFERED)
    tally = update.tally_changes([], [here])
    for at, fact in enumerate(facts):
        after = update.apply(here, fact, context, float(at))
        if isinstance(after, Update):
            tally.update(update.tally_changes([here], [after]))
            here = after
    return here, Counter({key: count for key, count in tally.items() if count})


@given(two_orders())
def test_every_order_and_repetition_ends_alike(orders: tuple[list[Fact], list[Fact]]) -> None:
    (one, tally), (other, other_tally) = map(fold, orders)
    assert one.state is other.state
    assert tally == other_tally == Counter(update.contributions(one))


@given(two_orders())
def test_in_a_judged_stage_every_order_is_the_same_evidence(orders: tuple[list[Fact], list[Fact]]) -> None:
    rollout = make_rollout(make_plan((1, 1)), stage=1)
    (one, tally), (other, other_tally) = (fold(order, JUDGED) for order in orders)
    assert one.state is other.state
    assert evidence.halt_evidence(rollout, tally) == evidence.halt_evidence(rollout, other_tally)
    assert evidence.stage_bound(rollout, tally) == evidence.stage_bound(rollout, other_tally)


@given(st.lists(said, min_size=1, max_size=12))
def test_one_failure_among_the_facts_is_the_end(facts: list[Fact]) -> None:
    failed = {F.FAILED, F.ROLLED_BACK}
    wrong = any(fact.kind in (F.RUNNING, F.CONFIRMED) and fact.rel != 2 for fact in facts)
    final = any(fact.kind in failed and (fact.kind, fact.code) != (F.FAILED, PASSING) for fact in facts)
    end, _ = fold(facts)
    assert (end.state in update.FAILURES) == (wrong or final)


@given(st.lists(st.one_of(said, decided), max_size=30), st.sampled_from([CURRENT, JUDGED]))
def test_failures_never_become_anything_else(facts: list[Fact], context: Context) -> None:
    here, failures = make_update(S.PENDING), 0
    for fact in facts:
        after = update.apply(here, fact, context, 1.0)
        here = after if isinstance(after, Update) else here
        now_failed = sum(key.state in update.FAILURES | evidence.EVENTS for key in update.contributions(here))
        assert failures <= now_failed <= 1
        failures = now_failed


@given(st.lists(st.one_of(said, decided), max_size=30), st.sampled_from([CURRENT, JUDGED]))
def test_sums_of_changes_equal_the_recount(facts: list[Fact], context: Context) -> None:
    here, tally = fold(facts, context)
    assert tally == Counter(update.contributions(here))


@given(st.lists(st.one_of(said, decided), max_size=30))
def test_whoever_holds_a_slot_has_a_deadline(facts: list[Fact]) -> None:
    here, _ = fold([Fact(F.WITHDRAW), Fact(F.OFFER), *facts])
    if here.deadline_at is None:
        assert here.state not in update.IN_FLIGHT | update.TRY_AGAIN
    else:
        assert here.state in update.IN_FLIGHT | update.RETRIABLE | update.TRY_AGAIN
