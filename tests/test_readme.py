"""What the documents show exists: commands of `ota`, make targets, links and keys."""

from __future__ import annotations

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

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")])
MANUALS = [ROOT / "README.md", ROOT / "docs" / "operate.md"]
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^]]+\]\(([^)\s]+)\)")
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def typed(page: Path) -> Iterator[str]:
    """Yield the command lines of a page's code blocks, those joined with `&&` one by one, without redirections."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.split(" > ")[0].strip() for part in line.removeprefix("$ ").split("#")[0].split("&&"))


def resolve(line: str, *, complete: bool) -> None:
    """Follow an `ota` command line from group to command, as click does, without running it.

    Raises:
        AssertionError, click.UsageError: a command, an option or, where it is complete, an argument is wrong.
    """
    command: click.Command = cli
    words = shlex.split(line)[1:]
    while True:
        given, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
        if not isinstance(command, click.Group):
            break
        if not rest and not complete:
            return  # a group by its name alone
        assert rest, f"{line}: a command is missing"
        assert rest[0] in command.commands, f"{line}: there is no {rest[0]}"
        command, words = command.commands[rest[0]], rest[1:]
    assert not rest, f"{line}: {rest} is too much"
    for parameter in command.params if complete else ():
        there = isinstance(given.get(parameter.name or ""), str | list | tuple)
        assert there or not parameter.required, f"{line}: {parameter.name} is missing"


COMMANDS = [(page, line) for page in PAGES for line in typed(page) if line.startswith("ota ")]
MENTIONS = [(page, text) for page in PAGES for text in INLINE.findall(prose(page)) if re.match(r"ota [a-z-]", text)]


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=name)
def test_a_command_line_can_be_typed(page: Path, line: str) -> None:
    resolve(line, complete=True)


@pytest.mark.parametrize(("page", "text"), MENTIONS, ids=name)
def test_a_command_that_is_mentioned_exists(page: Path, text: str) -> None:
    for way in ways(text):
        resolve(way, complete=False)


def ways(text: str) -> Iterator[str]:
    """Yield what `ota rollout create | start | ...` and `ota simulate ...` stand for."""
    first, *others = text.replace("...", "").split(" | ")
    yield first
    yield from (f"{first.rpartition(' ')[0]} {other}" for other in others)


@pytest.mark.parametrize("page", MANUALS, ids=name)
def test_the_manuals_show_commands(page: Path) -> None:
    assert any(where == page for where, _ in COMMANDS)


def test_what_does_not_exist_is_noticed() -> None:
    for line in ("ota rollout fly door", "ota rollout get", "ota rollout get a b", "ota keys", "ota device add x"):
        with pytest.raises(AssertionError):
            resolve(line, complete=True)
    with pytest.raises(click.NoSuchOption):
        resolve("ota rollout get door --loud", complete=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_resolves(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    texts = [*typed(page), *INLINE.findall(prose(page))]
    found = [match[1] for text in texts if (match := re.match(r"(?:[A-Z]+=\S+ )*make ([a-z][a-z-]*)", text))]
    assert set(found) <= set(TARGETS)


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
