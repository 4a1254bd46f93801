"""Draws `docs/reference/cli.md` from the commands themselves: `python docs/draw_cli.py` rewrites it.

Rules:
- Every verb, option and default comes from the tree of commands, read as the manual page reads it; examples, exit
  codes and variables come from where help and manual have them. Only the words around them stand here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.markdown import anchor, code, prose, table
from orchestrator.cli.examples import EXAMPLES, verbs
from orchestrator.cli.exits import MEANINGS
from orchestrator.cli.main import cli
from orchestrator.cli.manual import FILES, VARIABLES, options, paragraphs

TARGET = Path(__file__).with_name("reference") / "cli.md"

HEAD = """# The command `ota`

Drawn by `docs/draw_cli.py` from the commands themselves; a test fails when this page is out of date. `ota COMMAND
--help` and `man ota` say the same. [operate.md](../operate.md) tells which command is for what.

"""
_OPTIONS = """
## Before the command

These options stand between `ota` and the command, as in
`ota --no-input rollout abort spring --reason "withdrawn" --yes`.

"""
_EXITS = """
## Exit codes

"""
_VARIABLES = """
## Variables

An option goes before its variable. The variables of the configuration are in [operate.md](../operate.md#configuration).

"""
_FILES = """
## Files

"""


def render() -> str:
    """Return the page."""
    root = click.Context(cli, info_name="ota", show_default=True, **cli.context_settings)
    parts = [
        HEAD + _contents(),
        _OPTIONS + _options(cli, root),
        _EXITS + table(("code", "meaning"), ((str(number), meaning) for number, meaning in MEANINGS.items())),
        _VARIABLES + table(("variable", "meaning"), ((code(name), text) for name, text in VARIABLES.items())),
        _FILES + table(("file", "what it is"), ((code(name), text) for name, text in FILES.items())),
        *(_section(words, command, root) for words, command in verbs(cli)),
    ]
    return "".join(parts)


def _contents() -> str:
    rows = []
    for first, found in groupby((words for words, _ in verbs(cli)), lambda words: words.partition(" ")[0]):
        links = {words: f"(#{anchor(f'ota {words}')})" for words in found}
        own = code(f"ota {first}")
        named = f"[{own}]{links.pop(first)}" if first in links else own
        below = ", ".join(f"[{words.removeprefix(f'{first} ')}]{link}" for words, link in links.items())
        rows.append((named, prose(paragraphs(cli.commands[first])[0]), below))
    return table(("command", "what it is for", "its own commands"), rows)


def _section(words: str, command: click.Command, root: click.Context) -> str:
    context = click.Context(command, info_name=words, parent=root)
    pieces = [] if isinstance(command, click.Group) else command.collect_usage_pieces(context)
    arguments = [piece for piece in pieces if piece != "[OPTIONS]"]
    usage = code(" ".join(["ota", words, *arguments])) if arguments else ""
    example = f"```sh\n{EXAMPLES[words]}\n```"
    parts = [f"## ota {words}", usage, *map(prose, paragraphs(command)), _options(command, context).rstrip(), example]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _options(command: click.Command, context: click.Context) -> str:
    return table(("option", "meaning", "default, limits, variable"), _rows(command, context))


def _rows(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str]]:
    for option, names, _ in options(command, context):
        if "--help" not in option.opts:
            text, _, default = (option.help or "").rstrip("]").partition("[default: ")
            yield code(names), prose(text), ", ".join(_rest(option, context, default))


def _rest(option: click.Option, context: click.Context, default: str) -> Iterator[str]:
    """Yield what is to be known of an option besides its meaning; some name their default in words of their own."""
    extra = option.get_help_extra(context)
    if option.required:
        yield "required"
    if default:
        yield default
    elif extra.get("default", "") not in ("", '""', "False"):
        yield code(extra["default"])
    if "range" in extra:
        yield code(extra["range"])
    if option.multiple:
        yield "may be repeated"
    if option.envvar:
        yield code(str(option.envvar))


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
