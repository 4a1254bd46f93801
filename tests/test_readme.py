"""What the documents show exists: commands of `ota`, make targets, links and keys."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator import config
from orchestrator.cli.main import cli
from orchestrator.config import Settings
from orchestrator.errors import ConfigError
from tests.support.documents import PAGES, ROOT, commands, inline, name, typed

MANUALS = [ROOT / "README.md", ROOT / "docs" / "operate.md", ROOT / "docs" / "getting-started.md"]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def resolve(line: str, *, complete: bool) -> None:
    """Follow an `ota` command line from group to command, as click does, without running it.

    Raises:
        AssertionError, click.UsageError: a command, an option, a choice or, where it is complete, an argument is wrong.
    """
    command: click.Command = cli
    words = shlex.split(line)[1:]
    while True:
        given, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
        if not isinstance(command, click.Group):
            break
        told = any(option.is_eager and given.get(option.name or "") for option in command.params)  # such as --version
        alone = command.invoke_without_command or told
        if not rest and (alone or not complete):
            return  # a group by its name alone
        assert rest, f"{line}: a command is missing"
        assert rest[0] in command.commands, f"{line}: there is no {rest[0]}"
        command, words = command.commands[rest[0]], rest[1:]
    assert not rest, f"{line}: {rest} is too much"
    for parameter in command.params if complete else ():
        value = given.get(parameter.name or "")
        assert isinstance(value, str | list | tuple) or not parameter.required, f"{line}: {parameter.name} is missing"
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            assert value in parameter.type.choices, f"{line}: {parameter.name} is none of {parameter.type.choices}"


COMMANDS = [(page, shlex.join(words)) for page in PAGES for words in typed(page) if words[0] == "ota" and words[1:]]
MENTIONS = [(page, text) for page in PAGES for text in inline(page) if re.match(r"ota -*[a-z-]", text)]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=name)
def test_a_command_line_can_be_typed(page: Path, line: str) -> None:
    resolve(line, complete=True)


@pytest.mark.parametrize(("page", "text"), MENTIONS, ids=name)
def test_a_command_that_is_mentioned_exists(page: Path, text: str) -> None:
    for way in ways(text):
        with contextlib.suppress(click.BadOptionUsage):  # an option that is named without its value
            resolve(way, complete=False)


def ways(text: str) -> Iterator[str]:
    """Yield what `ota rollout create | start | ...` and `ota simulate ...` stand for."""
    first, *others = text.partition(" > ")[0].replace("...", "").split(" | ")
    yield first
    yield from (f"{first.rpartition(' ')[0]} {other}" for other in others)


@pytest.mark.parametrize("page", MANUALS, ids=name)
def test_the_manuals_show_commands(page: Path) -> None:
    assert any(where == page for where, _ in COMMANDS)


def test_what_does_not_exist_is_noticed() -> None:
    for line in ("ota rollout fly door", "ota rollout get", "ota rollout get a b", "ota keys", "ota device add x"):
        with pytest.raises(AssertionError):
            resolve(line, complete=True)
    with pytest.raises(AssertionError):
        resolve("ota rollout get door -o xml", complete=True)
    with pytest.raises(click.NoSuchOption):
        resolve("ota rollout get door --loud", complete=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    mentioned = [words for text in inline(page) if " make " in f" {text}" for words in commands(text)]
    found = [words[1:] for words in [*typed(page), *mentioned] if words[0] == "make"]
    assert {word for words in found for word in words if re.fullmatch(r"[a-z][a-z-]*", word)} <= set(TARGETS)


def test_the_makefile_explains_every_target() -> None:
    explained = re.findall(r"^# make ([a-z-]+) ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(explained) == set(TARGETS) - {"broker"}


def test_the_configuration_of_the_readme_lacks_nothing_but_secrets(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", MANUALS[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "config.yaml"
    path.write_text(shown)
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    lacking = {tuple(fault.partition(": ")[0].split(".")) for fault in caught.value.faults}
    assert lacking and lacking <= set(Settings.CREDENTIALS)
