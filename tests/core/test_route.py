"""Stepping stones, against a search of all ways."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Reason, Release
from orchestrator.core.targeting.route import Stone, Way, next_step, route, stone, too_low
from tests.support.factory import make_artifact


def made(rel: int, min_from: int = 0) -> Stone:
    return Stone(rel, min_from, f"radio-{rel}")


TARGET = made(9, 6)
STONES = (made(6, 3), made(3), made(5, 3), made(9, 6), made(12))


def test_it_goes_as_far_as_it_can_with_each_step() -> None:
    assert route(1, TARGET, STONES) == (made(3), made(6, 3), TARGET)
    assert next_step(1, TARGET, STONES) == made(3)
    assert next_step(3, TARGET, STONES) == made(6, 3)
    assert next_step(6, TARGET, STONES) == next_step(8, TARGET, STONES) == TARGET


def test_a_target_that_takes_everybody_needs_no_stones() -> None:
    assert route(0, made(9), STONES) == (made(9),)
    assert route(0, made(9), ()) == (made(9),)


@pytest.mark.parametrize(
    ("running", "stones", "code", "text"),
    [
        (None, STONES, "release_unknown", "it is not known which release it runs"),
        (10, STONES, "newer", "it runs release counter 10, which is above 9"),
        (9, STONES, "there", "it runs release counter 9 already"),
        (
            1,
            (made(5, 3),),
            "no_route",
            "radio-9 takes devices from release counter 6 on; from 1 no release leads on",
        ),
        (
            1,
            (made(3), made(5, 3)),
            "no_route",
            "radio-9 takes devices from release counter 6 on; from 1 it gets to 5, and no further",
        ),
    ],
)
def test_where_there_is_no_way_it_says_why(
    running: int | None, stones: tuple[Stone, ...], code: str, text: str
) -> None:
    assert next_step(running, TARGET, stones) == Reason(code, text)


def test_another_release_with_the_number_of_the_target_is_not_the_target() -> None:
    twin = Stone(9, 0, "radio-9-again")
    assert route(1, made(9, 3), (twin, made(3))) == (made(3), made(9, 3))


def test_a_release_is_a_stone_for_the_hardware_of_its_artifact() -> None:
    artifact = make_artifact(rel=4, min_from=2)
    assert stone(Release("radio-4", "4.0.0", 4, (artifact.sha256,), 0.0), artifact) == Stone(4, 2, "radio-4")


def test_who_is_too_old_is_told_the_next_step_or_why_there_is_none() -> None:
    assert too_low(3, Way(TARGET, STONES)) == Reason(
        "from_too_low",
        "it runs release counter 3, and the release takes 6 or later; radio-6 is the next step on its way",
    )
    assert too_low(1, Way(TARGET, ())).text == (
        "it runs release counter 1; radio-9 takes devices from release counter 6 on; from 1 no release leads on"
    )


def shortest(running: int, target: Stone, stones: list[Stone]) -> int | None:
    """Return the fewest steps, found by trying everything."""
    waiting, best = deque([(running, 0)]), {running: 0}
    while waiting:
        at, steps = waiting.popleft()
        if at == target.rel:
            return steps
        for item in stones:
            if item.rel > at >= item.min_from and (item.rel < target.rel or item == target) and item.rel not in best:
                best[item.rel] = steps + 1
                waiting.append((item.rel, steps + 1))
    return None


some = st.builds(Stone, st.integers(1, 12), st.integers(0, 12), st.sampled_from(("a", "b")))


@given(st.integers(0, 12), some, st.lists(some, max_size=12))
def test_it_is_a_shortest_way_it_is_legal_and_order_does_not_matter(
    running: int, target: Stone, stones: list[Stone]
) -> None:
    found = route(running, target, stones)
    assert found == route(running, target, sorted(stones)) == route(running, target, stones[::-1])
    if isinstance(found, Reason):
        assert running >= target.rel or shortest(running, target, [*stones, target]) is None
        return
    assert len(found) == shortest(running, target, [*stones, target])
    at = running
    for step in found:
        assert step.rel > at >= step.min_from and step in [*stones, target]
        at = step.rel
    assert found[-1] == target
