"""Draws `docs/machines.md` from the tables of the two machines: `python docs/draw_machines.py` rewrites it.

Rules:
- Every arrow and every cell comes from `core.update.TABLE` or `core.rollout.TABLE`; only the words
  around them stand here.
- The picture of an update shows the usual ways, walked through the table; the grid below it is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from orchestrator.core import rollout, update
from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.update import FactKind

TARGET = Path(__file__).with_name("machines.md")
F = FactKind

WAYS: tuple[tuple[FactKind, ...], ...] = (
    (F.OFFER, F.ACCEPTED, F.DOWNLOADED, F.INSTALLED, F.RUNNING, F.CONFIRMED, F.ROLLED_BACK),
    (F.OFFER, F.WITHDRAW),
    (F.OFFER, F.REFUSED),
    (F.OFFER, F.POSTPONED, F.RETURN),
    (F.OFFER, F.UNANSWERED, F.RETURN),
    (F.UNANSWERED,),
    (F.OFFER, F.ACCEPTED, F.FAILED, F.AGAIN),
    (F.OFFER, F.ACCEPTED, F.GAVE_UP, F.RETURN),
    (F.OFFER, F.ACCEPTED, F.DOWNLOADED, F.SILENT),
    (F.OFFER, F.ACCEPTED, F.DOWNLOADED, F.INSTALLED, F.ROLLED_BACK),
    (F.OFFER, F.ACCEPTED, F.DOWNLOADED, F.INSTALLED, F.SILENT),
    (F.OFFER, F.RECALL, F.RECALLED, F.RETURN),
    (F.OFFER, F.ACCEPTED, F.RECALL, F.TOO_LATE, F.INSTALLED),
    (F.SUPERSEDE,),
)
"""The usual ways of an update from `pending`."""

AUTOMATIC: tuple[tuple[Phase, Phase, str], ...] = (
    (Phase.PREPARING, Phase.RUNNING, "cohort counted"),
    (Phase.PREPARING, Phase.DRAFT, "no device matches"),
    *((phase, Phase.HALTED, "evidence") for phase in Phase if phase in rollout.JUDGED),
    (Phase.RUNNING, Phase.INCONCLUSIVE, "evidence cannot settle it"),
    (Phase.RUNNING, Phase.DONE, "last stage passed"),
)
"""Moves that nobody commands; which phases evidence can halt comes from `core.rollout.JUDGED`."""

_INTRO = """# The two machines

Drawn by `docs/draw_machines.py` from the tables in `orchestrator/core`; a test fails when this page is out of date.

## One rollout

Plain words are commands of a person, words in brackets are moves that nobody commands. `resume` leads to `preparing`
while the cohort is not known; it passes the stage of an inconclusive rollout, so that the last one is `done`. A
finished rollout is never left. `retry`, `advance` and `skip` change something within a phase: `retry` gives failed
devices another attempt, `advance` passes the stage without waiting for the rest of its evidence, `skip` also without
offering it the release.
"""

_UPDATE = """
## One device in one rollout

The usual ways. The grid below has every move; a pair that is not in it is ignored with a reason, because devices
repeat and reorder what they say.
"""

_KINDS = """
| kind | states | what it means |
|---|---|---|
| in flight | {in_flight} | holds a slot; counts in n, so far as a success |
| confirmed | confirmed | healthy on the new release |
| failed | {failures} | counts in k; still counts if a person gives the device another attempt (`again`) |
| neutral | {neutral} | no evidence: never ran, or never began, the new release |

What a device says climbs this ladder and never comes down, so every order of its reports ends in the same state:

{ladder}

Every move: the row is the present state, the column what happened, the cell the next state.

### What devices say

{said}

### What the daemon decides

{decided}
"""

DECIDED = (F.OFFER, F.WITHDRAW, F.RECALL, F.UNANSWERED, F.SILENT, F.RETURN, F.SUPERSEDE, F.AGAIN)
"""Facts of the daemon; all others are said by devices."""


def render() -> str:
    """Return the whole page."""
    said = [fact for fact in FactKind if fact not in DECIDED]
    kinds = _KINDS.format(
        in_flight=_list(update.IN_FLIGHT),
        failures=_list(update.FAILURES),
        neutral=_list(update.NEUTRAL),
        ladder=" < ".join(update.LADDER),
        said=_grid(said),
        decided=_grid(DECIDED),
    )
    return _INTRO + _mermaid(_rollout_arrows()) + _UPDATE + _mermaid(_update_arrows()) + kinds


def _rollout_arrows() -> list[tuple[str, str, str]]:
    commands = [(start, end, str(word)) for start, moves in rollout.TABLE.items() for word, end in moves.items()]
    automatic = [(start, end, f"({word})") for start, end, word in AUTOMATIC]
    finished = [(phase, "[*]", "") for phase in Phase if phase in rollout.FINISHED]
    return [("[*]", Phase.DRAFT, ""), *commands, *automatic, *finished]


def _update_arrows() -> list[tuple[str, str, str]]:
    arrows: list[tuple[str, str, str]] = [("[*]", UpdateState.PENDING, "")]
    for way in WAYS:
        here = UpdateState.PENDING
        for fact in way:
            there = update.TABLE[here][fact]
            arrows.append((here, there, fact))
            here = there
    return arrows


def _mermaid(arrows: Iterable[tuple[str, str, str]]) -> str:
    words: dict[tuple[str, str], list[str]] = {}
    for start, end, word in arrows:
        known = words.setdefault((start, end), [])
        if word and word not in known:
            known.append(word)
    lines = [f"    {start} --> {end}{_label(known)}" for (start, end), known in words.items()]
    return "\n".join(["", "```mermaid", "stateDiagram-v2", *lines, "```", ""])


def _label(words: list[str]) -> str:
    return f": {', '.join(words)}" if words else ""


def _grid(facts: Iterable[FactKind], table: Mapping[UpdateState, Mapping[FactKind, str]] = update.TABLE) -> str:
    columns = list(facts)
    rows = ["| |" + "".join(f" {fact} |" for fact in columns), "|---" * (len(columns) + 1) + "|"]
    for state, moves in table.items():
        if not moves.keys().isdisjoint(columns):
            rows.append(f"| **{state}** |" + "".join(f" {moves.get(fact, '')} |" for fact in columns))
    return "\n".join(rows)


def _list(states: frozenset[UpdateState]) -> str:
    return ", ".join(state for state in UpdateState if state in states)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
