"""The JSON Schema of a plan, for editors and for checks elsewhere.

Rules:
- It is made from the model; nothing is written twice.
- It accepts what the model accepts, but for what a schema cannot say: `rest` stands in the last stage only, a
  selector has a grammar, zones and days exist, what ends does so after it began, and a whole number is written without
  a fraction (`100.0` is not 100).
- Patterns are those of ECMA 262, where `$` is the end of the text.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.plans.model import PlanBody
from orchestrator.plans.quantities import Quantity
from orchestrator.plans.read import sections
from orchestrator.plans.section import Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema as plain data (draft 2020-12)."""
    made = PlanBody.model_json_schema()
    parts = made["$defs"]
    for _, section in sections():
        part = made if section is PlanBody else parts[section.__name__]
        for key, value in part["properties"].items():
            _show_default(section, key, value)
    title = {"$schema": DIALECT, "title": "A rollout plan of the OTA orchestrator"}
    return title | {key: value for key, value in made.items() if key != "title"}


def schema_text() -> str:
    """Return the schema as a file holds it."""
    return json.dumps(schema(), indent=2) + "\n"


def _show_default(section: type[Section], key: str, value: dict[str, Any]) -> None:
    """Write a default as people do: with its unit, and a section that may be left out as an empty one."""
    value.pop("title", None)
    field = section.model_fields[key]
    unit = next((item for item in field.metadata if isinstance(item, Quantity)), None)
    if unit is not None and not field.is_required():
        value["default"] = unit.show(field.default)
    elif isinstance(value.get("default"), dict):
        value["default"] = {}
