"""The manual page `ota.1`, made from the commands themselves: `python -m orchestrator.cli.manual`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

import click

from orchestrator import __version__
from orchestrator.cli.examples import EXAMPLES, verbs
from orchestrator.cli.exits import MEANINGS

FILES = {
    "/etc/ota-orchestrator/config.yaml": "The configuration of the daemon.",
    "/etc/ota-orchestrator/operator-token": "The token of operators, where --token-file names no other one.",
    "/run/ota-orchestrator/admin.sock": "The admin socket, where no token can be read.",
    "/var/lib/ota-orchestrator/state.db": "The database.",
}
VARIABLES = {
    "OTA_CONFIG": "Same as --config.",
    "OTA_SERVER": "Same as --server.",
    "OTA_SOCKET": "Same as --socket.",
    "OTA_TOKEN_FILE": "Same as --token-file.",
    "NO_COLOR": "If it is set and not empty, nothing is coloured.",
}


def page(root: click.Command) -> str:
    """Return the manual page of a tree of commands, as troff."""
    context = click.Context(root, info_name="ota", **root.context_settings)
    lines = [
        f'.TH "OTA" "1" "" "ota {_plain(__version__)}" "OTA orchestrator"',
        '.SH "NAME"',
        rf"ota \- {_plain(paragraphs(root)[0].rstrip('.'))}",
        '.SH "SYNOPSIS"',
        r".B ota",
        "[OPTIONS] COMMAND [ARGS]...",
        '.SH "DESCRIPTION"',
        *_text(root),
        "What is said to people goes to a terminal in colours, and anywhere else without them.",
        '.SH "OPTIONS"',
        *_options(root, context),
        '.SH "COMMANDS"',
    ]
    for words, command in verbs(root):
        lines += _command(words, command, context)
    lines += ['.SH "EXIT STATUS"', *_defined({str(code): f"{meaning}." for code, meaning in MEANINGS.items()})]
    lines += ['.SH "ENVIRONMENT"', *_defined(VARIABLES), '.SH "FILES"', *_defined(FILES)]
    return "\n".join(lines) + "\n"


def _command(words: str, command: click.Command, root: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=words, parent=root)
    yield f'.SS "ota {_plain(words)}"'
    yield r".B ota " + _plain(words)
    yield _plain(" ".join(command.collect_usage_pieces(context)))
    yield ".PP"
    yield from _text(command)
    yield from _options(command, context)
    if words in EXAMPLES:
        yield from (".PP", "Example:", ".PP", ".RS 4", ".nf", _plain(EXAMPLES[words]), ".fi", ".RE")


def options(command: click.Command, context: click.Context) -> Iterator[tuple[click.Option, str, str]]:
    """Yield the options that the help of a command shows: each with its names, and what is said of it."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            # click keeps the option for help as it was first asked for, perhaps in a context without our names of it
            names = ", ".join(context.help_option_names) if "--help" in parameter.opts else record[0]
            yield parameter, names, " ".join(record[1].split())


def paragraphs(command: click.Command) -> list[str]:
    """Return what a command says of itself, each paragraph on one line."""
    text = inspect.cleandoc(command.help or "").replace("\b", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for _, names, text in options(command, context):
        yield from (".TP", rf"\fB{_plain(names)}\fR", _plain(text) or r"\&")


def _defined(words: dict[str, str]) -> Iterator[str]:
    for word, meaning in words.items():
        yield from (".TP", rf"\fB{_plain(word)}\fR", _plain(meaning))


def _text(command: click.Command) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs(command)):
        if number:
            yield ".PP"
        yield from map(_plain, textwrap.wrap(paragraph, 100))


def _plain(text: str) -> str:
    """Return a text that troff prints as it is."""
    text = (
        text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga").replace('"', r"\(dq")
    )
    return rf"\&{text}" if text.startswith(".") else text


def main() -> None:
    """Print the page."""
    from orchestrator.cli.main import cli

    click.echo(page(cli), nl=False)


if __name__ == "__main__":
    main()
