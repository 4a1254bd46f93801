"""Durations on the command line."""

from __future__ import annotations

import click
import pytest

from orchestrator.cli.durations import Duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("10m", 600.0), ("1.5h", 5400.0), ("60", 60.0), ("0.5", 0.5), ("0", 0.0)]
)
def test_units_and_plain_seconds(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "60 s", "1e9", "nan", "inf", "soon", "60sec"])
def test_what_is_no_duration_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration; write a number with its unit"):
        Duration().convert(text, None, None)
