"""`docs/examples/plan.yaml` is a plan, names every key, and its defaults are the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import strict_yaml
from orchestrator.plans import parse_plan
from orchestrator.plans.model import DeadlinesBody, EvidenceBody, HaltBody, PlanBody, StageBody, TargetBody
from orchestrator.plans.pace import (
    AgainBody,
    ConsentBody,
    QuarantineBody,
    RequireBody,
    RetryBody,
    WindowBody,
)

EXAMPLE: dict[str, Any] = strict_yaml.parse(
    (Path(__file__).parents[2] / "docs" / "examples" / "plan.yaml").read_bytes()
)
YOURS = ("name", "release", "target", "stages")
PARTS: dict[str, type[BaseModel]] = {
    "": PlanBody,
    "target": TargetBody,
    "stages": StageBody,
    "halt": HaltBody,
    "evidence": EvidenceBody,
    "deadlines": DeadlinesBody,
    "window": WindowBody,
    "require": RequireBody,
    "consent": ConsentBody,
    "retry": RetryBody,
    "transient": AgainBody,
    "unexplained": AgainBody,
    "suspicious": AgainBody,
    "quarantine": QuarantineBody,
}
SHOWN = {"ramp", "freeze", "fixes", "gate", "health"}
"""Sections that stand there as their default, which is none."""


def keys_of(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of a document with the part of the plan that it stands in."""
    for item in value if isinstance(value, list) else [value]:
        for key, inner in item.items() if isinstance(item, dict) else ():
            yield place, key
            yield from keys_of(inner, key)


def test_it_is_a_plan_that_changes_only_what_it_marks_as_yours() -> None:
    least = {key: EXAMPLE[key] for key in YOURS}
    assert parse_plan(EXAMPLE) == parse_plan(least)


def test_it_names_every_key() -> None:
    known = {(place, key) for place, body in PARTS.items() for key in body.model_fields}
    assert set(keys_of(EXAMPLE)) == known


def test_no_part_of_a_plan_is_missing_here() -> None:
    nested = {name for name, field in PlanBody.model_fields.items() if "Body" in repr(field.annotation)}
    within = {name for name, field in RetryBody.model_fields.items() if "Body" in repr(field.annotation)}
    assert nested | within == (set(PARTS) | SHOWN) - {""}


def test_it_shows_every_kind_of_stage() -> None:
    assert {stage.kind.value for stage in parse_plan(EXAMPLE).stages} == {"count", "ppm", "rest"}
