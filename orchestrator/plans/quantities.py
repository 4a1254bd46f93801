"""Values of a plan, each in one place: how it is read, how it is shown, which texts a schema accepts.

Rules:
- A text is read if, and only if, it matches the pattern that the schema shows.
- A refusal says what was written and what is allowed, in the unit that people write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.model import SizeKind, StagePlan
from orchestrator.units import format_duration, format_share, parse_duration, parse_share

LARGEST = 2**53 - 1
"""Largest whole number that every reader of JSON keeps exactly."""

PPM = 1_000_000
MILLIONTHS = r"([1-9][0-9]{0,5})ppm"
ABOVE_NOTHING = r"(?!0{1,3}(\.0{1,4})?%$)"
UNDER_A_WHOLE = r"0?[0-9]{1,2}(\.[0-9]{1,4})?%"
AT_MOST_ALL = rf"({UNDER_A_WHOLE}|100(\.0{{1,4}})?%)"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that is written as text with its unit.

    Attributes:
        parse: from text to the number; raises `ValueError` for what is no such text at all.
        show: from the number to text.
        pattern: texts that are allowed, anchored at both ends, in the syntax of ECMA 262.
        allowed: the same in words.
        examples: texts that are allowed.
    """

    parse: Callable[[object], float]
    show: Callable[[float], str]
    pattern: str
    allowed: str
    examples: tuple[str, ...]

    def read(self, value: object) -> float:
        """Return the number that `value` means.

        Raises:
            ValueError: it is none, or not an allowed one.
        """
        try:
            number = self.parse(value)
        except ValueError:
            number = None
        if number is None or not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError(f"{shown(value)} is not allowed; write {self.allowed}, such as {quoted(self.examples)}")
        return number

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern, "examples": list(self.examples)}


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name: of a rollout, a release, a model, a group."""

    def read(self, value: object) -> str:
        """Return the name.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, str) and re.fullmatch(IDENTIFIER, value):
            return value
        raise ValueError(
            f"{shown(value)} is no identifier; write 1 to 64 lower-case letters, digits, dots, underscores and "
            "hyphens, the first a letter or a digit"
        )

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": IDENTIFIER}


@dataclass(frozen=True, slots=True)
class StageSize:
    """How many devices a stage takes: a number, a share or millionths of the cohort, or the rest."""

    def read(self, value: object) -> StagePlan:
        """Return a stage of that size.

        Raises:
            ValueError: it is no size, or the rest where another stage follows.
        """
        if value is EARLY_REST:
            raise ValueError('only the last stage may take "rest"; write a number of devices or a share such as "5%"')
        if value == "rest":
            return StagePlan(SizeKind.REST, 0)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST:
            return StagePlan(SizeKind.COUNT, value)
        if isinstance(value, str) and re.fullmatch(f"{ABOVE_NOTHING}{AT_MOST_ALL}", value):
            return StagePlan(SizeKind.PPM, round(parse_share(value) * PPM))
        if isinstance(value, str) and (millionths := re.fullmatch(MILLIONTHS, value)):
            return StagePlan(SizeKind.PPM, int(millionths[1]))
        raise ValueError(
            f"{shown(value)} is not a stage size; "
            'write a number of devices, a share such as "5%" or "250ppm", or "rest"'
        )

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": LARGEST},
                {"type": "string", "pattern": f"^({ABOVE_NOTHING}{AT_MOST_ALL}|{MILLIONTHS})$"},
                {"const": "rest"},
            ],
            "examples": [10, "5%", "250ppm", "rest"],
        }


EARLY_REST = object()
"""Stands for "rest" in a stage that is not the last one."""

IDENTIFIER = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def no_early_rest(stages: object) -> object:
    """Return the stages as written, with `EARLY_REST` where the rest of the cohort is not in the last one."""
    if not isinstance(stages, list):
        return stages
    early = [
        stage | {"devices": EARLY_REST}
        if isinstance(stage, dict) and stage.get("devices") == "rest" and stage.get("group") is None
        else stage
        for stage in stages[:-1]
    ]
    return [*early, *stages[-1:]]


def shown(value: object) -> str:
    """Return what was written, shortened, as an error quotes it."""
    return f"{value!r:.40}"


def quoted(texts: tuple[str, ...]) -> str:
    """Return examples as a sentence lists them."""
    return " or ".join(f'"{text}"' for text in texts)


def _duration(zero: str, allowed: str, *examples: str) -> Quantity:
    pattern = rf"^{zero}[0-9]{{1,9}}(\.[0-9]{{1,6}})?(ms|s|m|h|d)$"
    return Quantity(parse_duration, format_duration, pattern, allowed, examples)


def _share(pattern: str, allowed: str, *examples: str) -> Quantity:
    return Quantity(parse_share, format_share, f"^{pattern}$", allowed, examples)


DURATION = _duration(r"(?![0.]+[a-z])", "a duration above zero with its unit (ms, s, m, h or d)", "30m", "1.5h")
SOAK = _duration("", "a duration with its unit (ms, s, m, h or d)", "0s", "6h")
SHARE = _share(AT_MOST_ALL, 'a percentage from "0%" to "100%"', "5%", "0.5%")
SOME = _share(ABOVE_NOTHING + AT_MOST_ALL, 'a percentage above "0%" and up to "100%"', "5%", "0.5%")
TOLERATED = _share(
    ABOVE_NOTHING + r"0?[0-3]?[0-9](\.[0-9]{1,4})?%", 'a percentage above "0%" and below "40%"', "1%", "0.5%"
)
ALPHA = _share(ABOVE_NOTHING + r"0?[0-4]?[0-9](\.[0-9]{1,4})?%", 'a percentage above "0%" and below "50%"', "5%", "1%")
CONFIDENCE = _share(r"0?[5-9][0-9](\.[0-9]{1,4})?%", 'a percentage from "50%" and below "100%"', "95%", "99%")
