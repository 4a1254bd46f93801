"""`ota rollout validate`, `schema` and `template`: no daemon, no token, the right exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator import plans
from orchestrator.cli.main import cli

GOOD = "name: spring\nrelease: radio-2\nstages: [{devices: rest}]\n"
BAD = "name: spring\nrelease: radio-2\nstages:\n  - devices: 5\n    soak: 30\nxyzzy: red\n"


def ota(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["--token-file", "/nowhere", "--server", "http://127.0.0.1:1", *map(str, words)])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


def test_a_good_plan_has_no_faults(good: Path) -> None:
    result = ota("rollout", "validate", good)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{good}: no faults\n", "")


def test_faults_have_file_line_and_column(good: Path, bad: Path) -> None:
    result = ota("rollout", "validate", bad, good)
    assert (result.exit_code, result.stdout) == (1, f"{good}: no faults\n")
    assert result.stderr.splitlines() == [
        f"{bad}:5:11: stages.0.soak: 30 is not allowed; write a duration with its unit (ms, s, m, h or d), such as "
        '"0s" or "6h"',
        f"{bad}:6:1: xyzzy: unknown key; allowed here: {', '.join(plans.PlanBody.model_fields)}",
    ]


def test_faults_as_json(good: Path, bad: Path) -> None:
    result = ota("rollout", "validate", "-o", "json", good, bad)
    assert (result.exit_code, result.stderr) == (1, "")
    first, second = json.loads(result.stdout)
    assert first == {"file": str(good), "faults": []}
    assert second["file"] == str(bad)
    assert [(item["line"], item["column"], item["path"]) for item in second["faults"]] == [
        (5, 11, "stages.0.soak"),
        (6, 1, "xyzzy"),
    ]
    assert ota("rollout", "validate", "-o", "json", good).exit_code == 0


def test_what_a_plan_holds_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(GOOD + '"\\e[2J\\u202e": 1\n')
    result = ota("rollout", "validate", path)
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr
    assert "\\x1b[2J\\u202e: unknown key" in result.stderr


def test_a_file_that_is_missing_is_wrong_usage() -> None:
    assert ota("rollout", "validate", "/nowhere/plan.yaml").exit_code == 2
    assert ota("rollout", "validate").exit_code == 2


def test_create_shows_the_same_faults_before_it_asks_for_a_token(bad: Path) -> None:
    shown = ota("rollout", "validate", bad).stderr.splitlines()
    result = ota("rollout", "create", "-f", bad)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [f"error: {line}" for line in shown]


def test_the_schema_is_printed() -> None:
    result = ota("rollout", "schema")
    assert (result.exit_code, json.loads(result.stdout)) == (0, plans.schema())


def test_a_template_is_printed_as_it_is() -> None:
    assert ota("rollout", "template", "standard").stdout == plans.template("standard")


def test_a_template_with_names_is_a_plan_without_faults(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(ota("rollout", "template", "security", "--release", "r-2", "--name", "2026-11").stdout)
    assert (plans.read_plan(path.read_text()).name, plans.read_plan(path.read_text()).release) == ("2026-11", "r-2")
    assert ota("rollout", "validate", path).exit_code == 0


def test_the_templates_are_listed_with_what_they_are_for() -> None:
    lines = ota("rollout", "template", "--list").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(plans.TEMPLATES)
    assert [line.split(maxsplit=1)[1] for line in lines] == [plans.purpose(name) for name in plans.TEMPLATES]


def test_wrong_words_are_errors() -> None:
    assert ota("rollout", "template").exit_code == 2
    unknown = ota("rollout", "template", "fast")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr == "error: there is no template 'fast'; there are cautious, standard, security, emergency\n"
    wrong = ota("rollout", "template", "standard", "--name", "UP")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("error: name: 'UP' is no identifier; ")
