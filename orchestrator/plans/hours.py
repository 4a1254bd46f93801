"""Values of a plan that say when: hours of the week, days, time zones, and by how much a step grows.

Rules:
- A text is read if, and only if, it matches the pattern that the schema shows, and means something.
- Hours and days are those of the device: nothing here knows a zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.pace.window import EVERY_DAY, WEEKDAYS, Window
from orchestrator.plans import zones
from orchestrator.plans.quantities import shown

_DAY = f"({'|'.join(WEEKDAYS)})"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
HOURS = rf"^({_DAY}(-{_DAY})?(,{_DAY}(-{_DAY})?)* )?{_CLOCK}-({_CLOCK}|24:00)$"
DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
LARGEST_FACTOR = 100.0
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of some days of the week, such as `Mon-Fri 22:00-04:00`."""

    def read(self, value: object) -> Window:
        """Return the window.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, str) or not re.fullmatch(HOURS, value):
            raise ValueError(
                f"{shown(value)} are no hours; write a time of day and the days on which it begins, such as "
                '"22:00-04:00" for every day, or "Mon-Fri 22:00-04:00" or "Sat,Sun 00:00-24:00"'
            )
        days, _, clocks = value.rpartition(" ")
        begins, ends = clocks.split("-")
        return Window(_second(begins), _second(ends), frozenset(_days(days)) if days else EVERY_DAY)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": HOURS, "examples": ["22:00-04:00", "Mon-Fri 22:00-04:00"]}


@dataclass(frozen=True, slots=True)
class Day:
    """A day, such as `2026-12-24`."""

    def read(self, value: object) -> int:
        """Return the day, counted from the first of January 1970.

        Raises:
            ValueError: it is none.
        """
        try:
            if isinstance(value, str) and re.fullmatch(DAY, value):
                return (date.fromisoformat(value) - _EPOCH).days
        except ValueError:
            pass  # the calendar has no such day
        raise ValueError(f'{shown(str(value))} is no day; write year, month and day in quotes, such as "2026-12-24"')

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": DAY, "format": "date", "examples": ["2026-12-24"]}


@dataclass(frozen=True, slots=True)
class ZoneName:
    """The name of a time zone."""

    def read(self, value: object) -> str:
        """Return the name.

        Raises:
            ValueError: no zone is called so.
        """
        if isinstance(value, str) and zones.is_zone(value):
            return value
        raise ValueError(zones.refusal(value))

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "examples": ["UTC", "Europe/Berlin"]}


@dataclass(frozen=True, slots=True)
class Factor:
    """What each step multiplies something by."""

    def read(self, value: object) -> float:
        """Return the factor.

        Raises:
            ValueError: it is no number, or out of range.
        """
        if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= LARGEST_FACTOR:
            return float(value)
        raise ValueError(f"{shown(value)} is not allowed; write a number from 1 to {LARGEST_FACTOR:.0f}, such as 2")

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "number", "minimum": 1, "maximum": LARGEST_FACTOR, "examples": [2]}


def _second(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _days(text: str) -> Iterator[int]:
    """Yield the weekdays; a span may go over the end of the week."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        yield from (day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
