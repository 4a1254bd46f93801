"""Hostile input for every parser, by the million: `python -m tests.fuzz.fuzz COUNT`.

Rules:
- A parser takes its input or raises what it documents, within its `limit_s`; anything else is found.
- Time is that of the processor, the least of several tries: another process cannot make a parser slow.
- One that does not come back is stopped after `HANG_S`.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from tests.fuzz import spread
from tests.fuzz.inputs import hostile
from tests.fuzz.spread import SEED, Result
from tests.fuzz.target import Target
from tests.fuzz.targets import open_targets

HANG_S = 5.0
_TRIES = 4


class HangError(BaseException):
    """A parser did not come back. No `Exception`, for parsers may catch those."""


def attempt(target: Target, data: bytes) -> tuple[str, str]:
    """Return the error that a parser raised, "" for none, and what is wrong with that, "" for nothing."""
    error, took_s = _once(target, data)
    wrong = error is not None and not isinstance(error, target.errors)
    for _ in range(_TRIES if took_s > target.limit_s and not wrong else 0):
        took_s = min(took_s, _once(target, data)[1])
    slow = f"slow: {took_s * 1000:.0f} ms" if took_s > target.limit_s and not wrong else ""
    return (type(error).__name__ if error else ""), (f"{type(error).__name__}: {error!s:.200}" if wrong else slow)


def _once(target: Target, data: bytes) -> tuple[BaseException | None, float]:
    begun_s, found = time.thread_time(), None
    try:
        with _stopped_after(HANG_S):
            target.parse(data)
    except (Exception, HangError) as error:
        found = error
    return found, time.thread_time() - begun_s


@contextmanager
def _stopped_after(limit_s: float) -> Iterator[None]:
    """Raise `HangError` in the middle of what takes so much of the processor's time; only in the main thread."""

    def stop(*_: object) -> None:
        raise HangError(f"stopped after {limit_s:.0f} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def pick(targets: Mapping[str, Target], number: int, seed: int = SEED) -> tuple[Target, bytes]:
    """Return the target and the input of a number."""
    turns = [target for target in targets.values() for _ in range(target.share)]
    target = turns[number % len(turns)]
    return target, hostile(target.seeds, spread.chance_of(number, seed), target.longest)


def examine(numbers: Iterable[int], seed: int = SEED) -> Result:
    """Make inputs, show them to the parsers, and return what came of them; nothing is logged from then on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder, open_targets(Path(folder)) as targets:
        return examine_with(targets, numbers, seed)


def examine_with(targets: Mapping[str, Target], numbers: Iterable[int], seed: int = SEED) -> Result:
    """Do the same with targets that are open."""
    result = Result()
    for number in numbers:
        target, data = pick(targets, number, seed)
        result.tried[target.name] += 1
        error, wrong = attempt(target, data)
        if wrong:
            result.found.append(f"{wrong}: seed {seed} input {number} ({target.name}): {data!r}")
        elif error:
            result.reasons[error] += 1
        else:
            result.taken[target.name] += 1
    return result


def _show(number: int, seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder, open_targets(Path(folder)) as targets:
        target, data = pick(targets, number, seed)
    return f"seed {seed} input {number} ({target.name}): {data!r}"


WORK = spread.Work(
    "tests.fuzz.fuzz",
    "Hostile input for every parser; none may crash or hang.",
    "inputs",
    20_000,
    examine,
    _show,
    50_000,
)

if __name__ == "__main__":
    sys.exit(spread.main(WORK, sys.argv[1:]))
