"""Zones are read as the database says, and what is none is refused."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core.pace.window import HORIZON_S
from orchestrator.errors import ConfigError
from orchestrator.plans.zones import is_zone, zone

NOW = 1_795_000_000.0
NAMES = sorted(zoneinfo.available_timezones())[::23]


@pytest.mark.parametrize("name", [*NAMES, "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"])
@pytest.mark.parametrize("now", [1_320_000_000.0, NOW])
def test_the_clock_shows_what_the_database_says_up_to_the_horizon(name: str, now: float) -> None:
    place, info = zone(name, now), ZoneInfo(name)
    assert place.name == name
    for at in [*range(int(now), int(now + HORIZON_S), 12_345), *(int(shift.at) - 1 for shift in place.shifts[1:])]:
        offset = datetime.fromtimestamp(at, UTC).astimezone(info).utcoffset()
        assert offset is not None and place.local(at) == at + offset.total_seconds()


def test_a_zone_is_read_once_a_month() -> None:
    assert zone("Europe/Paris", NOW) is zone("Europe/Paris", NOW + 60)
    assert zone("Europe/Paris", NOW) is not zone("Europe/Paris", NOW + 32 * 86_400)


@pytest.mark.parametrize(
    "name", ["", ".", "America", "Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "a\0b", "ä\udc80", "x" * 5000]
)
def test_what_is_no_zone_is_refused_with_what_to_write_instead(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is no time zone; write a name of the IANA database") as refused:
        zone(name, NOW)
    assert len(refused.value.message) < 200
    assert not is_zone(name)


def test_what_is_a_zone() -> None:
    assert all(map(is_zone, NAMES))
