"""Hostile days for the engine, by the thousand: `python -m tests.campaigns.campaigns COUNT`.

Rules:
- A number makes the campaign, the same one every time: `--only NUMBER` plays it again.
- What fails is made shorter before it is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.campaigns.house import silent
from tests.campaigns.play import play
from tests.campaigns.script import Script, draw, shorter
from tests.fuzz import spread
from tests.fuzz.spread import SEED, Result

_TRIES = 150
"""Plays that making one failure shorter may take."""


def script_of(number: int, seed: int = SEED) -> Script:
    """Return the campaign of a number."""
    return draw(spread.chance_of(number, seed))


def examine(numbers: Iterable[int], seed: int = SEED) -> Result:
    """Play campaigns, and return how they ended."""
    silent()
    result = Result()
    for number in numbers:
        script = script_of(number, seed)
        result.tried[f"{len(script.plans)} rollouts"] += 1
        try:
            ending = play(script)
        except Exception as error:
            result.found.append(_story(number, seed, script, error))
            continue
        result.reasons.update(ending.phases)
        result.reasons["killed"] += ending.crashes
    return result


def _story(number: int, seed: int, script: Script, error: Exception) -> str:
    """Return what broke, how to play it again, and the shortest script that breaks in the same way."""
    left = _TRIES

    def fails(tried: Script) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and fault(tried) is type(error)

    story = shorter(script, fails)
    again = f"python -m tests.campaigns.campaigns --seed {seed} --only {number}"
    return f"campaign {number}: {type(error).__name__}: {str(error)[:600]}\nplay it again: {again}\n{story}"


def fault(script: Script) -> type[Exception] | None:
    """Return what a campaign breaks with, None if it does not."""
    try:
        play(script)
    except Exception as error:
        return type(error)
    return None


WORK = spread.Work(
    "tests.campaigns.campaigns",
    "Campaigns on hostile days; every promise of the engine must hold after every commit.",
    "campaigns",
    10_000,
    examine,
    lambda number, seed: str(script_of(number, seed)),
    25,
)

if __name__ == "__main__":
    sys.exit(spread.main(WORK, sys.argv[1:]))
