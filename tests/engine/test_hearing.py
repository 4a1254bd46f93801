"""When silence means anything."""

from __future__ import annotations

from orchestrator.engine.reports.hearing import Hearing
from tests.support.clock import Clock


class Line:
    """A link whose number the test sets."""

    def __init__(self) -> None:
        self.number, self.clock = 0, Clock(100.0)
        self.hearing = Hearing(lambda: self.number, 30.0, self.clock)


def test_without_a_link_nothing_is_heard() -> None:
    line = Line()
    line.clock.advance(1000)
    assert line.hearing() is False


def test_a_new_link_counts_after_the_grace_period() -> None:
    line = Line()
    line.number = 1
    assert line.hearing() is False
    line.clock.advance(29.9)
    assert line.hearing() is False
    line.clock.advance(0.1)
    assert line.hearing() is True


def test_another_link_is_a_broken_link_even_if_nobody_saw_it_break() -> None:
    line = Line()
    line.number = 1
    line.hearing()
    line.clock.advance(60)
    assert line.hearing() is True
    line.number = 3
    assert line.hearing() is False
    line.clock.advance(30)
    assert line.hearing() is True
    line.number = 0
    assert line.hearing() is False


def test_a_time_in_which_nobody_listened_is_a_broken_link() -> None:
    clock, running = Clock(), Clock()
    hearing = Hearing(lambda: 1, 30.0, clock, running)
    hearing()
    clock.advance(30.0)
    running.advance(4.0)
    assert hearing()
    clock.advance(600.0)
    running.advance(600.0)  # the machine was paused
    assert not hearing()
    clock.advance(30.0)
    running.advance(1.0)
    assert hearing()
