"""The typed client: every operation has its method, and the methods against a real daemon."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import ForeignError, RefusedError, UnreachableError, connect
from orchestrator.client.client import Client
from orchestrator.client.transport import Transport
from orchestrator.demo.broker import HOST, free_port
from orchestrator.errors import RequestError
from orchestrator.web.app import document
from tests.cli.house import House, house
from tests.support.bucket import Answer, scripted
from tests.web.site import PLAN, TOKEN

NOT_COVERED = {
    "device": "what devices call; their own libraries speak it",
    "dialects": "what clients of other servers call",
    "webhooks": "`ota webhook` is how they are looked after",
}
"""Tags of operations without a method, and why."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as running:
        running.do(running.site.enrol("d1", "d2"))
        running.do(running.site.release())
        yield running


@pytest.fixture
def client(daemon: House) -> Iterator[Client]:
    with connect(daemon.origin, TOKEN) as made:
        yield made


def test_every_operation_has_a_method_or_a_reason_why_not() -> None:
    methods = {name for name, _ in inspect.getmembers(Client, inspect.isfunction)}
    for operations in document()["paths"].values():
        for operation in operations.values():
            covered = operation["operationId"] in methods
            assert covered != bool(NOT_COVERED.keys() & set(operation["tags"])), operation["operationId"]


def test_every_act_takes_a_key() -> None:
    for operations in document()["paths"].values():
        for operation in operations.values():
            names = {item["name"] for item in operation.get("parameters", ()) if "name" in item}
            method = getattr(Client, operation["operationId"], None)
            if method is not None and "idempotency-key" in names:
                assert "key" in inspect.signature(method).parameters, operation["operationId"]


def test_a_rollout_from_its_plan_to_its_end(client: Client, daemon: House) -> None:
    assert [item["name"] for item in client.list_releases()] == ["radio-2"]
    assert [item["id"] for item in client.list_devices('model == "m1"')] == ["d1", "d2"]
    made = client.create_rollout(PLAN)
    assert (made["phase"], client.get_rollout("spring")["release"]) == ("draft", "radio-2")
    lines = list(client.preview_rollout("spring"))
    assert [lines[0]["devices"], len(lines)] == [2, 3]
    mark = client.mark_of_rollout("spring")
    started = client.move_rollout("spring", "start", "it is spring", if_match=mark)
    assert started["phase"] == "preparing"
    with pytest.raises(RefusedError) as refused:
        client.move_rollout("spring", "abort", "no", if_match=mark)
    assert (refused.value.status, refused.value.code) == (412, "changed")
    assert client.explain_rollout("spring")["events"][0]["code"] == "created"
    assert client.get_curve("spring")["began_at"] is not None
    assert [item["name"] for item in client.list_rollouts(["preparing"], "spr")] == ["spring"]
    assert [item["version"] for item in client.list_plan_versions("spring")] == [1]
    assert client.move_rollout("spring", "halt", "smoke")["phase"] == "halted"


def test_devices(client: Client) -> None:
    assert client.change_facts([{"id": "d1", "site": "berlin"}]) == ["d1"]
    assert client.get_device("d1")["site"] == "berlin"
    assert client.explain_device("d1")["rollouts"] == []
    assert client.quarantine_devices(["d1"], "burnt") == 1
    assert [item["id"] for item in client.list_devices(quarantined=True)] == ["d1"]
    assert client.release_devices(["d1"], "mended") == 1
    assert client.enrol_devices([{"id": "d3", "model": "m1"}])["d3"].startswith("otad_")
    assert client.count_exposed(below=2)["vulnerable"] == 2
    assert [item["id"] for item in client.list_exposed(below=2)] == ["d1", "d2", "d3"]
    assert client.count_endpoints()["fleet"] == 3


def test_accounts_keys_and_the_log(client: Client) -> None:
    key = "3f0c9a34-5b7e-4b8e-9d55-0a4e7a1f6c11"
    made = client.add_operator("bo", "bo.b", ["viewer"], key=key)
    assert client.add_operator("bo", "bo.b", ["viewer"], key=key) == made
    assert client.revoke_token(made["id"])["revoked_at"] is not None
    assert [item["name"] for item in client.list_operators()] == ["bo"]
    assert client.remove_operator("bo")["removed"] == "bo"
    assert client.get_keyset()["epoch"] == 1
    assert client.list_approvals() == {"proposals": [], "reviews": []}
    assert [entry["n"] for entry in client.list_audit()][:2] == [1, 2]
    assert list(client.list_sealed(1, 100)) == []
    assert "store" in client.get_status()


def test_a_refusal_says_all_that_is_wrong(client: Client) -> None:
    with pytest.raises(RefusedError) as refused:
        client.create_rollout({"name": "X", "colour": "red"})
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    assert "colour: unknown key" in refused.value.faults
    with pytest.raises(RequestError):
        client.get_device("a/b")


def test_who_does_not_answer_and_who_is_another() -> None:
    with connect(f"http://{HOST}:{free_port()}") as nobody, pytest.raises(UnreachableError):
        nobody.get_status()
    with (
        scripted(lambda _: Answer(200, b"<html>")) as server,
        connect(server.endpoint) as other,
        pytest.raises(ForeignError),
    ):
        other.get_status()


def test_who_asks_too_often_waits_and_asks_again() -> None:
    answers = [Answer(429, b'{"detail": "slowly"}', {"Retry-After": "2"})] * 2 + [Answer(200, b"{}")]
    waited: list[float] = []
    with scripted(lambda _: answers.pop(0)) as server:
        client = Client(Transport(server.endpoint, "x", pause=waited.append))
        assert client.get_status() == {}
        client.close()
    assert waited == [2.0, 2.0]


def test_who_is_cut_off_sends_the_act_again_under_the_same_key() -> None:
    import socket

    listener = socket.create_server((HOST, 0))
    keys: list[str] = []

    def serve() -> None:
        for answer in (b"", b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"changed": 1}'):
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536).decode()
                found = re.search("(?i)idempotency-key: (.+)\r\n", head)
                assert found is not None
                keys.append(found[1])
                connection.sendall(answer)

    serving = threading.Thread(target=serve)
    serving.start()
    with listener, connect(f"http://{HOST}:{listener.getsockname()[1]}", "x") as client:
        assert client.quarantine_devices(["d1"], "burnt") == 1
        serving.join()
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_lists_are_followed_to_their_end(daemon: House) -> None:
    names = [f"e{number:04}" for number in range(1005)]
    daemon.do(daemon.site.enrol(*names))
    with connect(daemon.origin, TOKEN) as client:
        found = [item["id"] for item in client.list_devices()]
    assert found == ["d1", "d2", *names]


def test_answers_are_typed() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(method).return_annotation not in (inspect.Signature.empty, Any, "Any"), name


def test_changes_are_heard_until_the_stream_ends() -> None:
    text = b'id: a-1\nevent: rollout\ndata: {"name": "spring"}\n\n: still here\n\nevent: stopping\ndata: {}\n\n'
    with scripted(lambda _: Answer(200, text)) as server, connect(server.endpoint, "x") as client:
        assert list(client.listen("a-0")) == [("a-1", "rollout", {"name": "spring"}), ("", "stopping", {})]
    assert server.requests[0].headers["last-event-id"] == "a-0"
    refusal = Answer(503, b'{"code": "no_feed", "detail": "not now"}')
    with scripted(lambda _: refusal) as server, connect(server.endpoint) as client:
        with pytest.raises(RefusedError) as refused:
            list(client.listen())
        with pytest.raises(RefusedError):
            list(client.list_exposed(below=2))
    assert (refused.value.status, refused.value.code) == (503, "no_feed")


def test_addresses_that_are_none() -> None:
    for server in ("nonsense", "ftp://x", "http://host:port"):
        with pytest.raises(RequestError):
            connect(server)
