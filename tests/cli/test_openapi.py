"""`ota openapi`: the document, without a daemon, and the same that a daemon gives out."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
from click.testing import CliRunner

from orchestrator.cli.main import cli
from tests.cli.house import house


def test_the_document_is_that_of_the_daemon(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["openapi"])
    assert printed.exit_code == 0
    made = json.loads(printed.stdout)
    with house(tmp_path) as daemon:
        given = httpx2.get(f"{daemon.origin}/api/v1/openapi.json", trust_env=False)
    assert given.json() == made
    assert (made["openapi"], made["paths"]["/api/v1/rollouts"]["get"]["operationId"]) == ("3.1.0", "list_rollouts")
