"""Never more devices than the ceiling in any hour, and never stuck below it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from orchestrator.core.model import Reason
from orchestrator.core.pace import ceiling
from orchestrator.core.pace.ceiling import HELD, KEEP_S, WINDOW_S, Ceiling, Room, book, counted, hold, moved, room
from orchestrator.core.rollout import Decision, Offer, VoidQueued
from tests.support.builders import make_rollout

NOW = 1_800_000_000.0  # the beginning of a minute
SCHEDULES = 4_000


def wants(count: int) -> Decision:
    return Decision(make_rollout(), (VoidQueued(), Offer(count)), Reason("offering", "more"), None)


@pytest.mark.parametrize(
    ("fleet", "warranted", "limit"),
    [(0, 0, 500), (2_500, 0, 500), (2_504, 0, 500), (2_505, 0, 501), (100_000, 0, 20_000), (100_000, 30_000, 50_000)],
)
def test_the_limit_is_a_share_with_a_floor_and_a_warrant_raises_it(fleet: int, warranted: int, limit: int) -> None:
    assert Ceiling().limit(fleet, warranted) == limit


def test_what_others_were_offered_does_not_hold_up_an_emergency() -> None:
    ordinary = Ceiling(0.2, 10).limit(1000)
    spent = book({}, ordinary, NOW)
    assert room(ordinary, 1000, spent, NOW).devices == 0
    assert room(Ceiling(0.2, 10).limit(1000, 950), 1000, spent, NOW).devices == 950


def test_a_minute_counts_until_an_hour_after_its_end() -> None:
    minute = int(NOW // 60)
    spent = book({}, 7, NOW + 59)
    assert spent == {minute: 7}
    assert counted(spent, NOW + 60 + 3600 - 0.001) == spent
    assert counted(spent, NOW + 60 + 3600) == {}
    assert book(spent, 0, NOW + 60 + 3600 + KEEP_S - 0.001) == spent, "kept, for a clock that is set back"
    assert book(spent, 0, NOW + 60 + 3600 + KEEP_S) == {}


def test_a_clock_that_was_set_back_forgets_nothing_and_waits_no_longer_than_the_window() -> None:
    later = book({}, 10, NOW + 86_400)
    assert room(10, 50, later, NOW) == Room(10, 50, 10, NOW + 3660)
    assert book(later, 0, NOW) == {int(NOW // 60): 10}


def test_a_clock_that_ran_ahead_for_hours_and_is_set_back_forgets_nothing() -> None:
    ahead = book(book({}, 8, NOW), 3, NOW + 2 * 3600)
    assert room(8, 50, ahead, NOW + 2 * 3600).devices == 5
    assert room(8, 50, ahead, NOW + 60).devices == 0
    assert book(ahead, 0, NOW + 60) == {int(NOW // 60): 8, int(NOW // 60) + 1: 3}


def test_offers_move_with_a_clock_that_is_set_but_for_those_that_were_made_since() -> None:
    minute = int(NOW // 60)
    booked = {minute: 8, minute + 120: 3}
    assert moved(booked, 7201.0, lambda at: at < NOW + 60) == {minute + 121: 8, minute + 120: 3}, "none counts shorter"
    assert moved(booked, -3601.0, lambda at: at < NOW + 60) == {minute - 60: 8, minute + 120: 3}
    assert moved(booked, 7200.0, lambda at: at < NOW + 60) == {minute + 120: 11}


def test_room_opens_when_enough_minutes_are_over() -> None:
    spent = book(book(book({}, 3, NOW), 3, NOW + 60), 4, NOW + 120)
    assert room(11, 50, spent, NOW + 120) == Room(11, 50, 10, None)
    assert room(10, 50, spent, NOW + 120) == Room(10, 50, 10, NOW + 3660)
    assert room(6, 50, spent, NOW + 120) == Room(6, 50, 10, NOW + 3720)
    assert room(6, 50, spent, NOW + 120).devices == 0
    assert room(6, 50, spent, NOW + 3720).devices == 2
    assert room(0, 0, {}, NOW) == Room(0, 0, 0, None)


def test_a_decision_within_the_room_is_left_alone() -> None:
    decision = wants(5)
    assert hold(decision, Room(10, 50, 5, None), NOW) is decision
    silent = Decision(make_rollout(), (), Reason("soaking", "it soaks"), 9.0)
    assert hold(silent, Room(10, 50, 10, NOW + 60), NOW) is silent


def test_a_decision_beyond_the_room_is_cut() -> None:
    cut = hold(wants(8), Room(10, 50, 5, None), NOW)
    assert cut.effects == (VoidQueued(), Offer(5))
    assert (cut.reason.code, cut.wake_at) == ("offering", None)
    assert cut.reason.text == "5 more devices are offered the release; the ceiling allows 3 later"


def test_a_decision_without_room_waits_and_says_until_when() -> None:
    held = hold(wants(8), Room(20_000, 100_000, 20_000, NOW + 660.5), NOW)
    assert (held.effects, held.wake_at) == ((VoidQueued(),), NOW + 660.5)
    assert held.reason == Reason(HELD, "waits for the ceiling: 20,000 of 100,000 devices per hour; room in 12 min")
    never = hold(wants(8), Room(0, 5, 0, None), NOW)
    assert never.reason.text == "waits for the ceiling: 0 of 5 devices per hour"


@dataclass
class Day:
    """One random schedule: rollouts that want devices at any time, on a clock that may be set back.

    Attributes:
        elapsed: seconds that really went by.
        wrong_by: what the clock shows less than that.
        made: offers, with when they really were made.
    """

    draw: random.Random
    limits: Ceiling
    fleet: int
    elapsed: float = NOW
    wrong_by: float = 0.0
    kept: dict[int, int] = field(default_factory=dict)
    made: list[tuple[float, int]] = field(default_factory=list)

    def live(self, steps: int) -> None:
        for _ in range(steps):
            self.elapsed += self.draw.choice((0.0, 0.5, 59.999, 60.0, 1800.0, self.draw.uniform(0, 4000)))
            if self.draw.random() < 0.1:
                self.wrong_by += self.draw.choice((1.0, 61.0, 3600.0, 90_000.0))
            self.offer(self.draw.randint(1, 2 * self.limits.floor))

    def offer(self, count: int) -> None:
        now = self.elapsed - self.wrong_by
        left = room(self.limits.limit(self.fleet), self.fleet, self.kept, now)
        given = sum(item.count for item in hold(wants_cached(count), left, now).effects if isinstance(item, Offer))
        self.kept = book(self.kept, given, now)
        self.made += [(self.elapsed, given)]

    def most(self) -> int:
        """Return the most devices in any hour that ends with an offer, both ends included."""
        return max(
            sum(count for other, count in self.made[: at + 1] if other >= end - WINDOW_S)
            for at, (end, _) in enumerate(self.made)
        )


_WANTS: dict[int, Decision] = {}


def wants_cached(count: int) -> Decision:
    return _WANTS.setdefault(count, wants(count))


def test_in_no_hour_of_any_schedule_more_than_the_ceiling() -> None:
    reached = 0
    for seed in range(SCHEDULES):
        draw = random.Random(seed)
        day = Day(draw, Ceiling(draw.choice((0.0, 0.2, 1.0)), draw.randint(1, 30)), draw.choice((0, 40, 200)))
        day.live(20)
        limit = day.limits.limit(day.fleet)
        assert day.most() <= limit, seed
        reached += day.most() == limit
    assert reached > SCHEDULES / 2  # the ceiling is used up, not only kept


def test_who_waits_gets_room_when_it_was_promised() -> None:
    for seed in range(1_000):
        draw = random.Random(seed)
        day = Day(draw, Ceiling(0.0, draw.randint(1, 30)), 0)
        day.live(10)
        now = day.elapsed - day.wrong_by
        left = room(day.limits.floor, 0, day.kept, now)
        if left.opens_at is not None:
            assert now < left.opens_at <= now + WINDOW_S + ceiling.GRAIN_S
            assert room(day.limits.floor, 0, day.kept, left.opens_at - 0.001).devices == 0
            assert room(day.limits.floor, 0, day.kept, left.opens_at).devices > 0
