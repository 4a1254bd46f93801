"""Completion: the words of the tree in every shell, names from the daemon, and nobody is kept waiting."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from orchestrator.cli import completion
from orchestrator.cli.main import cli
from tests.cli.house import House, house
from tests.web.site import PLAN

OTA = [sys.executable, "-m", "orchestrator"]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as running:
        running.do(running.site.enrol("dev-1", "dev-2", "other-1"))
        running.do(running.site.release())
        running.do(running.site.ops("POST", "/rollouts", PLAN))
        yield running


def completed(words: str) -> list[str]:
    """Return what bash is told for the last of these words."""
    count = len(words.split()) - (not words.endswith(" "))
    asked = {"_OTA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    known = {name: text for name, text in os.environ.items() if not name.startswith("OTA_")}
    done = subprocess.run(OTA, capture_output=True, text=True, timeout=30, env=known | asked, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split("\n") if line]


def named(monkeypatch: pytest.MonkeyPatch, words: str, server: str, token_file: Path) -> list[str]:
    """Return what would complete these words, asked in this process."""
    monkeypatch.setenv("OTA_SERVER", server)
    monkeypatch.setenv("OTA_TOKEN_FILE", str(token_file))
    *before, start = words.split(" ")[1:]
    return [item.value for item in ShellComplete(cli, {}, "ota", "_OTA_COMPLETE").get_completions(before, start)]


def test_words_need_no_daemon() -> None:
    assert completed("ota rol") == ["rollout"]
    assert "--reason" in completed("ota rollout halt --")
    assert completed("ota rollout get x -o ") == ["table", "json", "yaml"]


def test_names_come_from_the_daemon(live: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "PATIENCE_S", 30.0)  # the machine of a test may be busy
    for words, expected in (
        ("ota rollout get spr", ["spring"]),
        ("ota rollout get nothing", []),
        ("ota device get dev", ["dev-1", "dev-2"]),
        ("ota device get ", ["dev-1", "dev-2", "other-1"]),
        ("ota device get dev*", []),
        ("ota rollout rollback spring --to ra", ["radio-2"]),
    ):
        assert named(monkeypatch, words, live.origin, live.token_file) == expected


def test_where_nobody_answers_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("x")
    for server in ("http://127.0.0.1:1", "nonsense"):
        assert named(monkeypatch, "ota rollout get ", server, tmp_path / "token") == []
    assert named(monkeypatch, "ota rollout get ", "http://127.0.0.1:1", tmp_path / "none") == []
    monkeypatch.setattr(completion, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert named(monkeypatch, "ota rollout get ", server, tmp_path / "token") == []
    assert capfd.readouterr() == ("", "")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_what_it_prints_is_for_that_shell(shell: str, tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["completion", shell])
    assert printed.exit_code == 0
    assert f"_OTA_COMPLETE={shell}_complete" in printed.stdout
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(printed.stdout)
        subprocess.run([program, "-n", str(tmp_path / "script")], timeout=30, check=True)
