"""`ota operator`, `ota approvals` and what belongs to them, against a running daemon."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import client
from orchestrator.cli.main import cli
from orchestrator.core.trust.roles import Role
from orchestrator.engine.trust.approvals import Rules
from orchestrator.web.server import AdminSocket
from tests.cli.house import House, house
from tests.web.site import PLAN


@pytest.fixture
def live(tmp_path: Path) -> Iterator[House]:
    """A daemon with a rollout in draft whose start needs two persons: ann operates, ben approves, cleo may as well."""
    with house(tmp_path, rules=Rules(approve_above=0.5)) as running:
        running.do(running.site.release())
        running.do(running.site.enrol("d1"))
        running.do(running.site.ops("POST", "/rollouts", PLAN))
        for name, role in (("ann", Role.OPERATOR), ("ben", Role.APPROVER), ("cleo", Role.APPROVER)):
            file_of(running, name).write_text(running.do(running.site.operator(name, role)))
        yield running


def file_of(live: House, name: str) -> Path:
    return live.token_file.with_name(f"{name}.token")


def as_(live: House, name: str, *words: str) -> Result:
    """Run a command as an operator."""
    return CliRunner().invoke(cli, ["--server", live.origin, "--token-file", str(file_of(live, name)), *words])


def test_an_operator_is_added_with_a_token_in_a_private_file(live: House) -> None:
    path = file_of(live, "vic")
    said = live.well("operator", "add", "vic", "--person", "vic", "--role", "viewer", "--token-out", str(path))
    assert said.startswith("token ")
    assert str(path) in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in said
    assert as_(live, "vic", "device", "list").exit_code == 0
    listed = live.well("operator", "list")
    assert "vic" in listed
    assert path.read_text().strip() not in listed
    token_id = json.loads(live.well("operator", "list", "-o", "json"))[-1]["tokens"][0]["id"]
    assert live.well("operator", "revoke", token_id) == f"token {token_id} of vic is revoked\n"
    assert as_(live, "vic", "device", "list").exit_code == 1
    second = file_of(live, "vic2")
    live.well("operator", "token", "vic", "--days", "2", "--token-out", str(second))
    assert as_(live, "vic2", "device", "list").exit_code == 0
    assert live.well("operator", "remove", "vic") == "vic is removed\n"
    assert as_(live, "vic2", "device", "list").exit_code == 1


def test_no_token_is_made_that_cannot_be_kept_and_no_file_is_left(live: House) -> None:
    path = file_of(live, "ann")
    words = ("--person", "vic", "--role", "viewer", "--token-out")
    taken = live.ota("operator", "add", "vic", *words, str(path))
    assert (taken.exit_code, taken.stderr) == (
        1,
        f"error: {path} cannot be made: File exists; name a new file with --token-out\n",
    )
    new = file_of(live, "new")
    assert live.ota("operator", "add", "operator", *words, str(new)).exit_code == 1
    assert not new.exists()
    assert "vic" not in live.well("operator", "list")


def test_a_start_that_waits_says_how_to_approve_it(live: House) -> None:
    waits = as_(live, "ann", "rollout", "start", "spring", "--reason", "spring it is")
    assert waits.exit_code == 1
    assert "`ota approve 1 --reason WHY`" in waits.stderr
    listed = as_(live, "ben", "approvals").stdout
    assert "proposed" in listed
    assert "0/1" in listed
    assert as_(live, "ann", "approve", "1", "--reason", "x").exit_code == 1
    approved = as_(live, "ben", "approve", "1", "--reason", "seen it")
    assert (approved.exit_code, approved.stdout.splitlines()[0].split(":")[0]) == (0, "proposal 1 is approved")
    assert "approved by ben: seen it" in approved.stdout
    assert as_(live, "ann", "rollout", "start", "spring").exit_code == 0


def test_a_rejection_is_said(live: House) -> None:
    as_(live, "ann", "rollout", "start", "spring")
    rejected = as_(live, "cleo", "reject", "1", "--reason", "not on a Friday")
    assert rejected.exit_code == 0
    assert "rejected by cleo: not on a Friday" in rejected.stdout
    again = as_(live, "ben", "approve", "1", "--reason", "x")
    assert (again.exit_code, again.stderr) == (1, "error: proposal 1 is rejected already\n")


@pytest.mark.parametrize(("word", "code"), [("approve", 0), ("reject", 1)])
def test_waiting_ends_with_what_others_say(live: House, word: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        assert as_(live, "ben", word, "1", "--reason", "x").exit_code == 0

    monkeypatch.setattr(time, "sleep", pause)
    result = as_(live, "ann", "rollout", "start", "spring", "--wait")
    assert (result.exit_code, paused) == (code, [client.WAIT_S])
    lines = result.stderr.splitlines()
    assert lines[0] == "waiting for others to `ota approve 1 --reason WHY`"
    assert lines[1:] == ([] if code == 0 else ["error: proposal 1 is rejected"])


def test_over_the_admin_socket_no_token_is_needed_and_the_glass_can_be_broken(live: House, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    async def open_() -> asyncio.Task[None]:
        return asyncio.create_task(AdminSocket(live.site.app, path).run())

    async def close(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def here(*words: str) -> Result:
        return CliRunner().invoke(cli, ["--socket", str(path), *words], env={"OTA_TOKEN_FILE": None})

    far = live.ota("rollout", "start", "spring", "--break-glass", "fire")
    assert (far.exit_code, "at the admin socket alone" in far.stderr) == (1, True)
    assert "review" not in far.stderr
    task = live.do(open_())
    try:
        assert here("operator", "list").exit_code == 0
        as_(live, "ann", "rollout", "start", "spring")
        done = here("rollout", "start", "spring", "--break-glass", "fire")
        assert (done.exit_code, done.stderr) == (
            0,
            "review 1 is open: another person closes it: `ota review 1 --reason WHY`\n",
        )
        named = ("--token-file", str(file_of(live, "ben")))
        assert here(*named, "operator", "list").exit_code == 1  # a token that is named is the one that counts
    finally:
        live.do(close(task))
    gone = here("operator", "list")
    assert (gone.exit_code, f"there is no admin socket {path}; is" in gone.stderr) == (1, True)
    shown = live.well("approvals")
    assert "review 1 is open: start of spring" in shown
    assert "close it with `ota review 1 --reason WHY`" in shown
    closed = as_(live, "cleo", "review", "1", "--reason", "there was fire", "-o", "json")
    assert (closed.exit_code, json.loads(closed.stdout)["closed_by"]) == (0, "cleo")


def test_without_a_token_file_the_socket_is_tried_where_there_is_one(
    live: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = str(tmp_path / "no-such-token")
    monkeypatch.setattr(client, "DEFAULT_SOCKET", str(tmp_path / "no-such-socket"))
    monkeypatch.setattr(client, "DEFAULT_TOKEN_FILES", (nowhere,))
    env = {"OTA_TOKEN_FILE": None, "OTA_SOCKET": None}
    plain = CliRunner().invoke(cli, ["--server", live.origin, "device", "list"], env=env)
    assert (plain.exit_code, f"no operator token can be read: neither {nowhere}; name" in plain.stderr) == (1, True)
    path = tmp_path / "admin.sock"
    monkeypatch.setattr(client, "DEFAULT_SOCKET", str(path))

    async def open_() -> asyncio.Task[None]:
        return asyncio.create_task(AdminSocket(live.site.app, path).run())

    async def close(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = live.do(open_())
    try:
        assert CliRunner().invoke(cli, ["operator", "list"], env=env).exit_code == 0
    finally:
        live.do(close(task))


def test_the_first_usual_token_file_that_can_be_read_is_taken(live: House, monkeypatch: pytest.MonkeyPatch) -> None:
    missing, there = live.token_file.with_name("missing"), live.token_file
    env = {"OTA_TOKEN_FILE": None, "OTA_SOCKET": None}
    for places in ((str(missing), str(there)), (str(there), str(missing))):
        monkeypatch.setattr(client, "DEFAULT_TOKEN_FILES", places)
        assert CliRunner().invoke(cli, ["--server", live.origin, "device", "list"], env=env).exit_code == 0


def test_what_is_done_to_accounts_is_json_for_machines_without_any_token(live: House) -> None:
    first, second = file_of(live, "vic"), file_of(live, "vic2")
    words = ("--person", "vic", "--role", "viewer", "-o", "json", "--token-out")
    made = [json.loads(live.well("operator", "add", "vic", *words, str(first)))]
    made.append(json.loads(live.well("operator", "token", "vic", "-o", "json", "--token-out", str(second))))
    assert [(item["operator"], item["file"]) for item in made] == [("vic", str(first)), ("vic", str(second))]
    assert not any("token" in item for item in made)
    revoked = json.loads(live.well("operator", "revoke", made[0]["id"], "-o", "json"))
    assert (revoked["id"], revoked["revoked_at"] > 0) == (made[0]["id"], True)
    assert json.loads(live.well("operator", "remove", "vic", "-o", "json")) == {"removed": "vic"}
