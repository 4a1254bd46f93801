"""docs/plans.md names every key with its real default, and every template with its real stages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator import plans
from orchestrator.plans.faults import path_of
from orchestrator.plans.model import PlanBody
from orchestrator.plans.read import sections
from tests.plans.odds import PLANS

PAGE = (Path(__file__).parents[2] / "docs" / "plans.md").read_text(encoding="utf-8")
SCHEMA = plans.schema()


def rows(columns: int) -> list[list[str]]:
    """Return the rows of all tables of so many columns, those of their heads left out."""
    found = re.findall(r"^\| (`[^|]*) \|(.*)\|$", PAGE, re.MULTILINE)
    split = [[first.strip("`"), *(cell.strip() for cell in others.split("|"))] for first, others in found]
    return [row for row in split if len(row) == columns]


def default_of(part: dict[str, Any], key: str) -> str:
    """Return a default as the page writes it."""
    if key in part.get("required", ()):
        return ""
    value = part["properties"][key]["default"]
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else value if value != "" else '""'
    return f"`{text}`"


def test_every_key_stands_there_with_its_default() -> None:
    expected = {
        path_of((*place, key)): default_of(SCHEMA if section is PlanBody else SCHEMA["$defs"][section.__name__], key)
        for place, section in sections()
        for key in section.model_fields
    }
    keys = [row for row in rows(4) if row[0] not in plans.TEMPLATES]
    assert {row[0]: row[2] for row in keys} == expected


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_every_template_stands_there_with_its_stages(name: str) -> None:
    (row,) = [row for row in rows(4) if row[0] == name]
    sizes = [
        {"count": str(stage.size), "ppm": f"{stage.size // 10_000} %", "rest": "rest"} for stage in PLANS[name].stages
    ]
    kinds = [stage.kind.value for stage in PLANS[name].stages]
    assert row[2] == ", ".join(size[kind] for size, kind in zip(sizes, kinds, strict=True))
    days, rest = divmod(round(sum(stage.soak_s for stage in PLANS[name].stages)), 86_400)
    counts = ((days, "days"), (rest // 3600, "hours"), (rest % 3600 // 60, "minutes"))
    assert row[3] == (" and ".join(f"{count} {unit}" for count, unit in counts if count) or "none")


def test_the_faults_that_it_shows_are_said_so() -> None:
    text = "name: a\nrelease: b\nstages:\n  - devices: 5\n    soak: 30\n  - devices: rest\nhalt:\n\n  alpah: 5%\n"
    with pytest.raises(plans.PlanError) as caught:
        plans.read_plan(text, "plan.yaml")
    assert "\n".join(caught.value.faults) in PAGE
