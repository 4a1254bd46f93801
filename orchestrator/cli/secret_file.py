"""Secrets that an answer holds once, kept in a new file that nobody else can read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import fail


def hand_over(
    path: Path, field: str, option: str, ask: Callable[[], Any], output: str, say: Callable[[Any], str]
) -> None:
    """Ask for something that holds a secret, and keep the secret in a file.

    The file is made first, so that no secret is made that cannot be kept.

    Args:
        path: the new file.
        field: of the answer that holds the secret.
        option: by which the file is named.
        ask: asks.
        output: how to print the rest of the answer.
        say: returns what is said to a person.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        fail(f"{path} cannot be made: {error.strerror}; name a new file with {option}")
    made = None
    with os.fdopen(descriptor, "w") as file:
        try:
            made = ask()
            file.write(made[field] + "\n")
        finally:
            if made is None:
                path.unlink()
    shown = {name: value for name, value in made.items() if name != field} | {"file": str(path)}
    show.emit(shown, output, lambda _: click.echo(say(shown)))
