"""The device side of HTTP: poll, report, download."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.s3 import S3Source
from orchestrator.core.model import UpdateState
from orchestrator.demo import bucket
from orchestrator.errors import UnavailableError
from orchestrator.verifier import verify
from orchestrator.wire.report import MAX_REPORT_BYTES, Hello, Kind, encode
from tests.support.bucket import bucket_endpoint, new_name, opened, settings
from tests.support.factory import claims_of, make_report, make_verifier
from tests.web.ddi_client import enrol
from tests.web.site import Site, problem, site, statement

__all__ = ["bucket_endpoint"]

POLL = "/api/v1/firmware/version"
BEAT = "/api/v1/beat"
REPORT = "/api/v1/report"
HELLO = "/api/v1/hello"
IMAGE = bytes(range(256)) * 20


async def offered(web: Site, **plan: Any) -> str:
    """Enrol `d1`, offer it release 2 and sign the trigger; returns the image's hash."""
    sha256 = await web.release(IMAGE)
    await web.enrol("d1")
    await web.roll_out(**plan)
    await web.plant.seal()
    return sha256


async def test_every_route_needs_a_device_token(web: Site) -> None:
    for token in ("", "otad_unknown", "operator-token-of-the-test"):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for method, path in (("GET", POLL), ("GET", BEAT), ("POST", REPORT), ("POST", HELLO), ("GET", "/v1/dl/x")):
            assert problem(await web.http.request(method, path, headers=headers)) == (401, "unauthorised")
        assert (await web.http.head("/v1/dl/x", headers=headers)).status_code == 401


async def test_a_fresh_beat_is_handed_out(tmp_path: Path) -> None:
    beats: list[bytes | None] = [None]

    async def fresh() -> bytes | None:
        return beats[0]

    async with site(tmp_path, beat=fresh) as web:
        await web.enrol("d1")
        assert problem(await web.as_device("d1", "GET", BEAT)) == (503, "unavailable")
        beats[0] = b"a.b.c"
        answer = await web.as_device("d1", "GET", BEAT)
        assert (answer.status_code, answer.content) == (200, b"a.b.c")
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/jose", "no-store")


async def test_a_daemon_without_beats_says_so(web: Site) -> None:
    await web.enrol("d1")
    assert problem(await web.as_device("d1", "GET", BEAT)) == (503, "unavailable")


async def test_nothing_to_do_is_204(web: Site) -> None:
    await web.enrol("d1")
    answer = await web.as_device("d1", "GET", f"{POLL}?current=1.0.0")
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    assert 225 <= int(answer.headers["retry-after"]) <= 300


async def test_a_poll_before_the_trigger_is_signed_is_told_to_come_back(web: Site) -> None:
    await web.release()
    await web.enrol("d1")
    await web.roll_out()
    answer = await web.as_device("d1", "GET", POLL)
    assert (answer.status_code, answer.headers["retry-after"]) == (204, "2")


async def test_a_poll_brings_the_signed_bundle(web: Site) -> None:
    sha256 = await offered(web)
    answer = await web.as_device("d1", "GET", f"{POLL}?current=1.0.0")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jose")
    verdict = verify(answer.content, make_verifier("d1"), int(web.plant.clock()))
    assert (verdict.kind, verdict.claims["sha256"], verdict.claims["aud"]) == ("install", sha256, ["d:d1"])
    assert (await web.as_device("d1", "GET", POLL)).content == answer.content


async def test_a_poll_after_a_halt_brings_no_trigger(web: Site) -> None:
    await offered(web)
    await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    assert (await web.as_device("d1", "GET", POLL)).status_code == 204


async def test_a_poll_after_a_halt_brings_the_recall_to_who_had_the_trigger(web: Site) -> None:
    await offered(web)
    install = claims_of((await web.as_device("d1", "GET", POLL)).text)
    await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    await web.plant.seal()
    recall = claims_of((await web.as_device("d1", "GET", POLL)).text)
    assert (install["act"], recall["act"], recall["att"]) == ("install", "cancel", install["att"])
    assert recall["seq"] > install["seq"]


async def test_a_push_rollout_is_not_polled(web: Site) -> None:
    await offered(web, delivery="push")
    assert (await web.as_device("d1", "GET", POLL)).status_code == 204


async def test_an_endless_version_is_refused(web: Site) -> None:
    await web.enrol("d1")
    assert problem(await web.as_device("d1", "GET", f"{POLL}?current={'x' * 65}")) == (400, "oversize")


async def test_a_hello_is_stored_before_it_is_answered(web: Site) -> None:
    await web.enrol("d1")
    hello = encode(Hello(1, "d1", "m1", ver="1.5.0", rel=1, boot="b7"))
    answer = await web.as_device("d1", "POST", HELLO, content=hello)
    assert (answer.status_code, answer.content) == (202, b"")
    shown = (await web.ops("GET", "/devices/d1")).json()
    assert (shown["version"], shown["seen_at"]) == ("1.5.0", web.plant.clock())


async def test_a_report_is_committed_before_it_is_answered(web: Site) -> None:
    await offered(web)
    bundle = claims_of((await web.as_device("d1", "GET", POLL)).text)
    update_id = int(bundle["att"].partition(".")[0])
    update = (await web.plant.store.read(lambda tx: tx.updates([update_id])))[update_id]
    answer = await web.as_device("d1", "POST", REPORT, content=encode(make_report(update, Kind.ACCEPTED)))
    assert answer.status_code == 202
    again = (await web.plant.store.read(lambda tx: tx.updates([update_id])))[update_id]
    assert again.state is UpdateState.ACCEPTED
    await web.as_device("d1", "POST", REPORT, content=encode(make_report(update, Kind.ACCEPTED)))
    assert web.plant.recorder.counts["ignored_repeated"] == 1


async def test_a_report_that_cannot_be_stored_is_not_accepted(web: Site) -> None:
    await web.enrol("d1")
    hello = encode(Hello(1, "d1", "m1"))

    def away() -> None:
        raise UnavailableError("the database is away", code="store")

    web.plant.store.breaks = away
    assert problem(await web.as_device("d1", "POST", HELLO, content=hello)) == (503, "store")
    web.plant.store.breaks = None
    assert (await web.as_device("d1", "POST", HELLO, content=hello)).status_code == 202


def report_with(**changes: Any) -> bytes:
    known = {"v": 1, "dev": "d1", "att": "1.1", "boot": "b1", "n": 0, "kind": "accepted"}
    return json.dumps(known | changes).encode()


REFUSED_REPORTS = (
    (b"", "malformed"),
    (b"{", "malformed"),
    (b"[" * 2000, "malformed"),
    (b"\xff\xfe", "malformed"),
    (report_with(n=-1), "malformed"),
    (report_with(kind="exploded"), "malformed"),
    (report_with(v=2), "malformed"),
    (report_with(att="1"), "bad_attempt"),
    (report_with(code="NOT a code"), "bad_code"),
    (report_with(kind="confirmed"), "missing_rel"),
    (report_with(dev="d2"), "foreign_device"),
    (report_with(msg="x" * MAX_REPORT_BYTES), "oversize"),
    (b" " * 500_000, "oversize"),
)


async def test_reports_that_are_refused(web: Site) -> None:
    await web.enrol("d1", "d2")
    for content, code in REFUSED_REPORTS:
        assert problem(await web.as_device("d1", "POST", REPORT, content=content)) == (400, code)
    assert web.plant.recorder.counts["reports"] == 0


async def test_a_report_about_another_devices_attempt_changes_nothing(web: Site) -> None:
    await offered(web)
    await web.enrol("d2")
    (update,) = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    said = encode(make_report(update, Kind.CONFIRMED, dev="d2"))
    assert (await web.as_device("d2", "POST", REPORT, content=said)).status_code == 202
    assert await web.plant.store.read(lambda tx: tx.updates_of(["d1"])) == [update]
    assert web.plant.recorder.counts["ignored_unknown_attempt"] == 1


async def test_a_local_file_is_served_whole_and_in_pieces(web: Site) -> None:
    path = f"/v1/dl/{await offered(web)}"
    whole = await web.as_device("d1", "GET", path)
    assert (whole.status_code, whole.content) == (200, IMAGE)
    assert whole.headers["etag"] == f'"{path.removeprefix("/v1/dl/")}"'
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["cache-control"] == "private, immutable"
    piece = await web.as_device("d1", "GET", path, headers={"Range": "bytes=100-199"})
    assert (piece.status_code, piece.content) == (206, IMAGE[100:200])
    assert piece.headers["content-range"] == f"bytes 100-199/{len(IMAGE)}"
    rest = await web.as_device("d1", "GET", path, headers={"Range": "bytes=5000-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, IMAGE[5000:])
    changed = await web.as_device("d1", "GET", path, headers={"Range": "bytes=5000-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, IMAGE)
    beyond = await web.as_device("d1", "GET", path, headers={"Range": f"bytes={len(IMAGE)}-"})
    assert beyond.status_code == 416


async def test_head_says_what_get_would(web: Site) -> None:
    answer = await web.as_device("d1", "HEAD", f"/v1/dl/{await offered(web)}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["content-length"], answer.headers["accept-ranges"]) == (str(len(IMAGE)), "bytes")


async def test_artifacts_of_other_models_do_not_exist(web: Site) -> None:
    sha256 = await offered(web)
    await web.enrol("other", model="m2")
    assert problem(await web.as_device("other", "GET", f"/v1/dl/{sha256}")) == (404, "not_found")
    assert problem(await web.as_device("d1", "GET", f"/v1/dl/{'A' * 43}")) == (404, "not_found")
    assert problem(await web.as_device("d1", "GET", "/v1/dl/..%2f..%2fetc%2fpasswd"))[0] == 404


async def test_a_file_that_changed_is_not_served(web: Site) -> None:
    path = f"/v1/dl/{await offered(web)}"
    (web.folder / "fw.bin").write_bytes(b"something else")
    answer = await web.as_device("d1", "GET", path)
    assert problem(answer) == (422, "changed")
    assert "file:" not in answer.text, "where it lies is for operators alone"
    (web.folder / "fw.bin").unlink()
    assert problem(await web.as_device("d1", "GET", path)) == (404, "no_such_file")


@pytest.fixture
async def bucket_web(tmp_path: Path, bucket_endpoint: str) -> AsyncIterator[tuple[Site, str]]:
    """The application with a bucket, and that bucket's name."""
    name = new_name()
    await bucket.create(bucket_endpoint, name)
    await bucket.put(bucket_endpoint, name, "fw.bin", IMAGE)
    await bucket.put(bucket_endpoint, name, "fw.bin.statement", statement(IMAGE, 2, ("m1",)))
    with opened(S3Source(settings(bucket_endpoint))) as source:
        async with site(tmp_path, source) as running:
            yield running, name


async def test_what_lies_in_a_bucket_is_a_redirect_to_a_presigned_url(bucket_web: tuple[Site, str]) -> None:
    web, name = bucket_web
    imported = await web.ops("POST", "/artifacts", {"uri": f"s3://{name}/fw.bin"})
    assert imported.status_code == 201
    await web.enrol("d1")
    with capture_logs() as logs:
        answer = await web.as_device("d1", "GET", f"/v1/dl/{imported.json()['sha256']}")
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
    head = await web.as_device("d1", "HEAD", f"/v1/dl/{imported.json()['sha256']}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(IMAGE)), b"")
    location = answer.headers["location"]
    assert web.tokens["d1"] not in location
    assert "X-Amz-Signature=" in location
    async with httpx2.AsyncClient(trust_env=False) as outside:
        fetched = await outside.get(location, headers={"Range": "bytes=10-19"})
    assert (fetched.status_code, fetched.content) == (206, IMAGE[10:20])
    assert not any("X-Amz" in str(line) for line in logs)


async def test_no_token_is_ever_logged(web: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as logs:
        path = f"/v1/dl/{await offered(web)}"
        for answer in (
            await web.as_device("d1", "GET", path),
            await web.as_device("d1", "GET", POLL),
            await web.as_device("d1", "POST", REPORT, content=b"{"),
            await web.as_device("d1", "POST", HELLO, content=encode(Hello(1, "d1", "m1"))),
        ):
            assert answer.status_code in (200, 202, 400)
    printed = f"{logs} {capsys.readouterr()}"
    assert web.tokens["d1"] not in printed
    assert "operator-token-of-the-test" not in printed


async def test_a_device_that_hangs_up_in_its_words_is_no_fault_of_ours(web: Site) -> None:
    await web.enrol("d1")
    said: list[Any] = []
    heard = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return heard.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"authorization", f"Bearer {web.tokens['d1']}".encode())]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": REPORT, "headers": headers}
    with capture_logs() as logs:
        await web.app(scope | {"query_string": b"", "scheme": "http", "client": ("127.0.0.1", 1)}, receive, send)
    assert said[0]["status"] == 400
    assert logs == []


@pytest.mark.parametrize("dialect", ["ddi", "esp8266", "esp32", "pico", "esp-idf"])
async def test_who_verifies_no_trigger_gets_neither_triggers_nor_bytes_here(web: Site, dialect: str) -> None:
    sha256 = await web.release(IMAGE)
    await enrol(web, "d1", dialect=dialect)
    for path in (f"/v1/dl/{sha256}", POLL):
        assert problem(await web.as_device("d1", "GET", path)) == (403, "other_dialect")
    assert (
        await web.as_device("d1", "POST", HELLO, content=encode(Hello(v=1, dev="d1", model="m1")))
    ).status_code == 202
