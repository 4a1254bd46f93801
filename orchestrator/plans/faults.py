"""What is wrong with a plan, in words: where, what, and what is allowed.

Rules:
- No text of the validation library reaches a person: every kind of fault has its own sentence.
- A fault is one sentence in two halves: what is wrong; what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.plans.quantities import shown

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "dict_type": "keys with their values",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "keys with their values",
    "model_attributes_type": "keys with their values",
}
_OTHERS = {
    "json_invalid": "not JSON; write one JSON object",
    "string_pattern_mismatch": "holds signs that are not allowed here",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    Attributes:
        line: where, from 1.
        column: where, from 1.
        path: the key, such as `stages.0.soak`; "" for the file as a whole.
        text: what is wrong; what is allowed.
    """

    line: int
    column: int
    path: str
    text: str


class PlanError(ConfigError):
    """A plan is refused; `places` lists every fault at once.

    Args:
        name: what the plan is called, the name of its file.
        places: the faults in the order of their lines.
    """

    default_code = "bad_plan"

    def __init__(self, name: str, places: tuple[Fault, ...]) -> None:
        super().__init__([_line(name, fault) for fault in places])
        self.places = places


def describe(fault: Any) -> str:
    """Return one fault of a validation as a sentence with its place."""
    return f"{path_of(fault['loc']) or 'the plan'}: {sentence(fault)}"


def path_of(place: tuple[str | int, ...]) -> str:
    """Return a place as people write it, such as `stages.0.soak`, on one line whatever a key holds."""
    path = ".".join(str(part) for part in place if part != "body")
    return path if path.isprintable() else path.encode("unicode_escape").decode("ascii")


def sentence(fault: Any) -> str:
    """Return what is wrong in one fault of a validation, and what is allowed."""
    kind, context, value = fault["type"], fault.get("ctx", {}), fault["input"]
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "is missing; it has no default"
    if kind in _OTHERS:
        return _OTHERS[kind]
    if kind in _TYPES:
        hint = " or leave the key out" if value is None else ""
        return f"{'nothing' if value is None else shown(value)} is not allowed; write {_TYPES[kind]}{hint}"
    if kind in ("enum", "literal_error"):
        return f"{shown(value)} is not allowed; write {context['expected']}"
    return _range(kind, context, value) or str(fault["msg"]).removeprefix("Value error, ")


def _range(kind: str, context: Mapping[str, Any], value: object) -> str:
    if kind in ("greater_than_equal", "less_than_equal"):
        word, limit = ("at least", context.get("ge")) if kind.startswith("greater") else ("at most", context.get("le"))
        return f"{shown(value)} is not allowed; write {word} {limit}"
    if kind in ("too_short", "too_long"):
        word, limit = ("at least", context["min_length"]) if kind == "too_short" else ("at most", context["max_length"])
        return f"{context['actual_length']} entries are not allowed; write {word} {limit}"
    if kind in ("string_too_short", "string_too_long"):
        word, limit = (
            ("at least", context["min_length"]) if kind.endswith("short") else ("at most", context["max_length"])
        )
        return f"a text of {len(str(value))} characters is not allowed; write {word} {limit}"
    return ""


def _line(name: str, fault: Fault) -> str:
    return f"{name}:{fault.line}:{fault.column}: {fault.path + ': ' if fault.path else ''}{fault.text}"
