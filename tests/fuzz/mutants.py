"""Mutants of every kind of message, by the million: `python -m tests.fuzz.mutants COUNT`.

Rules:
- A mutant that equals a good message is none, and is drawn again.
- A device must refuse every mutant. One that it takes is found, except where `HARMLESS` says why it may and it means
  what the message meant. Any other exception than `Refused` is found as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.verifier import Refused
from tests.fuzz import spread
from tests.fuzz.messages import GOOD, MESSAGES, Message
from tests.fuzz.operators import HARMLESS, OPERATORS, RICH, ROUGH
from tests.fuzz.spread import SEED, Result

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


def mutant(number: int, seed: int = SEED) -> Mutant:
    """Return the mutant of a number."""
    chance = spread.chance_of(number, seed)
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
            result.taken[made.operator] += 1
        else:
            result.found.append(f"taken: {made}")
    return result


WORK = spread.Work(
    "tests.fuzz.mutants",
    "Mutants of every kind of message; a device must refuse them all.",
    "mutants",
    100_000,
    examine,
    lambda number, seed: str(mutant(number, seed)),
    20_000,
)

if __name__ == "__main__":
    sys.exit(spread.main(WORK, sys.argv[1:]))
