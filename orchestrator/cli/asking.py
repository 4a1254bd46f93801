"""Questions to the person before the terminal, and when none may be asked."""

from __future__ import annotations

import sys

import click

from orchestrator.cli.client import fail


def may_ask(context: click.Context) -> bool:
    """Return whether somebody can answer: there is a terminal, and `--no-input` was not said."""
    is_there = sys.stdin is not None and sys.stdin.isatty()  # what starts a program may have closed it
    return is_there and not context.find_root().params.get("no_input")


def confirmed(context: click.Context, what: str, *, yes: bool, err: bool = False) -> None:
    """Go on only if a person agrees; `yes` is what they said beforehand."""
    if yes:
        return
    if not may_ask(context):
        fail(f"{what}; nobody can be asked here, so confirm it with --yes")
    click.confirm(f"{what}. Go on?", abort=True, err=err)
