"""How fast halts are measured to be: by hand with a clock, and with the engine."""

from __future__ import annotations

import math

from orchestrator.core.timing import Timing
from orchestrator.engine.rollouts.reaction import Reaction
from tests.support.clock import Clock


def taken(timing: Timing) -> tuple[int, float]:
    """Return how often, and how long together."""
    count = dict(timing.below)[math.inf]
    return count, round(timing.total_s, 6)


def test_a_halt_counts_from_the_first_evidence_that_nobody_had_looked_at() -> None:
    clock = Clock(0.0)
    reaction = Reaction(clock)
    reaction.changed({1, 2})
    clock.advance(2)
    reaction.changed({1})
    clock.advance(1)
    since = reaction.looking(1)
    clock.advance(1)
    reaction.halted(1, since)
    assert taken(reaction.halts) == (1, 4)
    assert reaction.looking(1) is None
    assert reaction.looking(2) == 0


def test_a_halt_without_evidence_of_its_own_is_not_measured() -> None:
    reaction = Reaction(Clock(0.0))
    reaction.halted(1, None)
    reaction.turned()
    assert taken(reaction.halts) == taken(reaction.triggers) == (0, 0)


def test_the_last_trigger_is_the_last_of_that_rollout_before_the_next_turn() -> None:
    clock = Clock(100.0)
    reaction = Reaction(clock)
    reaction.published({1})  # before anything was decided
    reaction.halted(1, 100.0)
    reaction.halted(2, 100.0)
    clock.advance(3)
    reaction.published({1, 3})
    clock.advance(3)
    reaction.turned()
    clock.advance(3)
    reaction.published({1})
    reaction.turned()
    assert taken(reaction.triggers) == (2, 3)  # three seconds for the one, none for the other
