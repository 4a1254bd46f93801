"""`ota rollout edit`, `history`, `rollback`, `retry`, `advance`, `skip`, and `ota device quarantine`, `release`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from orchestrator.core.trust.roles import Role
from tests.cli.house import House, house
from tests.web.site import PLAN

STAGED = PLAN | {"stages": [{"devices": 2, "soak": "1h"}, {"devices": "rest", "soak": "1h"}], "in_flight": 5}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[House]:
    """A daemon with the running rollout `spring`: two of four devices are offered the release."""
    (tmp_path / "daemon").mkdir()
    with house(tmp_path / "daemon") as running:
        running.do(_stock(running))
        yield running


async def _stock(running: House) -> None:
    await running.site.release()
    await running.site.enrol("d1", "d2", "d3", "d4")
    await running.site.roll_out(**STAGED)


def plan(folder: Path, **changes: Any) -> str:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(STAGED | changes))
    return str(path)


def test_an_edit_prints_what_it_changes_before_it_does(daemon: House, tmp_path: Path) -> None:
    words = ("rollout", "edit", "spring", "-f", plan(tmp_path, in_flight=50, halt={"tolerated": "0.5%"}))
    changes = ["  in_flight: 5 -> 50  loosens", "  halt.tolerated: 1% -> 0.5%"]
    assert daemon.well(*words, "--dry-run").splitlines() == changes
    assert daemon.well("rollout", "history", "spring").splitlines()[0].startswith("version 1  ")
    assert daemon.well(*words, "--reason", "night shift").splitlines() == [*changes, "spring has plan version 2"]
    assert daemon.well(*words, "--reason", "night shift").splitlines() == ["  nothing is different"]
    told = daemon.well("rollout", "history", "spring").splitlines()
    assert told[1].startswith("version 2  ")
    assert told[1].endswith("operator: night shift")
    assert told[2:] == changes
    data = json.loads(daemon.well("rollout", "history", "spring", "-o", "json"))
    assert [item["version"] for item in data] == [1, 2]
    assert "plan version 2: in_flight 5 -> 50" in daemon.well("rollout", "explain", "spring")


def test_an_edit_of_a_plan_that_somebody_edited_meanwhile_does_nothing(daemon: House, tmp_path: Path) -> None:
    daemon.well("rollout", "edit", "spring", "-f", plan(tmp_path, in_flight=3), "--reason", "slower")
    words = ("rollout", "edit", "spring", "-f", plan(tmp_path, in_flight=4), "--reason", "slower")
    result = daemon.ota(*words, "--expect", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: the plan of spring is version 2 by now, made by operator, and not 1;")
    assert daemon.ota(*words, "--expect", "2").exit_code == 0


def test_an_edit_that_cannot_be_made(daemon: House, tmp_path: Path) -> None:
    words = ("rollout", "edit", "spring", "-f", plan(tmp_path, target={"models": ["m1"]}), "--reason", "x")
    result = daemon.ota(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("abort it and make a new one: target.models\n")
    result = daemon.ota("rollout", "edit", "spring", "-f", plan(tmp_path, in_flight=4))
    assert (result.exit_code, result.stderr) == (1, "error: to edit a plan, say why: it needs a reason\n")
    result = daemon.ota("rollout", "edit", "spring", "-f", plan(tmp_path, in_flight=0), "--reason", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert daemon.ota("rollout", "edit", "none", "-f", plan(tmp_path, in_flight=4), "--reason", "x").exit_code == 5


def test_commands_say_when_nothing_changed(daemon: House) -> None:
    assert "nothing changed" not in daemon.well("rollout", "pause", "spring")
    assert daemon.well("rollout", "pause", "spring").splitlines()[-1] == "  nothing changed: it is paused already"
    text = daemon.well("rollout", "retry", "spring", "--reason", "new antenna").splitlines()[-1]
    assert text == "  nothing changed: no device failed that could try again"


def test_a_stage_is_skipped_with_a_reason_and_advanced_when_all_were_offered(daemon: House) -> None:
    result = daemon.ota("rollout", "skip", "spring")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it needs a reason" in result.stderr
    assert daemon.well("rollout", "advance", "spring", "--reason", "seen it").startswith("spring  running")
    assert "nothing changed" in daemon.well("rollout", "skip", "spring", "--reason", "seen it")


def test_an_advance_waits_for_another_person(daemon: House) -> None:
    for name in ("ben", "cleo"):
        daemon.do(daemon.site.operator(name, Role.APPROVER))
    result = daemon.ota("rollout", "advance", "spring", "--reason", "seen it")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "2 other persons must approve it" in result.stderr.lower()


def test_a_rollback_is_drafted_or_refused_with_the_way_out(daemon: House) -> None:
    words = ("rollout", "rollback", "spring", "--reason", "it loses packets")
    assert "halt it first" in daemon.ota(*words).stderr
    daemon.well("rollout", "halt", "spring", "--reason", "smoke")
    assert "there is no release before radio-2" in daemon.ota(*words).stderr
    daemon.do(daemon.site.release(b"older" * 1000, rel=1))
    result = daemon.ota(*words)
    assert result.exit_code == 1
    assert "`ota artifact sign --leave 2 --replace`" in result.stderr


def test_two_operators_at_once_over_the_network(daemon: House) -> None:
    """The same act of two is done once, of two edits one holds, and everybody is told how it is."""
    tokens = [daemon.do(daemon.site.operator(name, Role.OPERATOR)) for name in ("ann", "dee")]

    def call(token: str, word: str, body: dict[str, Any]) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=daemon.origin, trust_env=False, headers=headers) as client:
            return client.post(f"/api/v1/rollouts/spring/{word}", json=body)

    def both(word: str, *bodies: dict[str, Any]) -> list[httpx2.Response]:
        with ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(call, tokens * (len(bodies) // 2), [word] * len(bodies), bodies))

    for word, phase in (("pause", "paused"), ("resume", "running"), ("halt", "halted")):
        answers = both(word, *[{"reason": "now"}] * 6)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert sum(answer.json()["changed"] for answer in answers) == 1
        assert {answer.json()["phase"] for answer in answers} == {phase}
    plans = [{"plan": STAGED | {"in_flight": number}, "reason": "now", "expect": 1} for number in (2, 3)]
    answers = both("edit", *plans)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    lost = next(answer for answer in answers if answer.status_code == 409)
    assert lost.json()["code"] == "plan_changed"
    history = json.loads(daemon.well("rollout", "history", "spring", "-o", "json"))
    assert [item["version"] for item in history] == [1, 2]


def test_devices_are_quarantined_listed_and_released(daemon: House) -> None:
    text = daemon.well("device", "quarantine", "d3", "d4", "--reason", "wet")
    assert text == "2 devices quarantined\n"
    again = daemon.well("device", "quarantine", "d4", "d4", "--reason", "wet too")
    assert again == "0 devices quarantined; 1 were quarantined already\n"
    lines = daemon.well("device", "list", "--quarantined").splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "d3", "d4"]
    assert lines[1].endswith("  wet")
    assert "quarantined since" in daemon.well("device", "get", "d3")
    assert daemon.well("device", "release", "d3", "d4", "d1", "--reason", "dry") == (
        "2 devices released; 1 were not quarantined\n"
    )
    assert len(daemon.well("device", "list", "--quarantined").splitlines()) == 1
    assert daemon.ota("device", "quarantine", "nobody", "--reason", "x").exit_code == 5
    assert daemon.ota("device", "quarantine", "d1").exit_code == 2
