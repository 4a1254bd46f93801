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
        rf"ota \- {_plain(_sentence(root).rstrip('.'))}",
        '.SH "SYNOPSIS"',
        r".B ota",
        "[OPTIONS] COMMAND [ARGS]...",
        '.SH "DESCRIPTION"',
        *_text(inspect.cleandoc(root.help or "")),
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
    yield from _text(inspect.cleandoc(command.help or ""))
    yield from _options(command, context)
    if words in EXAMPLES:
        yield from (".PP", "Example:", ".PP", ".RS 4", ".nf", _plain(EXAMPLES[words]), ".fi", ".RE")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not isinstance(parameter, click.Argument):
            # click keeps the option for help as it was first asked for, perhaps in a context without our names of it
            names = ", ".join(context.help_option_names) if "--help" in parameter.opts else record[0]
            yield from (".TP", rf"\fB{_plain(names)}\fR", _plain(" ".join(record[1].split())) or r"\&")


def _defined(words: dict[str, str]) -> Iterator[str]:
    for word, meaning in words.items():
        yield from (".TP", rf"\fB{_plain(word)}\fR", _plain(meaning))


def _text(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.replace("\b", "").split("\n\n")):
        if number:
            yield ".PP"
        yield from map(_plain, textwrap.wrap(" ".join(paragraph.split()), 100))


def _sentence(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


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
