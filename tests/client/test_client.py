"""The typed client: every operation has its method, and the methods against a real daemon."""

from __future__ import annotations

import inspect
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import is_typeddict

from orchestrator.client import ForeignError, RefusedError, UnreachableError, answers, connect
from orchestrator.client.client import Client
from orchestrator.client.transport import MOST_TRIES, Transport
from orchestrator.demo.broker import HOST, free_port
from orchestrator.errors import RequestError
from orchestrator.web.app import document
from orchestrator.web.described import LINES
from orchestrator.web.document import described
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
    assert [lines[0].get("devices"), len(lines)] == [2, 3]
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


def waits(*said: Answer) -> tuple[list[float], int]:
    """Return how long a client waits between these answers, and how often it asks."""
    left = list(said)
    waited: list[float] = []
    with scripted(lambda _: left.pop(0)) as server:
        client = Client(Transport(server.endpoint, "x", pause=waited.append))
        with suppress(RefusedError):
            assert client.get_status() == {}
        client.close()
        return waited, len(server.requests)


def too_many(again: str | None) -> Answer:
    return Answer(429, b'{"code": "too_many", "detail": "slowly"}', {} if again is None else {"Retry-After": again})


def test_who_asks_too_often_waits_and_asks_again() -> None:
    assert waits(too_many("2"), too_many("3"), Answer(200, b"{}")) == ([2.0, 3.0], 3)


@pytest.mark.parametrize(
    ("again", "least_s", "most_s"),
    [
        ("999999999999999999999999", 30.0, 30.0),
        ("9" * 5000, 1.0, 1.0),
        ("0", 1.0, 1.0),
        ("-5", 1.0, 1.0),
        ("1.5", 1.0, 1.0),
        ("nan", 1.0, 1.0),
        ("soon", 1.0, 1.0),
        ("", 1.0, 1.0),
        (None, 1.0, 1.0),
    ],
)
def test_whatever_stands_in_retry_after_the_wait_is_bounded(again: str | None, least_s: float, most_s: float) -> None:
    (waited_s,), asked = waits(too_many(again), Answer(200, b"{}"))
    assert least_s <= waited_s <= most_s
    assert asked == 2


@pytest.mark.parametrize(("from_now_s", "wait_s"), [(20.0, 20.0), (-20.0, 1.0), (86_400.0, 30.0)])
def test_who_asks_too_often_may_be_told_a_date(
    from_now_s: float, wait_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("orchestrator.client.transport.time.time", lambda: now)
    assert waits(too_many(formatdate(now + from_now_s, usegmt=True)), Answer(200, b"{}")) == ([wait_s], 2)


def test_who_is_always_refused_does_not_wait_for_an_answer_that_is_not_asked_for() -> None:
    assert waits(*[too_many("2")] * MOST_TRIES) == ([2.0] * (MOST_TRIES - 1), MOST_TRIES)


@pytest.mark.parametrize("link", ["http://evil.invalid/", "//evil.invalid/x"])
def test_the_token_goes_to_no_other_host_for_the_next_page(link: str) -> None:
    with scripted(lambda _: Answer(200, b"[]", {"Link": f'<{link}>; rel="next"'})) as server:
        with connect(server.endpoint, "x") as client:
            assert list(client.list_releases()) == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"detail": ' + b"[" * 100_000, b"\xff", b'"'])
@pytest.mark.parametrize("status", [200, 400])
def test_nonsense_is_foreign_and_nothing_worse(status: int, body: bytes) -> None:
    with scripted(lambda _: Answer(status, body)) as server, connect(server.endpoint) as client:
        with pytest.raises(ForeignError):
            client.get_status()
        with pytest.raises((ForeignError, UnreachableError)):
            list(client.list_exposed(below=2))


def test_a_stream_of_nobody_is_unreachable_in_the_same_words() -> None:
    with connect(f"http://{HOST}:{free_port()}") as nobody:
        for ask in (nobody.get_status, lambda: list(nobody.listen()), lambda: list(nobody.list_exposed(below=2))):
            with pytest.raises(UnreachableError, match=r"is `ota serve` running\?$"):
                ask()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this host that no authority issued, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-subj", "/CN=own", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    return path


@contextmanager
def secured(certificate: Path) -> Iterator[str]:
    """Answer `{}` over TLS until the block ends, and give the origin."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, f"{certificate}.key")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address  # who does not trust us breaks off

    server = Server((HOST, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_a_certificate_that_is_trusted_gets_the_token(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with secured(certificate) as origin:
        with connect(origin, "x") as client, pytest.raises(UnreachableError, match="certificate of .* is not trusted"):
            client.get_status()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with connect(origin, "x") as client:
            assert client.get_status() == {}
        by_name = origin.replace(HOST, "localhost")
        with connect(by_name, "x") as client, pytest.raises(UnreachableError, match="is not trusted"):
            client.get_status()
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        with pytest.raises(RequestError, match="SSL_CERT_FILE"):
            connect(origin, "x")


def test_each_field_of_an_answer_says_what_it_means() -> None:
    kinds = [kind for kind in vars(answers).values() if is_typeddict(kind)]
    assert len(kinds) > 80
    for kind in kinds:
        assert described(kind).keys() == kind.__annotations__.keys(), kind
        for text in described(kind).values():
            assert (text[-1], "\n" in text, len(text) < 130) == (".", False, True), text


def test_times_and_durations_have_their_unit() -> None:
    for kind in [kind for kind in vars(answers).values() if is_typeddict(kind)]:
        for name, text in described(kind).items():
            if name == "at" or (name.endswith("_at") and name != "halts_at"):  # that one is a count
                assert text.endswith("in seconds since the epoch."), (kind, name)
            if name.endswith("_s"):
                assert "econds" in text, (kind, name)


def test_the_document_says_what_each_field_of_an_answer_means() -> None:
    schemas = document()["components"]["schemas"]
    shown = {name: kind for name, kind in vars(answers).items() if is_typeddict(kind) and name in schemas}
    assert shown.keys() >= {"Artifact", "Moved", "PreviewCounts", "ExposedDevice", "Problem", "Fleet"}
    for name, kind in shown.items():
        assert "Attributes" not in schemas[name]["description"]
        for field, held in schemas[name]["properties"].items():
            assert held["description"] == described(kind)[field]


def test_answers_of_many_lines_name_what_a_line_is() -> None:
    found = {}
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            for content in operation["responses"].get("200", {}).get("content", {}).items():
                if content[0] == LINES:
                    found[path] = content[1]["schema"]
    counts, device = ({"$ref": f"#/components/schemas/{name}"} for name in ("PreviewCounts", "PreviewedDevice"))
    preview = {"type": "array", "items": {"anyOf": [counts, device]}}
    assert found == {
        "/api/v1/exposed/devices": {"type": "array", "items": {"$ref": "#/components/schemas/ExposedDevice"}},
        "/api/v1/rollouts/preview": preview,
        "/api/v1/rollouts/{name}/preview": preview,
    }


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
