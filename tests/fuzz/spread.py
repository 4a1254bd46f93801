"""Numbered trials, spread over processes: what `make mutants` and `make fuzz` have in common.

Rules:
- Number and seed make the trial: what is found can be made again with `--only NUMBER`.
- The standard output says what was tried and found, the standard error how far it is.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random

SEED = 1
_TIMES = 1 << 48
_TOLD_EVERY_S = 10
_MOST_SHOWN = 100


@dataclass(slots=True)
class Result:
    """What came of trials.

    Attributes:
        tried: how many, by kind.
        taken: how many of these were taken, and may be.
        reasons: why others were refused.
        found: what must not be, each with the number of its trial.
    """

    tried: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.tried += other.tried
        self.taken += other.taken
        self.reasons += other.reasons
        self.found += other.found


Examine = Callable[[Iterable[int], int], Result]


@dataclass(frozen=True, slots=True)
class Work:
    """Something to try by the million.

    Attributes:
        module: what stands behind `python -m`.
        about: one sentence.
        noun: what a trial is, in the plural.
        count: how many if nobody says.
        examine: makes the trials of some numbers, with a seed; must be a function that processes can be sent.
        show: says what the trial of a number is, with a seed.
        block: how many one process tries before it answers.
    """

    module: str
    about: str
    noun: str
    count: int
    examine: Examine
    show: Callable[[int, int], str]
    block: int


def chance_of(number: int, seed: int) -> Random:
    """Return the source of chance of one trial."""
    return Random(seed * _TIMES + number)


def main(work: Work, arguments: list[str]) -> int:
    """Print the number of trials by kind, the rate, and what was found; return 1 if something was."""
    asked = _asked(work, arguments)
    if asked.only is not None:
        print(work.show(asked.only, asked.seed))
        asked.start, asked.count = asked.only, 1
    begun_at = time.monotonic()
    result = _run(work, asked, begun_at)
    took_s = time.monotonic() - begun_at
    for name, count in result.tried.items():
        print(f"{name:24} {count:9} {work.noun}" + f" {result.taken[name]:9} taken" * (name in result.taken))
    print("refused as " + ", ".join(f"{code} {count}" for code, count in result.reasons.most_common()))
    for text in result.found[:_MOST_SHOWN]:
        print(text)
    made = result.tried.total()
    print(f"{made} {work.noun} in {took_s:.0f} s ({made / took_s:.0f}/s): {len(result.found)} found")
    return 1 if result.found else 0


def _asked(work: Work, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(f"python -m {work.module}", description=work.about)
    parser.add_argument("count", type=int, nargs="?", default=work.count)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this one again")
    return parser.parse_args(arguments)


def _run(work: Work, asked: argparse.Namespace, begun_at: float) -> Result:
    result, told_at = Result(), begun_at
    with ProcessPoolExecutor(asked.processes) as pool:
        blocks = list(_blocks(asked.start, asked.count, work.block))
        for part in pool.map(work.examine, blocks, [asked.seed] * len(blocks)):
            result.add(part)
            now = time.monotonic()
            if now - told_at > _TOLD_EVERY_S or part.found:
                done = result.tried.total()
                rate = done / (now - begun_at)
                print(f"{done} of {asked.count}, {rate:.0f}/s, {len(result.found)} found", file=sys.stderr, flush=True)
                told_at = now
            for text in part.found[:_MOST_SHOWN]:
                print(text, file=sys.stderr, flush=True)
    return result


def _blocks(start: int, count: int, block: int) -> Iterator[range]:
    for first in range(start, start + count, block):
        yield range(first, min(first + block, start + count))
