"""Durations on the command line: `60s`, `10m`; a plain number is seconds."""

from __future__ import annotations

import re

import click

_PLAIN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


class Duration(click.ParamType[float]):
    """A duration in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds that a text means; anything else is wrong usage."""
        from orchestrator.units import parse_duration

        if isinstance(value, float):
            return value
        text = str(value)
        try:
            return float(text) if _PLAIN.fullmatch(text) else parse_duration(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
