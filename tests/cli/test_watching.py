"""`--watch` on a terminal and in a pipe, YAML, colours, and questions that may not be asked."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import watching
from orchestrator.cli.watching import Picture, follow, rollout_picture
from tests.cli.house import House, house
from tests.web.site import PLAN

OTA = [sys.executable, "-m", "orchestrator"]
STAGE = {
    "index": 0,
    "target": 10,
    "opened": 10,
    "confirmed": 2,
    "failures": 0,
    "in_flight": 3,
    "unreached": 0,
    "phase": "open",
}
ROLLOUT: dict[str, Any] = {
    "name": "spring",
    "phase": "running",
    "release": "r",
    "cohort_size": 10,
    "in_flight": 3,
    "stages": [STAGE],
    "evidence": [{"k": 0, "n": 2, "stratum": "all", "e": 0.5, "threshold": 100.0}],
    "bound": None,
    "standing": {"text": "waits for 8 devices"},
    "severity": "none",
    "advisories": [],
    "fixes_below": None,
}


def moved(**stage: Any) -> dict[str, Any]:
    data = deepcopy(ROLLOUT)
    data["stages"][0].update(stage)
    return data


ANSWERS = [ROLLOUT, ROLLOUT, moved(confirmed=5), moved(confirmed=9, failures=1) | {"phase": "halted"}]


def followed(picture: Picture, output: str = "table") -> int:
    answers = iter(ANSWERS)
    return follow(lambda: next(answers), picture, output, 0.0, lambda data: 3 if data["phase"] == "halted" else None)


def test_a_pipe_gets_one_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(rollout_picture()) == 3
    assert capsys.readouterr().out.splitlines() == [
        "spring  running  stage 1 2/10 healthy, 0 failed  because waits for 8 devices",
        "spring  running  stage 1 5/10 healthy, 0 failed  because waits for 8 devices",
        "spring  halted  stage 1 9/10 healthy, 1 failed  because waits for 8 devices",
    ]


def test_machines_get_each_answer_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    followed(rollout_picture(), "json")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [ANSWERS[0], *ANSWERS[2:]]
    followed(rollout_picture(), "yaml")
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == [ANSWERS[0], *ANSWERS[2:]]


def test_a_list_prints_the_lines_that_are_new(capsys: pytest.CaptureFixture[str]) -> None:
    lines = iter([["a", "b"], ["a", "c"], ["a", "c"], ["end"]])
    follow(lambda: next(lines), Picture(lambda data: data), "table", 0.0, lambda data: 0 if data == ["end"] else None)
    assert capsys.readouterr().out.splitlines() == ["a", "b", "c", "end"]


WATCH = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.cli.test_watching import followed, rollout_picture
followed(rollout_picture())
"""


def on_terminal(*words: str, **environ: str) -> str:
    """Run a program on a terminal and return all that came out of it."""
    ours, theirs = pty.openpty()
    known = {name: text for name, text in os.environ.items() if not name.startswith(("OTA_", "NO_COLOR"))}
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env={**known, "TERM": "xterm", "COLUMNS": "120", **environ}
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other side is gone
        pass
    os.close(ours)
    process.wait(30)
    return shown.decode()


def test_a_terminal_sees_bars_that_are_drawn_again_in_their_place() -> None:
    shown = on_terminal(sys.executable, "-c", WATCH, str(Path(__file__).parents[2]))
    assert re.search(r"\x1b\[\d*A", shown), "the cursor goes up"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for text in ("━", "2/10 healthy", "5/10 healthy", "9/10 healthy", "1 failed", "waits for 8 devices", "k=0 n=2"):
        assert text in plain
    assert "\x1b[?25h" in shown, "the cursor is shown again"


def test_a_dumb_terminal_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for term, expected in (("xterm", True), ("dumb", False), ("", False)):
        monkeypatch.setenv("TERM", term)
        assert watching.on_terminal() is expected


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), status=lambda: {}) as running:
        running.do(running.site.enrol("d1"))
        running.do(running.site.release())
        running.do(running.site.ops("POST", "/rollouts", PLAN))
        yield running


def test_watching_a_rollout_ends_with_it(live: House) -> None:
    live.do(live.site.ops("POST", "/rollouts", PLAN | {"name": "over"}))
    live.well("rollout", "abort", "over", "--yes")
    result = live.ota("rollout", "get", "over", "--watch")
    assert (result.exit_code, result.stdout.splitlines()[0].split()[:2]) == (3, ["over", "aborted"])


def test_the_same_as_json_and_as_yaml(live: House) -> None:
    for words in (["rollout", "get", "spring"], ["rollout", "list"], ["device", "list"], ["release", "list"]):
        said = yaml.safe_load(live.well(*words, "-o", "yaml"))
        assert said == json.loads(live.well(*words, "-o", "json"))


def test_colours_are_for_terminals_and_not_where_they_are_unwanted(live: House) -> None:
    words = [*OTA, "--server", live.origin, "--token-file", str(live.token_file), "rollout", "list"]
    assert "\x1b[" in on_terminal(*words)
    assert "\x1b[" not in on_terminal(*words, NO_COLOR="1")
    assert "\x1b[" in on_terminal(*words, NO_COLOR="")
    piped = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert "\x1b[" not in piped.stdout


def test_nobody_is_asked_where_nobody_may_be(live: House) -> None:
    words = [*OTA, "--server", live.origin, "--token-file", str(live.token_file), "--no-input"]
    shown = on_terminal(*words, "rollout", "abort", "spring")
    assert "abort spring cannot be undone; nobody can be asked here, so confirm it with --yes" in shown
    assert json.loads(live.well("rollout", "get", "spring", "-o", "json"))["phase"] == "draft"
