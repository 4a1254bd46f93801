"""`ota openapi`: the document of the operator API of this version."""

from __future__ import annotations

import json

import click


@click.command("openapi")
def openapi_command() -> None:
    """Print the document of the HTTP API (OpenAPI 3.1); no daemon is asked."""
    from orchestrator.web.app import document

    click.echo(json.dumps(document(), indent=2))
