"""Devices with `esp_https_ota`, as they send their requests, against the application on a real socket."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from structlog.testing import capture_logs

from orchestrator.adapters.files import FileSource
from orchestrator.core.model import UpdateState
from orchestrator.demo.broker import HOST
from orchestrator.engine.reports.recording import record_silence
from orchestrator.errors import PayloadError, UnavailableError
from orchestrator.ports import Lane
from orchestrator.web.dialects.espidf_words import AppState, Said, login, said_in
from orchestrator.web.rhythm import SPREAD, pause
from orchestrator.web.server import HttpServer
from orchestrator.web.turns import Turns
from tests.support.emulators.esp_idf import FAIL, IN_PROGRESS, NOT_MODIFIED, OK, EspIdf
from tests.web.ddi_client import allow, enrol, state
from tests.web.site import Site, site

S = UpdateState
IMAGE = bytes(range(256)) * 20
OLD, NEW = "1.0.0", "2.0.0"


@dataclass
class Bench:
    """The application on a socket.

    Attributes:
        web: the application.
        port: where it listens.
        server: what listens there.
    """

    web: Site
    port: int
    server: HttpServer

    async def idle(self) -> None:
        """Wait until the server is done with every request."""
        while self.server._server.server_state.tasks:
            await asyncio.sleep(0.001)

    def device(self, name: str = "d1", version: str = "", **changes: Any) -> EspIdf:
        """Return a device whose URL has its token, and that says its version if one is given."""
        path = f"/ota/esp-idf/{self.web.tokens[name]}"
        return EspIdf(self.port, **({"path": path + (f"?version={version}" if version else "")} | changes))

    async def offered(self, *devices: str, **plan: Any) -> EspIdf:
        """Offer release 2 to devices of this dialect, sign the triggers, and return the first one."""
        await allow(self.web)
        await self.web.release(IMAGE)
        await self.enrol(*(devices or ("d1",)))
        await self.web.roll_out(**plan)
        await self.web.plant.seal()
        return self.device(devices[0] if devices else "d1", OLD)

    async def enrol(self, *devices: str) -> None:
        await enrol(self.web, *devices, dialect="esp-idf")

    async def downloaded(self, name: str = "d1") -> None:
        """Wait until it is on record that every byte went out, which is after the device has them."""
        async with asyncio.timeout(10):
            while await state(self.web, name) != (S.DOWNLOADED, ""):
                await asyncio.sleep(0.001)

    async def judge_silence(self) -> None:
        self.web.plant.clock.advance(86_400)
        await self.web.plant.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, self.web.plant.clock(), 100))


@asynccontextmanager
async def on_bench(web: Site) -> AsyncIterator[Bench]:
    server = HttpServer(web.app, HOST, 0, 100)
    task = asyncio.create_task(server.run())
    try:
        yield Bench(web, server.port, server)  # it listens from the beginning, and accepts once it runs
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def bench(web: Site) -> AsyncIterator[Bench]:
    async with on_bench(web) as found:
        yield found


async def test_nothing_to_do_is_304_and_writes_nothing(bench: Bench) -> None:
    await bench.enrol("d1")
    device = bench.device(version=OLD)
    bench.web.plant.store.transactions = 0
    answer = await device.request("GET")
    assert (answer.status, answer.headers["cache-control"]) == (304, "no-store")
    assert 225 <= int(answer.headers["retry-after"]) <= 300
    assert await device.update() == await device.update(resume=True) == NOT_MODIFIED
    assert await device.update_in_pieces(1000) == NOT_MODIFIED
    assert bench.web.plant.store.transactions == 0


async def test_an_update_in_one_request_is_proven_by_the_version_after_it(bench: Bench) -> None:
    device = await bench.offered()
    assert await device.update() == OK
    assert bytes(device.slot) == IMAGE
    await bench.downloaded()
    rebooted = bench.device(version=NEW)
    assert await rebooted.update() == NOT_MODIFIED
    assert await state(bench.web) == (S.CONFIRMED, "")
    known = await bench.web.plant.store.read(lambda tx: tx.device("d1"))
    assert known is not None
    assert (known.version, known.rel) == (NEW, 2)
    bench.web.plant.store.transactions = 0
    assert await rebooted.update() == NOT_MODIFIED
    assert bench.web.plant.store.transactions == 0


async def test_the_head_of_the_answer_is_exact(bench: Bench) -> None:
    device = await bench.offered()
    answer = await device.request("GET")
    assert answer.headers["content-length"] == str(len(IMAGE))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["ota-attempt"] == "1.1"
    head = await device.request("HEAD")
    assert (head.status, head.headers["content-length"], head.headers["etag"]) == (
        200,
        str(len(IMAGE)),
        answer.headers["etag"],
    )
    held = replace(device, added={"If-None-Match": answer.headers["etag"]})
    assert await held.update() == NOT_MODIFIED


async def test_who_only_reads_the_description_has_not_failed(bench: Bench) -> None:
    device = await bench.offered()
    assert (await device.request("GET", "bytes=0-1023")).body == IMAGE[:1024]
    assert (await device.request("GET", "bytes=0-0")).body == IMAGE[:1]
    assert (await device.request("HEAD")).status == 200
    assert await state(bench.web) == (S.OFFERED, "")
    assert await device.look() == IMAGE[:1024]
    await bench.idle()
    assert await state(bench.web) == (S.ACCEPTED, "")
    assert await device.update() == OK
    await bench.device(version=NEW).update()
    assert await state(bench.web) == (S.CONFIRMED, "")


async def test_who_only_reads_the_description_takes_nobodys_turn(tmp_path: Path) -> None:
    async with site(tmp_path, turns=Turns(1)) as web, on_bench(web) as bench:
        await bench.offered("d1", "d2")
        sites = [{"id": name, "site": "north"} for name in ("d1", "d2")]
        assert (await web.ops("POST", "/devices/facts", {"devices": sites})).status_code == 200
        one, other = bench.device("d1", OLD), bench.device("d2", OLD)
        assert (await one.request("GET", "bytes=0-1023")).status == 206
        assert await other.update(stop_at=2000) == IN_PROGRESS
        assert (await one.request("GET", "bytes=0-1023")).status == 206
        assert (await one.request("GET")).status == 503
        assert await other.update() == OK
        await bench.idle()
        assert await one.update() == OK


async def test_who_gets_no_bytes_keeps_no_turn(tmp_path: Path) -> None:
    async with site(tmp_path, turns=Turns(1)) as web, on_bench(web) as bench:
        await bench.offered("d1", "d2")
        sites = [{"id": name, "site": "north"} for name in ("d1", "d2")]
        assert (await web.ops("POST", "/devices/facts", {"devices": sites})).status_code == 200
        one, other = bench.device("d1", OLD), bench.device("d2", OLD)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(web.plant.recorder, "submit", busy)
            assert (await one.request("GET")).status == 503
        assert await other.update() == OK


async def busy(_: object) -> None:
    raise UnavailableError("too many reports are waiting; try again later", code="busy")


async def test_what_was_cut_off_is_resumed(bench: Bench) -> None:
    device = await bench.offered()
    assert await device.update(resume=True, stop_at=2000) == IN_PROGRESS
    assert await device.update(resume=True) == OK
    assert bytes(device.slot) == IMAGE
    assert device.answers == [206, 206]
    await bench.downloaded()


async def test_what_another_image_left_is_not_resumed(bench: Bench) -> None:
    device = await bench.offered()
    device.slot += b"another image" * 10
    assert await device.update(resume=True) == OK
    assert device.answers == [416, 206]
    assert bytes(device.slot) == IMAGE


async def test_a_mark_lets_a_device_resume_what_it_began_before(bench: Bench) -> None:
    device = await bench.offered()
    mark = (await device.request("HEAD")).headers["etag"]
    device.slot += IMAGE[:3000]
    device.added["If-Range"] = mark
    assert await device.update(resume=True) == OK
    assert bytes(device.slot) == IMAGE
    device.slot[:] = b"x" * 3000
    device.added["If-Range"] = '"another"'
    assert await device.update(resume=True) == OK
    assert bytes(device.slot) == IMAGE


@pytest.mark.parametrize("head", [True, False])
async def test_an_update_in_pieces(bench: Bench, head: bool) -> None:
    device = await bench.offered()
    assert await device.update_in_pieces(2000, head=head, stop_after=1) == IN_PROGRESS
    assert await state(bench.web) == (S.ACCEPTED, "")
    assert await device.update_in_pieces(2000, head=head) == OK
    assert bytes(device.slot) == IMAGE
    await bench.downloaded()


async def test_a_halt_ends_what_is_under_way(bench: Bench) -> None:
    device = await bench.offered()
    assert await device.update(resume=True, stop_at=2000) == IN_PROGRESS
    await bench.web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    assert await device.update(resume=True) == NOT_MODIFIED
    await bench.web.plant.seal()
    assert await device.update(resume=True) == NOT_MODIFIED
    assert await state(bench.web) == (S.RECALLED, "")


async def test_who_has_all_bytes_may_run_them_when_it_is_recalled(bench: Bench) -> None:
    device = await bench.offered()
    assert await device.update() == OK
    await bench.downloaded()
    await bench.web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    await bench.web.plant.seal()
    silent = bench.device()
    assert await silent.update() == NOT_MODIFIED
    assert await state(bench.web) == (S.RECALLING, "")
    assert await bench.device(version=NEW).update() == NOT_MODIFIED
    assert (await state(bench.web))[0] is S.CONFIRMED


async def test_an_old_version_after_the_download_is_judged_at_the_deadline(bench: Bench) -> None:
    device = await bench.offered()
    await device.update()
    await bench.downloaded()
    await device.request("HEAD")
    assert await state(bench.web) == (S.DOWNLOADED, "never_ran")
    await bench.judge_silence()
    assert await state(bench.web) == (S.FAILED, "never_ran")


async def test_a_trial_is_running_until_the_application_is_kept(bench: Bench) -> None:
    await (await bench.offered()).update()
    trial = bench.device(added={"X-Esp-App-Version": NEW, "X-Esp-App-State": "pending_verify"})
    assert await trial.update() == NOT_MODIFIED
    assert await state(bench.web) == (S.RUNNING, "")
    trial.added["X-Esp-App-State"] = "valid"
    assert await trial.update() == NOT_MODIFIED
    assert await state(bench.web) == (S.CONFIRMED, "")


async def test_a_trial_that_ends_on_the_old_version_was_rolled_back(bench: Bench) -> None:
    device = await bench.offered()
    await device.update()
    await bench.downloaded()
    await bench.device(version=f"{NEW}&state=pending_verify").update()
    assert await device.update() == NOT_MODIFIED
    await bench.judge_silence()
    assert await state(bench.web) == (S.ROLLED_BACK, "ran_it")


async def test_a_device_on_trial_is_offered_nothing(bench: Bench) -> None:
    await bench.offered()
    assert await bench.device(version=f"{OLD}&state=pending_verify").update() == NOT_MODIFIED
    assert await state(bench.web) == (S.OFFERED, "")


async def test_every_way_to_log_in(bench: Bench) -> None:
    device = await bench.offered("d1", "d2")
    token = bench.web.tokens["d1"]
    for login_, added in (
        (("d1", token), {}),
        (("", token), {}),
        (None, {"Authorization": f"Bearer {token}"}),
        (None, {"Authorization": "Basic " + b64encode(f"d1:{token}".encode()).decode()}),
    ):
        known = replace(device, path="/ota/esp-idf", login=login_, added=added, answers=[])
        assert await known.update_in_pieces(4000) == OK
        assert known.answers[0] == (401 if login_ else 200)
    for login_ in (("d2", token), ("d1", token + "x"), ("d1", "")):
        assert await replace(device, path="/ota/esp-idf", login=login_).update() == FAIL
    for path in ("/ota/esp-idf", "/ota/esp-idf/otad_unknown", f"/ota/esp-idf/{token}/x", f"/ota/esp-idf/{'x' * 5000}"):
        assert await replace(device, path=path).update() == FAIL


async def test_another_dialect_is_refused(bench: Bench) -> None:
    await bench.offered()
    await bench.web.enrol("d2")
    assert (await bench.device("d2").request("GET")).status == 403


async def test_an_image_that_it_does_not_enforce_is_not_given(bench: Bench) -> None:
    await bench.offered()
    await allow(bench.web, "")
    assert await bench.device(version=OLD).update() == NOT_MODIFIED
    assert await state(bench.web) == (S.OFFERED, "")


async def test_two_devices_get_what_is_theirs(bench: Bench) -> None:
    await bench.offered("d1", "d2")
    await bench.enrol("d3")
    assert await bench.device("d3", OLD).update() == NOT_MODIFIED
    assert await bench.device("d2", OLD).update() == OK
    assert await state(bench.web, "d1") == (S.OFFERED, "")
    await bench.downloaded("d2")


@pytest.mark.parametrize("follows", [True, False])
async def test_only_who_follows_is_sent_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    async def nowhere(*_: Any) -> None:
        return None

    async def place(*_: Any, valid_s: int) -> str:
        return f"https://bucket.example.net/fw.bin?valid={valid_s}"

    async with site(tmp_path, esp_idf_follows=follows) as web, on_bench(web) as bench:
        device = await bench.offered()
        monkeypatch.setattr(FileSource, "local_path", nowhere)
        monkeypatch.setattr(FileSource, "download_url", place)
        answer = await device.request("GET")
        if not follows:
            assert (answer.status, answer.body) == (200, IMAGE)
            await bench.downloaded()
            return
        assert answer.headers["location"] == "https://bucket.example.net/fw.bin?valid=900"
        assert await state(web) == (S.ACCEPTED, "")
        await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
        await web.plant.seal()
        assert await bench.device().update() == NOT_MODIFIED
        assert await state(web) == (S.RECALLING, ""), "it may have every byte from there"
        assert await device.update() == NOT_MODIFIED
        assert await state(web) == (S.RECALLED, "")


async def test_a_token_in_the_path_is_never_logged(tmp_path: Path) -> None:
    faults: list[Exception] = []

    def now() -> float:
        if faults:
            raise faults[0]
        return 0.0

    async with site(tmp_path, now=now) as web, on_bench(web) as bench:
        await bench.enrol("d1")
        faults.append(RuntimeError("a bug of ours"))
        with capture_logs() as logs:
            answer = await bench.device(version=OLD).request("GET")
        assert answer.status == 500
        assert [line["path"] for line in logs if line["event"] == "request.failed"] == ["/ota/esp-idf"]
        assert web.tokens["d1"] not in repr(logs)
        assert web.tokens["d1"].encode() not in answer.body


@pytest.mark.parametrize(
    "query", ["version=%00", "version=" + "9" * 65, "version=1&version=2", "state=fine", "version=%20x"]
)
async def test_what_cannot_be_is_refused(bench: Bench, query: str) -> None:
    await bench.enrol("d1")
    assert (await bench.device(version=f"{OLD}&{query}").request("GET")).status == 400


def asked(query: bytes, headers: list[tuple[bytes, bytes]]) -> Request:
    return Request({"type": "http", "query_string": query, "headers": headers})


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.sampled_from([b"x-esp-app-version", b"x-esp-app-state"]), st.binary())),
)
def test_any_words_are_read_or_refused(query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    try:
        said = said_in(asked(query, headers))
    except PayloadError:
        return
    assert len(said.version) <= 64
    assert said.version.isprintable()


@given(st.text("abc.0123456789-", min_size=1, max_size=64), st.sampled_from(AppState))
def test_words_mean_the_same_in_query_and_header(version: str, word: AppState) -> None:
    in_query = said_in(asked(f"version={version}&state={word}".encode(), []))
    in_headers = said_in(asked(b"", [(b"x-esp-app-version", version.encode()), (b"x-esp-app-state", word.encode())]))
    assert in_query == in_headers == Said(version, word is AppState.PENDING_VERIFY)


@given(st.text())
def test_any_login_is_read(text: str) -> None:
    assert len(login(text)) == 2


@given(st.text("abc-", max_size=20), st.text("abc:_0", max_size=60))
def test_a_login_is_name_and_token(name: str, token: str) -> None:
    assert login("Basic " + b64encode(f"{name}:{token}".encode()).decode()) == (name, token)


@given(st.text(max_size=64), st.floats(1, 86_400), st.floats(0, 1e10))
def test_nobody_waits_longer_than_is_said_nor_much_shorter(name: str, every_s: float, now: float) -> None:
    assert max(1, int(every_s * (1 - SPREAD))) <= pause(name, every_s, now) <= every_s


def test_devices_that_came_together_do_not_come_together_again() -> None:
    pauses = [pause(f"d{at}", 300, 1e9) for at in range(1000)]
    assert len(set(pauses)) > 50
    assert pauses != [pause(f"d{at}", 300, 1e9 + 300) for at in range(1000)]
