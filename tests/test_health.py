"""When the daemon is ready, and when a restart would do it good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.daemon.health import LAG_S, STUCK_S, UNTENDED_S, Pulse, unready, unwell

WELL = Pulse(store_fault="", writer_busy_s=0.1, link=3, link_untended_s=1.0, lag_s=0.2, key_faults=(), stops=())
STUCK: list[tuple[dict[str, Any], str, str]] = [
    ({"store_fault": "disk I/O error"}, "store", "disk I/O error"),
    ({"writer_busy_s": STUCK_S}, "store", "one piece of work has kept the writer for 30 s"),
    ({"link_untended_s": UNTENDED_S}, "broker", "nobody has looked after the link for 15 s"),
    ({"lag_s": LAG_S}, "recorder", "a report has waited for its commit for 60 s"),
]


def test_who_is_well_is_ready() -> None:
    assert unready(WELL) == unwell(WELL) == {}


@pytest.mark.parametrize(("change", "part", "why"), STUCK)
def test_who_is_stuck_is_not_ready_and_should_be_restarted(change: dict[str, Any], part: str, why: str) -> None:
    pulse = replace(WELL, **change)
    assert unready(pulse) == unwell(pulse) == {part: why}


@pytest.mark.parametrize("name", ["writer_busy_s", "link_untended_s", "lag_s"])
def test_just_before_the_limit_nobody_is_stuck(name: str) -> None:
    limit = {"writer_busy_s": STUCK_S, "link_untended_s": UNTENDED_S, "lag_s": LAG_S}[name]
    change: dict[str, Any] = {name: limit - 0.01}
    assert unwell(replace(WELL, **change)) == {}


@pytest.mark.parametrize("change", [change for change, _, _ in STUCK])
def test_while_a_stop_is_not_stored_no_restart_is_asked_for(change: dict[str, Any]) -> None:
    pulse = replace(WELL, stops=("spring",), **change)
    assert unwell(pulse) == {}
    assert unready(pulse)


def test_a_broker_that_is_away_and_a_key_that_is_wrong_are_cured_by_no_restart() -> None:
    away = replace(WELL, link=0, link_untended_s=9999.0)
    assert (unwell(away), unready(away)) == ({}, {"broker": "not connected; the log says why"})
    keyless = replace(WELL, key_faults=("no key is there.", "Make one."))
    assert (unwell(keyless), unready(keyless)) == ({}, {"keys": "no key is there. Make one."})
