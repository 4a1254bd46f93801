"""All commands at once: examples, formats, exit codes, and the manual."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from orchestrator.cli import exits, manual
from orchestrator.cli.examples import EXAMPLES, verbs
from orchestrator.cli.main import cli
from orchestrator.config.load import COMMAND_LINE_NAMES

ROOT = Path(__file__).parents[2]
VERBS = dict(verbs(cli))
READING = {"check", "explain", "exposed", "get", "history", "inspect", "list", "preview", "show", "verify", "watch"}


def test_every_verb_has_an_example_and_no_example_is_left_over() -> None:
    assert sorted(EXAMPLES) == sorted(VERBS)


@pytest.mark.parametrize("words", sorted(EXAMPLES))
def test_an_example_says_what_the_verb_understands(words: str) -> None:
    given = shlex.split(EXAMPLES[words].partition(" > ")[0])
    verb = ["ota", *words.split()]
    assert given[: len(verb)] == verb
    command = VERBS[words]
    context = click.Context(command, info_name=words, resilient_parsing=True)
    said, rest, _ = command.make_parser(click.Context(command, info_name=words)).parse_args(given[len(verb) :])
    assert rest == []
    for parameter in command.get_params(context):
        value = said.get(parameter.name or "")
        assert not parameter.required or value not in (None, (), []), parameter.name
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            assert value in parameter.type.choices


@pytest.mark.parametrize("words", sorted(VERBS))
def test_the_help_shows_the_example(words: str) -> None:
    command = VERBS[words]
    shown = command.get_help(click.Context(command, info_name=words))
    assert f"Example:\n    {EXAMPLES[words]}\n" in f"{shown}\n"


@pytest.mark.parametrize("words", sorted(words for words in VERBS if words.split()[-1] in READING))
def test_what_reads_speaks_json_and_yaml(words: str) -> None:
    (output,) = [option for option in VERBS[words].params if option.name == "output"]
    assert isinstance(output.type, click.Choice)
    assert {"table", "json", "yaml"} <= set(output.type.choices)


def test_the_exit_codes_are_those_of_the_documentation_and_of_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "docs" / "operate.md").read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == exits.MEANINGS
    shown = cli.get_help(click.Context(cli, info_name="ota"))
    assert all(
        re.search(rf"^    {code} +{re.escape(text)}$", shown, re.MULTILINE) for code, text in exits.MEANINGS.items()
    )


def test_every_exit_code_has_a_name() -> None:
    named = {value for name, value in vars(exits).items() if name.startswith("EXIT_")}
    assert named | {0} == set(exits.MEANINGS)


def test_the_manual_in_the_tree_is_that_of_the_commands() -> None:
    assert (ROOT / "man" / "ota.1").read_text() == manual.page(cli), "run `make man`"


def test_the_manual_comes_with_the_wheel() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["shared-data"] == {"man/ota.1": "share/man/man1/ota.1"}


def test_the_manual_is_sound_troff() -> None:
    formatter = shutil.which("groff")
    if formatter is None:
        pytest.skip("groff is not installed")
    words = [formatter, "-man", "-ww", "-Tutf8", "-P-cbou", str(ROOT / "man" / "ota.1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    for words_ in VERBS:
        assert f"ota {words_}" in shown
    assert "ota rollout watch spring --timeout 2h" in done.stdout
    assert "'site like \"berlin-*\"'" in done.stdout


def test_the_manual_names_the_variables_of_the_command_line() -> None:
    assert COMMAND_LINE_NAMES | {"NO_COLOR"} == set(manual.VARIABLES)


def test_the_module_prints_the_manual() -> None:
    words = [sys.executable, "-m", "orchestrator.cli.manual"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True, cwd=ROOT)
    assert done.stdout == manual.page(cli)
