"""`ota webhook`, against a running daemon."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.ports import Lane, Tx
from orchestrator.wire import events
from tests.cli.house import House, house

URL = "https://hooks.example.net/ota"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as running:
        yield running


def add(live: House, file: Path, *more: str) -> str:
    """Add a webhook and return its identifier."""
    live.well("webhook", "add", URL, "--secret-out", str(file), *more)
    name: str = json.loads(live.well("webhook", "list", "-o", "json"))[0]["id"]
    return name


def test_a_webhook_is_added_with_a_secret_in_a_private_file(live: House, tmp_path: Path) -> None:
    file = tmp_path / "hook"
    said = live.well("webhook", "add", URL, "--events", "rollout.*,devices.*", "--secret-out", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    assert secret.startswith("whsec_")
    listed = live.well("webhook", "list")
    assert "rollout.*,devices.*" in listed
    assert "active" in listed
    assert secret not in said + listed
    refused = live.ota("webhook", "add", URL, "--secret-out", str(file))
    assert "cannot be made" in refused.stderr


def test_without_a_file_for_the_secret_nothing_is_added(live: House) -> None:
    assert "--secret-out" in live.ota("webhook", "add", URL).output
    assert json.loads(live.well("webhook", "list", "-o", "json")) == []


def test_a_refused_webhook_leaves_no_file(live: House, tmp_path: Path) -> None:
    file = tmp_path / "hook"
    refused = live.ota("webhook", "add", "https://169.254.169.254/", "--secret-out", str(file))
    assert refused.exit_code == 1
    assert "the address of a webhook" in refused.stderr
    assert not file.exists()


def test_the_broker_needs_no_file(live: House) -> None:
    assert "events go to the broker" in live.well("webhook", "add", "mqtt:")


def test_rotating_writes_another_secret(live: House, tmp_path: Path) -> None:
    name = add(live, tmp_path / "one")
    live.well("webhook", "rotate", name, "--overlap", "1", "--secret-out", str(tmp_path / "two"))
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_a_test_says_whether_it_arrived(live: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add(live, tmp_path / "hook")

    def fail_or_take(error: str) -> None:
        def work(tx: Tx) -> None:
            found = tx.webhook(name)
            assert found is not None
            cursor = found.cursor if error else tx.audit_head().n
            tx.save_webhook(replace(found, cursor=cursor, error=error))

        live.do(live.site.plant.store.transact(Lane.BULK, work))

    monkeypatch.setattr(time, "sleep", lambda _: fail_or_take(""))
    assert f"the test arrived at {name}" in live.well("webhook", "test", name)
    fail_or_take("it answered 500")
    late = live.ota("webhook", "test", name, "--timeout", "0")
    assert late.exit_code == 4
    assert "it answered 500" in late.stderr


def test_resuming_and_removing(live: House, tmp_path: Path) -> None:
    name = add(live, tmp_path / "hook")
    assert "is active and is tried now" in live.well("webhook", "resume", name, "--skip")
    assert "is removed" in live.well("webhook", "remove", name)
    assert live.ota("webhook", "remove", name).exit_code == 5


def test_the_catalogue_is_printed_without_a_daemon(live: House) -> None:
    assert json.loads(live.well("webhook", "catalogue")) == events.schema()
