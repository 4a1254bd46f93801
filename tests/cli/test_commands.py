"""Every command against a real daemon: what it prints as a table and as JSON, and how it ends."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import show
from orchestrator.core.reason import counted
from orchestrator.core.rollout import Command
from orchestrator.wire.report import Hello, Kind, encode
from tests.cli.house import House, house
from tests.support.factory import ARTIFACT_KEY, make_report
from tests.web.site import PLAN

HOSTILE = "\x1b[2J\u202eevil"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with a release, three devices and the running rollout `spring`; `d2` says hostile things."""
    with house(tmp_path_factory.mktemp("daemon"), may_ask=lambda _: False) as running:
        running.do(_stock(running))
        yield running


async def _stock(running: House) -> None:
    site = running.site
    await site.release()
    await site.enrol("d1", "d2", "d3")
    await site.as_device("d2", "POST", "/api/v1/hello", content=encode(Hello(1, "d2", "m1", ver="\u202eevil", rel=1)))
    await site.roll_out()
    (update,) = await site.plant.store.read(lambda tx: tx.updates_of(["d2"]))
    failed = make_report(update, Kind.FAILED, code="crash_loop", msg=HOSTILE)
    await site.as_device("d2", "POST", "/api/v1/report", content=encode(failed))


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    return tmp_path / "plan.yaml"


async def draft(running: House, name: str) -> Any:
    """Make a rollout in draft and return it."""
    answer = await running.site.ops("POST", "/rollouts", PLAN | {"name": name})
    assert answer.status_code == 201
    return answer.json()


def test_devices_as_a_table(daemon: House) -> None:
    lines = daemon.well("device", "list").splitlines()
    assert lines[0].split() == ["ID", "MODEL", "VERSION", "REL", "ENDPOINTS", "ONLINE", "SEEN"]
    assert lines[1].split() == ["d1", "m1", "1.0.0", "1", "-", "-", "-"]
    assert [line.split()[0] for line in lines[1:]] == ["d1", "d2", "d3"]


def test_devices_as_json_are_what_the_api_says(daemon: House) -> None:
    said = daemon.do(daemon.site.ops("GET", "/devices")).json()
    assert json.loads(daemon.well("device", "list", "-o", "json")) == said
    page = json.loads(daemon.well("device", "list", "--after", "d1", "--limit", "1", "-o", "json"))
    assert [line["id"] for line in page] == ["d2"]


def test_one_device(daemon: House) -> None:
    assert json.loads(daemon.well("device", "get", "d1", "-o", "json"))["updates"][0]["rollout"] == "spring"
    lines = daemon.well("device", "get", "d1").splitlines()
    assert lines[2].split() == ["ROLLOUT", "STATE", "SINCE", "STAGE", "ATTEMPT", "CODE"]
    assert lines[3].split()[:2] == ["spring", "offered"]


def test_why_a_device_stands_where_it_stands(daemon: House) -> None:
    text = daemon.well("device", "explain", "d1")
    assert "spring (running): offered: it was offered the release and has not answered yet" in text
    data = json.loads(daemon.well("device", "explain", "d1", "-o", "json"))
    assert data["device"]["id"] == "d1"


def test_what_devices_say_cannot_steer_the_terminal(daemon: House) -> None:
    for words in (("device", "list"), ("device", "get", "d2"), ("device", "explain", "d2")):
        text = daemon.well(*words)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\u202eevil" in text
    assert "said failed crash_loop \\x1b" in daemon.well("device", "explain", "d2")


def test_artifacts_and_releases(daemon: House) -> None:
    (artifact,) = json.loads(daemon.well("artifact", "list", "-o", "json"))
    assert (artifact["format"], artifact["recognised"], artifact["warnings"]) == ("raw", "raw", [])
    assert artifact["sha256"] in daemon.well("artifact", "list")
    assert json.loads(daemon.well("artifact", "import", artifact["uri"], "-o", "json")) == artifact
    lines = daemon.well("release", "list").splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "REL", "ARTIFACTS", "CREATED"]
    assert lines[-1].split()[:4] == ["radio-2", "2.0.0", "2", "1"]
    made = daemon.well("release", "create", "second", "--artifact", artifact["sha256"], "-o", "json")
    assert json.loads(made)["artifacts"] == [artifact["sha256"]]
    assert (
        daemon.well("release", "create", "third", "--artifact", artifact["sha256"]).splitlines()[1].startswith("third")
    )
    file = artifact["uri"].removeprefix("file://")
    made = daemon.well("release", "create", "fourth", "--artifact", file, "-o", "json")
    assert json.loads(made)["artifacts"] == [artifact["sha256"]]


def test_all_that_is_known_of_an_artifact(daemon: House) -> None:
    (line,) = json.loads(daemon.well("artifact", "list", "-o", "json"))
    data = json.loads(daemon.well("artifact", "show", line["sha256"], "-o", "json"))
    assert data.items() >= line.items()
    assert (data["key"], data["imported_by"], data["releases"][-1]) == (ARTIFACT_KEY.kid, "operator", "radio-2")
    assert 0 < data["imported_at"] <= daemon.site.plant.clock()
    for word in (line["sha256"][:4], line["uri"]):
        assert json.loads(daemon.well("artifact", "show", word, "-o", "json")) == data
    rows = daemon.well("artifact", "show", line["sha256"]).splitlines()
    said = {row[:16].strip(): row[16:] for row in rows}
    assert (said["sha256"], said["size"], said["recognised as"]) == (line["sha256"], "5000 bytes", "raw")
    assert said["statement by"] == f"key {ARTIFACT_KEY.kid}"
    assert said["imported"].endswith(" by operator")
    assert "radio-2" in said["releases"]


@pytest.mark.parametrize(
    ("word", "said"),
    [("nope", "no artifact 'nope' is imported"), ("s3://b/k", "no artifact is imported from s3://b/k")],
)
def test_an_artifact_that_is_not_there(daemon: House, word: str, said: str) -> None:
    result = daemon.ota("artifact", "show", word)
    assert (result.exit_code, result.stderr) == (5, f"error: {said}; see `ota artifact list`\n")


def test_what_was_noticed_of_an_artifact_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"code": "odd", "text": "it is \x1b odd", "remedy": "look at it"}
    line = dict.fromkeys(("sha256", "name", "version", "rel", "size_bytes", "uri"), "x") | {"hardware": ["m1"]}
    show.draw_artifact(line | {"format": "raw", "recognised": "esp32", "warnings": [said]})
    head, values, warning = capsys.readouterr().out.splitlines()
    assert head.split() == ["SHA256", "NAME", "VERSION", "REL", "HARDWARE", "BYTES", "FORMAT", "WARNINGS", "URI"]
    assert values.split()[6:8] == ["esp32", "1"]
    assert warning.split() == ["warning", "it", "is", "\\x1b", "odd;", "look", "at", "it", "[odd]"]
    show.draw_artifact(line | {"format": "swu", "recognised": "", "warnings": []})
    assert "swu" in capsys.readouterr().out


def test_rollouts(daemon: House) -> None:
    (line,) = [item for item in json.loads(daemon.well("rollout", "list", "-o", "json")) if item["name"] == "spring"]
    assert (line["phase"], line["cohort_size"], line["failures"]) == ("running", 3, 1)
    assert any(
        row.split()[:4] == ["spring", "radio-2", "running", "1/1"]
        for row in daemon.well("rollout", "list").splitlines()
    )
    said = json.loads(daemon.well("rollout", "get", "spring", "-o", "json"))
    assert (said["phase"], len(said["stages"])) == ("running", 1)
    text = daemon.well("rollout", "get", "spring").splitlines()
    assert text[0] == f"spring  running  release radio-2  3 devices  {said['in_flight']} in flight"
    assert "0/3 healthy, 1 failed  [open]" in text[1]
    assert text[-1] == f"  because {said['standing']['text']}"


def test_a_service_that_may_not_be_asked_is_said_at_once(daemon: House, plan_file: Path) -> None:
    gate = {"url": "https://metrics.example.net/ota?key=secret", "condition": "alerts == 0"}
    plan_file.write_text(yaml.safe_dump(PLAN | {"name": "asking", "gate": gate}))
    result = daemon.ota("rollout", "create", "-f", str(plan_file))
    text = "warning: https://metrics.example.net/ota is not listed in gates.origins: its stage will hold until it is\n"
    assert (result.exit_code, result.stderr) == (0, text)


def test_what_is_over_is_not_told_what_would_halt_it(daemon: House, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(daemon.well("rollout", "explain", "spring", "-o", "json"))
    show.draw_rollout_reason(data)
    assert "among these halt" in capsys.readouterr().out
    show.draw_rollout_reason(data | {"phase": "done"})
    said = capsys.readouterr().out
    assert "k=1" in said
    assert "halt\n" not in said
    assert "healthy devices pass" not in said


@pytest.mark.parametrize(("more", "said"), [(0, "that is enough to halt"), (1, "1 more failure among these halts")])
def test_one_is_one(more: int, said: str) -> None:
    assert show._to_halt({"more": more}) == f"; {said}"
    assert (counted(1, "device"), counted(0, "device")) == ("1 device", "0 devices")


def test_why_a_rollout_stands_where_it_stands(daemon: House) -> None:
    data = json.loads(daemon.well("rollout", "explain", "spring", "-o", "json"))
    lines = daemon.well("rollout", "explain", "spring").splitlines()
    assert lines[0] == f"spring is running because {data['because']}"
    assert lines[1].startswith("  running since ")
    assert lines[2] == "  a person may: pause, halt, abort, retry, advance, skip"
    assert [
        line for line in lines if line.startswith("  halt    k=1") and line.endswith("1 more failure among these halts")
    ]
    assert [line for line in lines if line.startswith("  pass    ") and line.endswith("more healthy devices pass")]
    assert [line for line in lines if "operator" in line and "waits for being started" in line]


def test_a_rollout_is_made_and_moved(daemon: House, plan_file: Path) -> None:
    plan_file.write_text(yaml.safe_dump(PLAN | {"name": "moved"}))
    assert daemon.well("rollout", "create", "-f", str(plan_file)).startswith("moved  draft  release radio-2  ? devices")
    assert daemon.well("rollout", "start", "moved", "--reason", "go").startswith("moved  preparing")
    assert daemon.well("rollout", "halt", "moved", "--reason", HOSTILE).startswith("moved  halted")
    assert "\x1b" not in daemon.well("rollout", "explain", "moved")
    assert daemon.well("rollout", "abort", "moved", "--yes").startswith("moved  aborted")


def test_an_abort_is_confirmed(daemon: House) -> None:
    daemon.do(draft(daemon, "kept"))
    result = daemon.ota("rollout", "abort", "kept")
    text = "error: abort kept cannot be undone; nobody can be asked here, so confirm it with --yes\n"
    assert (result.exit_code, result.stderr) == (1, text)
    assert json.loads(daemon.well("rollout", "get", "kept", "-o", "json"))["phase"] == "draft"


@pytest.mark.parametrize(
    "words",
    [
        ("device", "get", "nobody"),
        ("device", "explain", "nobody"),
        ("rollout", "get", "none"),
        ("rollout", "explain", "none"),
        ("rollout", "watch", "none"),
        ("rollout", "start", "none"),
        ("rollout", "get", "../devices"),
        ("rollout", "get", "."),
        ("rollout", "watch", ".."),
        ("rollout", "halt", ""),
        ("rollout", "get", "spring/explain"),
        ("rollout", "get", "a b?x#y"),
        ("device", "get", "\u00e4/\u00f6"),
        ("release", "create", "x", "--artifact", "A" * 43),
    ],
)
def test_what_does_not_exist_is_exit_code_5(daemon: House, words: tuple[str, ...]) -> None:
    result = daemon.ota(*words)
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_conflict_is_exit_code_1_with_the_reason(daemon: House) -> None:
    (artifact,) = json.loads(daemon.well("artifact", "list", "-o", "json"))
    result = daemon.ota("release", "create", "radio-2", "--artifact", artifact["sha256"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "radio-2" in result.stderr


def test_all_faults_of_a_plan_are_printed(daemon: House, plan_file: Path) -> None:
    plan_file.write_text("name: UPPER\nrelease: radio-2\nstages: [{devices: 0}]\ncolour: red\n")
    result = daemon.ota("rollout", "create", "-f", str(plan_file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.split(": ")[2] for line in result.stderr.splitlines()] == ["name", "stages.0.devices", "colour"]
    assert result.stderr.splitlines()[-1].startswith(f"error: {plan_file}:4:1: colour: unknown key; ")


@pytest.mark.parametrize(
    "text", ["name: [", "name: a\nname: b\n", "\x00", "- just\n- a list\n", "", "seed: 2026-01-01\n", "seed: .inf\n"]
)
def test_a_plan_that_is_none_is_an_error(daemon: House, plan_file: Path, text: str) -> None:
    plan_file.write_text(text)
    result = daemon.ota("rollout", "create", "-f", str(plan_file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_plan_file_that_is_missing_is_wrong_usage(daemon: House) -> None:
    result = daemon.ota("rollout", "create", "-f", "/nowhere/plan.yaml")
    assert result.exit_code == 2
    assert "'/nowhere/plan.yaml' does not exist" in result.stderr


def test_devices_are_added_and_their_tokens_kept_private(daemon: House, tmp_path: Path) -> None:
    path = tmp_path / "credentials.jsonl"
    words = ("--model", "m9", "--group", "lab", "--count", "2", "--pattern", "lab-{:02d}", "--credentials", str(path))
    text = daemon.well("device", "add", "extra", *words)
    assert text == f"3 devices enrolled; their tokens are in {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["device"] for line in lines] == ["extra", "lab-00", "lab-01"]
    assert all(line["token"].startswith("otad_") for line in lines)
    assert not any(line["token"] in text for line in lines)
    assert json.loads(daemon.well("device", "get", "lab-01", "-o", "json"))["groups"] == ["lab"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name devices, or say how many with --count"),
        (("--count", "2", "--pattern", "{x}"), "--pattern '{x}' cannot hold a number; write one such as 'dev-{:05d}'"),
        (("--count", "2", "--pattern", "same"), "--pattern 'same' cannot hold a number"),
        (("d8", "d8"), "a device stands twice in the list"),
        (("UPPER",), "devices.0.id: 'UPPER' is no identifier; write 1 to 64 lower-case letters"),
    ],
)
def test_devices_that_cannot_be_added(daemon: House, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    result = daemon.ota("device", "add", "--model", "m1", "--credentials", str(tmp_path / "c"), *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_a_credentials_file_that_cannot_be_written(daemon: House, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "c"
    result = daemon.ota("device", "add", "d9", "--model", "m1", "--credentials", str(path))
    sentence = f"{path} cannot be written: No such file or directory; name another file with --credentials"
    assert (result.exit_code, result.stderr) == (1, f"error: {sentence}\n")
    assert daemon.ota("device", "get", "d9").exit_code == 5


def test_watch_gives_up_with_exit_code_4(daemon: House) -> None:
    result = daemon.ota("rollout", "watch", "spring", "--timeout", "0.05", "--interval", "0.01")
    assert (result.exit_code, result.stderr) == (4, "error: spring is still running\n")
    assert result.stdout.startswith("spring  running")


def test_watch_ends_with_3_when_it_was_halted(daemon: House) -> None:
    daemon.do(draft(daemon, "watched"))
    daemon.well("rollout", "start", "watched")
    daemon.well("rollout", "halt", "watched", "--reason", "smoke")
    result = daemon.ota("rollout", "watch", "watched", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["phase"]) == (3, "halted")
    daemon.well("rollout", "abort", "watched", "--yes")
    assert daemon.ota("rollout", "watch", "watched").exit_code == 3


def test_watch_ends_with_0_when_it_is_done(daemon: House) -> None:
    async def finish() -> None:
        made = await draft(daemon, "empty")
        plant = daemon.site.plant
        rollout = await plant.rollout(made["id"])
        await plant.command(rollout, Command.START)
        await plant.advance(rollout)
        for update in await plant.updates(rollout):
            assert update is not None
        plant.clock.advance(60)
        for _ in range(3):
            await plant.confirm(await plant.updates(rollout))
            rollout = await plant.advance(rollout)
            plant.clock.advance(3600)
            plant.hearing()

    daemon.do(_settle_spring(daemon))
    daemon.do(finish())
    result = daemon.ota("rollout", "watch", "empty", "--timeout", "5")
    assert (result.exit_code, result.stdout.split()[1]) == (0, "done")


async def _settle_spring(daemon: House) -> None:
    """End `spring`, so that its devices are free."""
    await daemon.site.ops("POST", "/rollouts/spring/abort", {})
