"""Mutants of every kind of message, by the million: `python -m tests.fuzz.mutants COUNT`.

Rules:
- Number and seed make the mutant: what is found can be made again with `--only NUMBER`.
- A mutant that equals a good message is none, and is drawn again.
- A device must refuse every mutant. One that it takes is found, except where `HARMLESS` says why it may and it means
  what the message meant. Any other exception than `Refused` is found as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random

from orchestrator.verifier import Refused
from tests.fuzz.messages import GOOD, MESSAGES, Message
from tests.fuzz.operators import HARMLESS, OPERATORS, RICH, ROUGH

SEED = 1
_BLOCK = 20_000
_TIMES = 1 << 48
_TURNS = tuple(name for name, operator in OPERATORS.items() for _ in range(4 if operator in RICH else 1))
_MEANINGS = {message.name: message.take(message.data) for message in MESSAGES}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant: what it was made of, how, and its bytes."""

    seed: int
    number: int
    message: Message
    operator: str
    data: bytes

    def __str__(self) -> str:
        return f"seed {self.seed} mutant {self.number} ({self.message.name}, {self.operator}): {self.data!r}"


@dataclass(slots=True)
class Result:
    """What came of mutants: how many by operator, how many harmless, why others were refused, what was found."""

    tried: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.tried += other.tried
        self.harmless += other.harmless
        self.reasons += other.reasons
        self.found += other.found


def mutant(number: int, seed: int = SEED) -> Mutant:
    """Return the mutant of a number."""
    chance = Random(seed * _TIMES + number)
    message, name = MESSAGES[number % len(MESSAGES)], _TURNS[number // len(MESSAGES) % len(_TURNS)]
    data = message.data
    while data in GOOD:
        data = OPERATORS[name](message, chance)
        if name not in HARMLESS and data and not chance.randrange(8):
            # The lines no longer fit the message, which rough operators do not look at.
            data = chance.choice(ROUGH)(Message(name, data, message.take, (), ()), chance)
    return Mutant(seed, number, message, name, data)


def examine(numbers: Iterable[int], seed: int = SEED) -> Result:
    """Make mutants, show them to the verifier, and return what came of them."""
    result = Result()
    for number in numbers:
        made = mutant(number, seed)
        result.tried[made.operator] += 1
        try:
            meaning = made.message.take(made.data)
        except Refused as refusal:
            result.reasons[refusal.code] += 1
            continue
        except Exception as error:
            result.found.append(f"{type(error).__name__}: {made}")
            continue
        if made.operator in HARMLESS and meaning == _MEANINGS[made.message.name]:
            result.harmless[made.operator] += 1
        else:
            result.found.append(f"taken: {made}")
    return result


def _blocks(start: int, count: int) -> Iterator[range]:
    for first in range(start, start + count, _BLOCK):
        yield range(first, min(first + _BLOCK, start + count))


def run(start: int, count: int, seed: int, processes: int) -> Result:
    """Examine mutants in several processes; says on standard error how far it is."""
    result, begun_at, told_at = Result(), time.monotonic(), time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(examine, _blocks(start, count), (seed for _ in _blocks(start, count))):
            result.add(part)
            now = time.monotonic()
            if now - told_at > 10 or part.found:
                done = result.tried.total()
                rate = done / (now - begun_at)
                print(f"{done} of {count}, {rate:.0f}/s, {len(result.found)} found", file=sys.stderr, flush=True)
                told_at = now
    return result


def main(arguments: list[str]) -> int:
    """Print the number of mutants by operator, the rate, and what was found; return 1 if something was."""
    parser = argparse.ArgumentParser("python -m tests.fuzz.mutants", description=__doc__.partition(":")[0])
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this one mutant again")
    asked = parser.parse_args(arguments)
    if asked.only is not None:
        print(mutant(asked.only, asked.seed))
        asked.start, asked.count = asked.only, 1
    begun_at = time.monotonic()
    result = run(asked.start, asked.count, asked.seed, asked.processes)
    took_s = time.monotonic() - begun_at
    for name, count in result.tried.items():
        print(f"{name:24} {count:9} mutants" + f" {result.harmless[name]:8} harmless" * (name in HARMLESS))
    print("refused as " + ", ".join(f"{code} {count}" for code, count in result.reasons.most_common()))
    for text in result.found[:100]:
        print(text)
    made = result.tried.total()
    print(f"{made} mutants in {took_s:.0f} s ({made / took_s:.0f}/s): {len(result.found)} found")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
