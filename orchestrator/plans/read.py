"""From the text of a plan to the plan, or to every fault with its line and column.

Rules:
- All faults come at once: duplicate keys, unknown keys, wrong units and missing keys in one answer.
- A fault is placed where a person must write: at the key for a key, at the value for a value, at the section for
  what is missing in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator import strict_yaml
from orchestrator.core.model import Plan
from orchestrator.errors import ConfigError
from orchestrator.plans.faults import Fault, PlanError, describe, path_of, sentence
from orchestrator.plans.model import PlanBody
from orchestrator.plans.section import Section

Place = tuple[str | int, ...]


def read_plan(text: str | bytes, name: str = "plan") -> Plan:
    """Return the plan that a YAML text means.

    Args:
        text: the plan; bytes are UTF-8.
        name: what it is called in errors, the name of its file.

    Raises:
        PlanError: with every fault, its line and its column.
    """
    return PlanBody.model_validate(read_document(text, name)).to_core()


def read_document(text: str | bytes, name: str = "plan") -> dict[str, Any]:
    """Return the keys and values of a plan as they are written, once they are known to be without fault.

    Args:
        text: the plan; bytes are UTF-8.
        name: what it is called in errors, the name of its file.

    Raises:
        PlanError: with every fault, its line and its column.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        document = strict_yaml.read(data)
    except strict_yaml.FaultError as error:
        raise PlanError(name, (_broken(error),)) from None
    faults = [_broken(error) for error in document.faults]
    try:
        PlanBody.model_validate(document.value)
    except ValidationError as error:
        faults += [_placed(document, fault) for fault in error.errors()]
    if faults:
        raise PlanError(name, tuple(sorted(faults, key=lambda fault: (fault.line, fault.column))))
    value: dict[str, Any] = document.value
    return value


def parse_plan(document: Any) -> Plan:
    """Return the plan that a document without a text means.

    Raises:
        ConfigError: with every fault and its place.
    """
    try:
        return PlanBody.model_validate(document).to_core()
    except ValidationError as error:
        raise ConfigError([describe(fault) for fault in error.errors()]) from None


def _broken(error: strict_yaml.FaultError) -> Fault:
    mark = error.mark or strict_yaml.Mark(1, 1)
    return Fault(mark.line, mark.column, "", error.problem)


def _placed(document: strict_yaml.Document, fault: Any) -> Fault:
    place: Place = fault["loc"]
    unknown = fault["type"] == "extra_forbidden"
    mark = document.keys[place] if unknown else _nearest(document, place)
    text = f"unknown key; {_advice(place)}" if unknown else sentence(fault)
    return Fault(mark.line, mark.column, path_of(place), text)


def _nearest(document: strict_yaml.Document, place: Place) -> strict_yaml.Mark:
    """Return where the value stands, or else the innermost section that it is missing in."""
    if place in document.values:
        return document.values[place]
    within = next((place[:end] for end in range(len(place) - 1, 0, -1) if place[:end] in document.values), ())
    return document.keys.get(within) or document.values.get(within) or strict_yaml.Mark(1, 1)


def _advice(place: Place) -> str:
    section, key = section_at(place[:-1]), str(place[-1])
    known = list(section.model_fields)
    if close := difflib.get_close_matches(key, known, 1):
        return f"did you mean {close[0]!r}?"
    elsewhere = next((path_of(where) for where, other in sections() if key in other.model_fields), None)
    if elsewhere is not None:
        return f"it belongs {f'under {elsewhere}' if elsewhere else 'at the top, outside any section'}"
    return f"allowed here: {', '.join(known)}"


def section_at(place: Place) -> type[Section]:
    """Return the section that a place in a plan is in."""
    section: type[Section] = PlanBody
    for part in place:
        section = section if isinstance(part, int) else _inner(section.model_fields[part].annotation) or section
    return section


def sections() -> Iterator[tuple[Place, type[Section]]]:
    """Yield each section with the keys that lead to it, the plan itself first."""
    waiting: list[tuple[Place, type[Section]]] = [((), PlanBody)]
    while waiting:
        place, section = waiting.pop(0)
        yield place, section
        for key, field in section.model_fields.items():
            if (inner := _inner(field.annotation)) is not None:
                waiting.append(((*place, key), inner))


def _inner(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)
