"""`ota status`: what a person sees, and the whole of it for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli import status
from orchestrator.demo.broker import free_port
from tests.cli.house import House, house

FAULT = "No trigger key at hand is good under keyset 4: configure the private key of k4."
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "broker_connected": True,
    "hearing": True,
    "epoch": 4,
    "trigger_faults": [],
    "recorder": {"reports": 12},
    "heard_at": 1_700_000_000.0,
    "webhooks": {"states": {}, "attempts": {}, "waiting": 0},
    "expires": [
        {"name": "trigger key k4", "expires_at": 1_700_086_400.0, "days_left": 1.0, "threshold_days": 1},
        {"name": "certificate of the broker", "error": "nobody answers"},
    ],
}


@pytest.fixture
def told() -> dict[str, Any]:
    return dict(STATUS)


@pytest.fixture
def live(tmp_path: Path, told: dict[str, Any]) -> Iterator[House]:
    with house(tmp_path, status=lambda: told) as running:
        running.do(running.site.enrol("d1", "d2"))
        yield running


def test_a_person_sees_it_at_a_glance(live: House) -> None:
    assert live.well("status").splitlines() == [
        "version   1.2.3",
        "broker    connected",
        "silence   is judged",
        "keyset    4",
        "triggers  can be signed",
        "store     2 devices, 0 rollouts running, triggers that wait for the broker: 0",
        "reports   12 since the start, the last at 2023-11-14 22:13:20Z",
        "expires   2023-11-15 22:13:20Z  in 1.0 days  trigger key k4",
        "expires   certificate of the broker: nobody answers",
    ]


def test_what_is_wrong_is_said(live: House, told: dict[str, Any]) -> None:
    over = {"name": "beat key", "expires_at": 1.0, "days_left": -3.0, "threshold_days": 0}
    told |= {"broker_connected": False, "hearing": False, "trigger_faults": [FAULT], "heard_at": None}
    told |= {"recorder": {}, "expires": [over]}
    lines = live.well("status").splitlines()
    assert "broker    NOT connected" in lines
    assert f"triggers  {FAULT}" in lines
    assert "reports   0 since the start, the last at -" in lines
    assert lines[-1] == "expires   1970-01-01 00:00:01Z  is over  beat key"


def test_a_store_that_cannot_be_written_and_a_clock_that_jumped_are_said(live: House, told: dict[str, Any]) -> None:
    told |= {"store_fault": "the database failed: database or disk is full", "stopped_here": ["spring", "summer"]}
    told |= {"clock_jump": {"at": 1_700_000_000.0, "by_s": -3600}}
    lines = live.well("status").splitlines()
    assert lines[3] == "clock     jumped by -3600 s at 2023-11-14 22:13:20Z; deadlines were moved with it"
    assert "store     CANNOT be written: the database failed: database or disk is full" in lines
    assert "stopped   spring, summer; not stored yet, do not restart the daemon" in lines


def test_webhooks_are_told_of_where_there_are_any(live: House, told: dict[str, Any]) -> None:
    told |= {"webhooks": {"states": {"active": 2}, "attempts": {"delivered": 7}, "waiting": 0}}
    (line,) = (line for line in live.well("status").splitlines() if line.startswith("webhooks"))
    assert line == "webhooks  2 active; entries of the audit log that wait for the slowest: 0"
    states = {"active": 1, "failing": 2, "disabled": 1}
    told |= {"webhooks": {"states": states, "attempts": {"failed": 7}, "waiting": 12}}
    (line,) = (line for line in live.well("status").splitlines() if line.startswith("webhooks"))
    assert line == (
        "webhooks  1 active, 1 disabled, 2 failing; entries of the audit log that wait for the slowest: 12; "
        "see `ota webhook list`"
    )


def test_machines_get_the_whole_answer(live: House) -> None:
    said = json.loads(live.well("status", "-o", "json"))
    assert said["store"] == {"devices": 2, "running": 0, "waiting": 0, "seq": 0}
    assert {name: value for name, value in said.items() if name != "store"} == STATUS


def test_it_is_waited_for(live: House, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told["broker_connected"] = False
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        told["broker_connected"] = True

    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    assert "broker    connected" in live.well("status", "--wait", "30s").splitlines()
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"broker_connected": False}, "the daemon has no connection to the broker; is the broker running, and"),
        ({"trigger_faults": [FAULT]}, FAULT),
        ({"store_fault": "database or disk is full"}, "database or disk is full"),
    ],
)
def test_what_is_waited_for_in_vain_is_said(
    live: House, told: dict[str, Any], change: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told |= change
    passed = iter([0.0, 29.9, 30.0])
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: next(passed), sleep=lambda _: None))
    result = live.ota("status", "--wait", "30s")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith(f"error: after 30s {text}")
    assert next(passed, None) is None


def test_a_daemon_that_does_not_answer_is_waited_for(live: House) -> None:
    result = live.ota("--server", f"http://127.0.0.1:{free_port()}", "status", "--wait", "0s")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "error: after 0s the daemon does not answer; its log says why (see also --server)\n"
