"""The ramp: never more starts than it allows in any span, on any clock, and never stuck; and the spread of devices."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.pace.ramp import BURST_S, Climb, Ramp, allowed, climbed, delay_s, opens_at, room, start

BEGAN = 1_800_000_000.0
DOUBLING = Ramp(base=60, factor=2.0, cap=400, every_s=600.0)

ramps = st.builds(
    lambda base, factor, above, every: Ramp(base, factor, base + above, every),
    st.integers(1, 10_000),
    st.floats(1, 100),
    st.integers(0, 10**6),
    st.floats(1, 10**6),
)


def test_the_rate_rises_by_steps_up_to_its_cap() -> None:
    rates = [allowed(DOUBLING, climbed(DOUBLING, Climb(BEGAN), BEGAN + at)) for at in (0, 599, 600, 1200, 1800, 10**9)]
    assert rates == [60, 60, 120, 240, 400, 400]


def test_a_flat_ramp_stays_where_it_is() -> None:
    flat = Ramp(60, 1.0, 400, 600.0)
    assert allowed(flat, climbed(flat, Climb(BEGAN), BEGAN + 10**9)) == 60


@given(ramps, st.lists(st.floats(-(10**7), 10**9), max_size=20))
def test_the_rate_never_falls_whatever_the_clock_does(ramp: Ramp, moments: list[float]) -> None:
    climb, last = Climb(BEGAN), ramp.base
    for at in moments:
        climb = climbed(ramp, climb, BEGAN + at)
        assert last <= (last := allowed(ramp, climb)) <= ramp.cap


class Stage:
    """One stage on a clock that may be set: what really was started, and when."""

    def __init__(self, ramp: Ramp) -> None:
        self.ramp = ramp
        self.climb = Climb(BEGAN)
        self.elapsed = BEGAN
        self.wrong_by = 0.0
        self.made: list[tuple[float, int, int]] = []

    def offer(self, wanted: int) -> int:
        now = self.elapsed - self.wrong_by
        self.climb = climbed(self.ramp, self.climb, now)
        count = min(room(self.ramp, self.climb, now), wanted)
        self.climb = start(self.ramp, self.climb, count, now)
        self.made.append((self.elapsed, count, allowed(self.ramp, self.climb)))
        return count

    def most_over(self) -> float:
        """Return by how much the starts of any span exceed what it allows, at the rate at its end."""
        worst = -math.inf
        for first in range(len(self.made)):
            total = 0
            for at, count, rate in self.made[first:]:
                total += count
                span_s = at - self.made[first][0] + max(BURST_S, 60 / rate)
                worst = max(worst, total - span_s * rate / 60)
        return worst


pauses = st.sampled_from((0.0, 0.1, 1.0, 5.0, 9.9, 60.0, 600.0)) | st.floats(0, 1000)


@given(
    st.builds(Ramp, st.integers(1, 600), st.floats(1, 4), st.just(1000), st.floats(1, 1000)),
    st.lists(st.tuples(pauses, st.integers(1, 500), st.sampled_from((0.0, 0.0, 0.0, 30.0, 5000.0))), max_size=30),
)
def test_no_span_of_time_has_more_starts_than_it_allows(ramp: Ramp, steps: list[tuple[float, int, float]]) -> None:
    stage = Stage(ramp)
    for pause, wanted, set_back in steps:
        stage.elapsed += pause
        stage.wrong_by += set_back
        stage.offer(wanted)
    assert stage.most_over() < 1e-3 if steps else stage.made == []


@given(ramps, st.floats(0, 10**6), st.integers(1, 10**7))
def test_who_waits_may_start_when_it_was_promised(ramp: Ramp, pause: float, wanted: int) -> None:
    stage = Stage(ramp)
    stage.elapsed += pause
    given_now = stage.offer(wanted)
    assert given_now >= 1
    assume(room(ramp, stage.climb, stage.elapsed) == 0)
    opens = opens_at(ramp, stage.climb, stage.elapsed)
    assert stage.elapsed <= opens <= stage.elapsed + 60
    stage.elapsed = opens
    assert stage.offer(1) == 1


def test_the_rate_is_used_up_by_whoever_asks_every_five_seconds() -> None:
    stage = Stage(Ramp(120, 1.0, 120, 60.0))
    made = 0
    for _ in range(720):
        made += stage.offer(10**6)
        stage.elapsed += 5
    assert 120 * 60 <= made <= 120 * 60 + 20


def test_a_clock_that_is_set_back_gives_nothing_away_and_delays_no_longer_than_a_burst() -> None:
    stage = Stage(Ramp(60, 1.0, 60, 60.0))
    assert stage.offer(1000) == 10
    stage.wrong_by = 86_400.0
    assert stage.offer(1000) == 0
    stage.elapsed += 1
    assert stage.offer(1000) == 1


def test_there_is_always_room_for_one() -> None:
    slow = Ramp(1, 1.0, 1, 60.0)
    assert room(slow, climbed(slow, Climb(BEGAN), BEGAN), BEGAN) == 1
    assert opens_at(slow, Climb(BEGAN), BEGAN) == BEGAN


@given(
    st.binary(min_size=1, max_size=32),
    st.text(max_size=64),
    st.integers(1, 9999),
    st.just(0.0) | st.floats(1e-3, 10**6),
)
def test_a_delay_is_the_same_each_time_and_within_the_spread(
    key: bytes, device: str, attempt: int, spread_s: float
) -> None:
    assume(device.isascii())
    delay = delay_s(key, device, attempt, spread_s)
    assert delay == delay_s(key, device, attempt, spread_s)
    assert 0 <= delay < spread_s or delay == spread_s == 0


def test_delays_are_spread_evenly_and_anew_for_each_attempt_and_key() -> None:
    drawn = [delay_s(b"k", f"d{number}", 1, 100.0) for number in range(2000)]
    for tenth in range(10):
        assert 150 < sum(tenth * 10 <= delay < tenth * 10 + 10 for delay in drawn) < 250
    assert len({delay_s(key, "d1", attempt, 100.0) for key in (b"k", b"l") for attempt in range(1, 50)}) == 98


def test_the_device_and_the_attempt_are_kept_apart() -> None:
    assert delay_s(b"k", "d1", 12, 1.0) != delay_s(b"k", "d11", 2, 1.0)
