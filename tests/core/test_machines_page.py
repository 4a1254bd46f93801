"""`docs/machines.md` is what the tables say today, and its pictures leave nothing out."""

from __future__ import annotations

import pytest

from docs import draw_machines
from orchestrator.core import rollout, update
from orchestrator.core.model import Phase, UpdateState

PAGE = draw_machines.TARGET.read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert draw_machines.render() == PAGE, "run: python docs/draw_machines.py"


@pytest.mark.parametrize("word", [*UpdateState, *Phase])
def test_every_state_and_phase_is_in_a_picture(word: str) -> None:
    pictures = PAGE.split("```mermaid")[1:]
    assert any(f" {word} -->" in picture or f"--> {word}" in picture for picture in pictures)


def test_the_usual_ways_use_every_fact_of_the_daemon() -> None:
    used = {fact for way in draw_machines.WAYS for fact in way}
    assert used >= set(draw_machines.DECIDED)


def test_every_command_of_the_table_is_drawn() -> None:
    for start, moves in rollout.TABLE.items():
        for command, end in moves.items():
            (line,) = [line for line in PAGE.splitlines() if line.startswith(f"    {start} --> {end}: ")]
            assert command in line.partition(": ")[2].split(", ")


def test_every_move_of_the_table_is_in_a_grid() -> None:
    grids = [grid.split("\n\n")[1] for grid in PAGE.split("### ")[1:]]
    found: dict[tuple[str, str], str] = {}
    for grid in grids:
        heads, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in grid.strip().splitlines()]
        found |= {
            (row[0].strip("*"), fact): cell for row in rows for fact, cell in zip(heads, row, strict=True) if fact
        }
    expected = {(state, fact): to for state, moves in update.TABLE.items() for fact, to in moves.items()}
    assert {pair: cell for pair, cell in found.items() if cell} == expected
