"""`ota rollout rehearse`: what it says, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.cli.rehearse import _time

PLAN = """\
name: spring
release: radio-2.0.0
stages:
  - devices: 10
    soak: 10m
  - devices: rest
"""
NEEDED = (
    "halt_probability",
    "completed_probability",
    "inconclusive_probability",
    "devices_reached_mean",
    "devices_reached_p95",
    "wrong_advances",
    "finish_s_p50",
)


def ota(*words: str) -> Result:
    return CliRunner().invoke(cli, ["rollout", "rehearse", *words])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def rehearsed(plan: Path, *words: str) -> dict[str, Any]:
    done = ota("-f", str(plan), "--devices", "60", "--runs", "5", "--jobs", "1", "-o", "json", *words)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_json_has_the_numbers(plan: Path) -> None:
    found = rehearsed(plan)
    assert all(name in found for name in NEEDED)
    assert (found["plan"], found["devices"], found["runs"]) == ("spring", 60, 5)
    assert (found["completed_probability"], found["devices_reached_mean"]) == (1.0, 60.0)


def test_a_bad_build_is_no_error(plan: Path) -> None:
    found = rehearsed(plan, "--bad-share", "0.6", "--seed", "3")
    assert (found["halt_probability"], found["finish_s_p50"], found["wrong_advances"]) == (1.0, None, 0)


def test_the_same_seed_says_the_same(plan: Path) -> None:
    words = ("--bad-share", "0.05", "--liars", "0.1", "--offline", "0.1", "--strata", "2", "--lost", "0.2")
    assert rehearsed(plan, *words) == rehearsed(plan, *words)
    assert rehearsed(plan, *words, "--seed", "9")["seed"] == 9


def test_the_table_says_it_in_words() -> None:
    done = ota("--template", "standard", "--devices", "300", "--runs", "4", "--jobs", "1", "--bad-share", "0.3")
    assert done.exit_code == 0, done.output
    assert "a bad build" in done.stdout
    assert "halted        100.00%" in done.stdout
    assert "by evidence" in done.stdout
    assert "wrong advances: 0 of 4" in done.stdout
    assert not done.stderr


def test_a_plan_with_faults_is_refused_with_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(PLAN.replace("10m", "10").replace("release", "relaese"))
    done = ota("-f", str(path))
    assert done.exit_code == 1
    assert done.stderr.count("error: ") >= 2
    assert "bad.yaml" in done.stderr


def test_a_stage_of_a_group_takes_its_devices_alone(plan: Path) -> None:
    plan.write_text(PLAN.replace("  - devices: 10\n", "  - devices: 10\n    group: canaries\n"))
    words = ("-f", str(plan), "--runs", "2", "--devices", "60", "--bad-share", "1", "--lost", "1", "-o", "json")
    few, none = (json.loads(ota(*words, "--grouped", share).stdout) for share in ("0.05", "0"))
    assert few["devices_reached_max"] <= 3
    assert none["devices_reached_max"] > 3


def test_late_devices_are_no_witnesses(plan: Path) -> None:
    plan.write_text(f"{PLAN}evidence: {{registered: 1d}}\n")
    some, all_ = rehearsed(plan, "--late-share", "0.5"), rehearsed(plan, "--late-share", "1")
    assert (some["completed_probability"], some["late"]) == (1.0, 0.5)
    assert (all_["inconclusive_probability"], all_["devices_offered_max"]) == (1.0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a plan with -f FILE"),
        (("--template", "standard", "--poll", "60"), "not a duration"),
        (("--template", "standard", "--poll", "0s"), "longer than nothing"),
        (("--template", "standard", "--bad-share", "5"), "0<=x<=1"),
        (("--template", "reckless"), "there are"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], said: str) -> None:
    done = ota(*words)
    assert done.exit_code in (1, 2)
    assert said in done.stderr


def test_a_terminal_sees_how_far_it_is(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cli.rehearse._is_terminal", lambda: True)
    done = ota("-f", str(plan), "--devices", "20", "--runs", "2", "--jobs", "1", "-o", "json")
    assert "1 of 2 runs" in done.stderr and "2 of 2 runs" in done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (5.0, "5 s"), (90.0, "1.5 min"), (5400.0, "1.5 h"), (129_600.0, "1.5 d")]
)
def test_times_are_in_the_largest_unit(seconds: float | None, text: str) -> None:
    assert _time(seconds) == text


def _children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _until(meets: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not meets():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_workers_end_with_a_command_that_is_killed(plan: Path) -> None:
    words = ("-f", str(plan), "--devices", "20000", "--runs", "100000", "--jobs", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "rollout", "rehearse", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as command:
        _until(lambda: len(_children(command.pid)) >= 3)  # two workers, and what tracks their resources
        workers = _children(command.pid)
        command.kill()
    _until(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))
