"""The dialects of devices as the choice of an option; the core is imported only where the choice matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Dialect(click.ParamType[str]):
    """One of the dialects that the core knows."""

    name = "dialect"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the dialect, or fail with the list of those that there are."""
        return _choice().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the list that help shows."""
        return _choice().get_metavar(param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a dialect."""
        return _choice().shell_complete(ctx, param, incomplete)


def _choice() -> click.Choice[str]:
    from orchestrator.core.targeting.dialect import DIALECTS

    return click.Choice(DIALECTS)
