"""The pace of senders: against a plain model of a bucket, at its edges, and in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pace import rate
from orchestrator.core.pace.rate import RESERVE, Buckets, Pace

START = 1000.0


def taken(buckets: Buckets, count: int, now: float, sender: str = "a") -> int:
    return sum(buckets.take(sender, now) for _ in range(count))


def taken_reserved(buckets: Buckets, count: int, now: float, sender: str = "a") -> int:
    return sum(buckets.take_reserved(sender, now) for _ in range(count))


def test_a_burst_at_once_and_then_one_per_interval() -> None:
    buckets = Buckets(Pace(burst=20, interval_s=5))
    assert taken(buckets, 50, START) == 20
    assert taken(buckets, 50, START + 4.9) == 0
    assert taken(buckets, 50, START + 5) == 1
    assert taken(buckets, 50, START + 25) == 4
    assert taken(buckets, 50, START + 10_000) == 20


def test_the_reserve_lies_on_top() -> None:
    buckets = Buckets(Pace(burst=20, interval_s=5))
    assert taken(buckets, 50, START) == 20
    assert taken_reserved(buckets, 500, START) == 20 * RESERVE
    assert taken_reserved(buckets, 50, START + 5) == 1
    assert taken(buckets, 50, START + 5 * 80) == 0
    assert taken(buckets, 50, START + 5 * 83) == 2


def test_each_sender_has_a_bucket() -> None:
    buckets = Buckets(Pace(burst=1))
    assert [taken(buckets, 9, START, sender) for sender in ("a", "b", "a")] == [1, 1, 0]


def test_a_burst_of_one() -> None:
    buckets = Buckets(Pace(burst=1, interval_s=2))
    assert [buckets.take("a", START + at) for at in (0, 1, 2, 3, 4)] == [True, False, True, False, True]


steps = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.booleans()), max_size=200)


@given(steps, st.integers(1, 5), st.integers(1, 7))
def test_it_is_a_bucket_of_tokens(said: list[tuple[int, str, bool]], burst: int, interval: int) -> None:
    """With whole seconds a bucket can be counted in exact parts of a token, and forgetting must never show."""
    buckets, now = Buckets(Pace(burst, interval)), int(START)
    most = (1 + RESERVE) * burst * interval
    levels, filled_at = dict.fromkeys("ab", most), dict.fromkeys("ab", now)
    for pause, sender, matters in said:
        now += pause
        buckets.forget(now)
        level = min(most, levels[sender] + now - filled_at[sender])
        floor = 0 if matters else most - burst * interval
        expected = level >= floor + interval
        assert (buckets.take_reserved if matters else buckets.take)(sender, now) is expected
        levels[sender], filled_at[sender] = level - interval * expected, now


def test_who_is_silent_is_forgotten() -> None:
    buckets = Buckets(Pace(burst=20, interval_s=5))
    for number in range(1000):
        buckets.take(f"d{number}", START)
    for at in (0, 499, 500, 1000, 1001):
        buckets.forget(START + at)
        buckets.take("still here", START + at)
    assert len(buckets) <= 3


def test_memory_is_bounded_whoever_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MOST", 100)
    buckets = Buckets(Pace())
    for number in range(10_000):
        buckets.forget(START)
        buckets.take(f"d{number}", START)
        buckets.take("busy", START)
        assert len(buckets) <= 201
    assert not buckets.take("busy", START), "who goes on speaking is not forgotten"
