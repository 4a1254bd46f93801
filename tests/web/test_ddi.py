"""hawkBit's API for devices: the contract, and the traps that its clients set."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.reports.recording import record_silence
from orchestrator.errors import PayloadError
from orchestrator.ports import Lane, Tx
from orchestrator.web.context import DdiSettings
from orchestrator.web.dialects import ddi_documents, ddi_feedback, handing
from orchestrator.web.downloads import artifact_response
from tests.support.factory import make_artifact
from tests.web.ddi_client import IMAGE, PUBLIC, RAUC, SWUPDATE, VERSION, Client, allow, enrol, offered, recall, state
from tests.web.site import Site, problem, site

S = UpdateState


async def test_nothing_to_do_is_200_with_a_pause_and_writes_nothing(web: Site) -> None:
    await enrol(web, "d1")
    web.plant.store.transactions = 0
    answer = await Client(web).call("GET")
    assert (answer.status_code, answer.json()) == (200, {"config": {"polling": {"sleep": "00:05:00"}}})
    assert answer.headers["cache-control"] == "no-store"
    assert web.plant.store.transactions == 0


async def test_a_deployment_holds_what_every_client_reads(web: Site) -> None:
    client = await offered(web)
    assert (await client.poll()) == {"deploymentBase": f"{PUBLIC}/DEFAULT/controller/v1/d1/deploymentBase/1?c=1"}
    link = {"href": f"{PUBLIC}/DEFAULT/controller/v1/d1/softwaremodules/1/artifacts/radio-2.0.0.bin"}
    hashes = {name: hashlib.new(name, IMAGE).hexdigest() for name in ("sha1", "md5", "sha256")}
    artifact = {"filename": "radio-2.0.0.bin", "hashes": hashes, "size": len(IMAGE)}
    artifact["_links"] = {"download": link, "download-http": link}
    chunk = {"part": "bApp", "version": "2.0.0", "name": "radio", "artifacts": [artifact]}
    assert await client.deployment() == {
        "id": "1",
        "deployment": {"download": "forced", "update": "forced", "chunks": [chunk]},
    }
    answer = await client.call("GET", "/deploymentBase/1")
    assert len(answer.content) <= 1100
    assert b": " not in answer.content


async def test_every_accept_header_is_answered(web: Site) -> None:
    await enrol(web, "d1")
    for accept, given_ in (
        ("application/json;charset=UTF-8", "application/json"),
        ("application/hal+json", "application/hal+json"),
        ("application/octet-stream", "application/json"),
        ("*/*", "application/json"),
        ("nonsense", "application/json"),
    ):
        answer = await Client(web).call("GET", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, given_)


async def test_a_client_that_closes_after_its_reboot_is_done_then(web: Site) -> None:
    client = await offered(web)
    href = await client.artifact()
    assert await state(web) == (S.OFFERED, "")
    assert (await client.follow(href, "HEAD")).headers["content-length"] == str(len(IMAGE))
    assert await state(web) == (S.OFFERED, "")
    assert (await client.follow(href)).content == IMAGE
    assert await state(web) == (S.ACCEPTED, "")
    assert await client.say("proceeding", "none", "Installation successful") == 200
    assert await client.say("proceeding", "none", "All Chunks Installed.") == 200
    assert await state(web) == (S.INSTALLED, "")
    assert "deploymentBase" in await client.poll()
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.CONFIRMED, "")
    device = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert device is not None
    assert (device.version, device.rel) == ("", 2)  # nobody has said the version
    assert list(await client.poll()) == ["configData"]
    assert await client.say("closed", "success") == 200
    assert (await client.call("GET", "/installedBase/1")).json()["id"] == "1"


async def test_a_client_that_closes_before_its_reboot_has_still_to_prove_it(web: Site) -> None:
    client = replace(await offered(web), agent=RAUC)
    await client.deployment()
    assert await client.say("proceeding", "none", "Checking bundle") == 200
    assert await client.say("closed", "success", "Software bundle installed successfully.") == 200
    assert await state(web) == (S.INSTALLED, "")
    assert await client.poll() == {"configData": f"{PUBLIC}/DEFAULT/controller/v1/d1/configData"}
    assert (await client.call("GET", "/deploymentBase/1")).status_code == 404
    assert await client.attributes(version="1.0.0", product="x") == 200
    assert await state(web) == (S.INSTALLED, "never_ran")
    assert await client.attributes(version=VERSION) == 200
    assert await state(web) == (S.CONFIRMED, "")
    assert await client.poll() == {}


async def test_success_that_is_never_proven_is_none(web: Site) -> None:
    client = replace(await offered(web), agent=RAUC)
    await client.follow(await client.artifact())
    await client.say("closed", "none")
    await client.attributes(version="1.0.0")
    web.plant.clock.advance(86_400)
    await web.plant.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, web.plant.clock(), 100))
    assert await state(web) == (S.FAILED, "never_ran")


@pytest.mark.parametrize("agent", [SWUPDATE, RAUC])
async def test_success_of_what_was_never_begun_is_none(web: Site, agent: str) -> None:
    client = replace(await offered(web), agent=agent)
    await client.deployment()
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.OFFERED, "")
    assert "deploymentBase" in await client.poll()


async def swupdate_that_installed(web: Site) -> Client:
    client = await offered(web)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.")
    return client


async def registered(web: Site) -> tuple[str, int]:
    device = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert device is not None
    return device.version, device.rel


async def test_success_against_the_version_that_the_device_says_is_none(web: Site) -> None:
    client = await swupdate_that_installed(web)
    await client.attributes(version="1.0.0")
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.INSTALLED, "never_ran")
    assert await registered(web) == ("1.0.0", 1)
    assert list(await client.poll()) == ["configData"]
    web.plant.clock.advance(86_400)
    await web.plant.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, web.plant.clock(), 100))
    assert await state(web) == (S.FAILED, "never_ran")


async def test_success_too_early_is_believed_once_the_version_is_shown(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.INSTALLED, "")
    assert await registered(web) == ("1.0.0", 1)
    await client.attributes(version=VERSION)
    assert await state(web) == (S.CONFIRMED, "")
    assert await registered(web) == (VERSION, 2)


async def test_success_after_the_version_of_the_release_was_said_is_believed(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await client.attributes(version=VERSION)
    assert await state(web) == (S.ACCEPTED, "")
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.CONFIRMED, "")
    assert await registered(web) == (VERSION, 2)


async def test_the_old_version_after_success_is_a_relapse(web: Site) -> None:
    client = await swupdate_that_installed(web)
    await client.say("closed", "success")
    assert await state(web) == (S.CONFIRMED, "")
    await client.attributes(version="1.0.0")
    assert await state(web) == (S.FAILED, "drifted")
    assert await registered(web) == ("1.0.0", 1)


async def test_a_device_of_which_nothing_was_known_says_another_version_after_its_reboot(web: Site) -> None:
    await allow(web)
    await web.release(IMAGE)
    await enrol(web, "d1", version="", rel=0)
    await web.roll_out()
    await web.plant.seal()
    client = Client(web)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.")
    await client.attributes(version="0.9.0")
    await client.say("closed", "success")
    assert (await state(web))[0] is S.INSTALLED
    assert await registered(web) == ("0.9.0", 0)


async def test_success_that_comes_after_the_deadline_still_says_what_runs(web: Site) -> None:
    client = await swupdate_that_installed(web)
    web.plant.clock.advance(86_400)
    await web.plant.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, web.plant.clock(), 100))
    await client.say("closed", "success")
    assert await state(web) == (S.LOST, "")
    assert await registered(web) == ("", 2)


async def test_another_version_attribute_may_be_named(tmp_path: Path) -> None:
    async with site(tmp_path, ddi=DdiSettings(version_attribute="os")) as web:
        await enrol(web, "d1")
        assert await Client(web).attributes(version="9", os="1.5.0") == 200
        device = await web.plant.store.read(lambda tx: tx.device("d1"))
        assert device is not None
        assert (device.version, device.rel) == ("1.5.0", 0)  # another one than it ran, and nobody's release


async def test_attributes_are_asked_for_once_in_a_while(web: Site) -> None:
    await enrol(web, "d1", version="", rel=0)
    client = Client(web, agent=RAUC)
    assert "configData" in await client.poll()
    assert await client.poll() == {}
    web.plant.clock.advance(3601)
    assert "configData" in await client.poll()
    answer = await client.call("PUT", "/configData", json={"mode": None, "data": {"version": "1.0.0"}})
    assert (answer.status_code, answer.content) == (200, b"")
    web.plant.clock.advance(3601)
    assert await client.poll() == {}
    web.plant.store.transactions = 0
    await client.attributes(version="1.0.0")
    assert web.plant.store.transactions == 0
    assert (await client.call("PUT", "/installedBase", json={"name": "radio", "version": "1.1.0"})).status_code == 200
    device = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert device is not None
    assert device.version == "1.1.0"


@pytest.mark.parametrize(
    ("agent", "before", "code"),
    [
        (RAUC, "proceeding", (S.FAILED, "install_failed")),
        (SWUPDATE, "proceeding", (S.FAILED, "install_failed")),
        (SWUPDATE, "installed", (S.ROLLED_BACK, "install_failed")),
    ],
)
async def test_a_failure_is_one(web: Site, agent: str, before: str, code: tuple[S, str]) -> None:
    client = replace(await offered(web), agent=agent)
    await client.deployment()
    await client.say("proceeding", "none", "All Chunks Installed." if before == "installed" else "x")
    assert await client.say("closed", "failure", "ERROR : <new> \x00 Image does not fit", "two") == 200
    assert await state(web) == code
    [line] = [line for line in await web.plant.store.read(lambda tx: tx.lines(1)) if line.kind in code[0]]
    assert line.text == "ERROR : <new> Image does not fit / two"
    assert await client.poll() == {}


async def test_a_failure_before_anything_began_is_none_of_the_release(web: Site) -> None:
    client = await offered(web, "d1", "d2")
    other = replace(client, device="d2", agent=RAUC)
    [mine] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    [theirs] = await web.plant.store.read(lambda tx: tx.updates_of(["d2"]))
    await client.poll()
    await other.poll()
    assert await client.say("closed", "failure", "an old story", number=mine.id) == 200
    assert await other.say("closed", "failure", "no room for the file", number=theirs.id) == 200
    assert (await state(web), await state(web, "d2")) == ((S.OFFERED, ""), (S.REFUSED, "install_failed"))
    assert "deploymentBase" in await client.poll()


async def test_nothing_is_handed_to_a_device_that_came_into_quarantine_before_it_began(web: Site) -> None:
    client = await offered(web, "d1", "d2")
    other = replace(client, device="d2")
    href, begun = await client.artifact(), await other.artifact()
    await other.follow(begun)
    answer = await web.ops("POST", "/devices/quarantine", {"devices": ["d1", "d2"], "reason": "bad"})
    assert answer.status_code == 200
    assert await client.poll() == {}
    assert (await client.follow(href)).status_code == 404
    assert await state(web) == (S.OFFERED, "")
    assert (await other.follow(begun)).content == IMAGE  # what it has begun goes on


async def test_who_runs_the_release_already_is_not_waited_for(web: Site) -> None:
    client = await offered(web)
    await client.poll()
    assert await client.attributes(version=VERSION) == 200
    assert await state(web) == (S.SUPERSEDED, "current")
    assert await client.poll() == {}
    told = (await web.ops("GET", "/devices/d1/explain")).json()["rollouts"]
    assert "it runs the release, or a later one" in json.dumps(told)


async def test_an_artifact_that_cannot_be_named_is_logged_once(web: Site) -> None:
    client = await offered(web, "d1", "d2")
    other = replace(client, device="d2")

    def forgets(tx: Tx) -> None:
        [known] = tx.artifacts()
        tx.restate(replace(known, sha1=""))

    await web.plant.store.transact(Lane.OPERATOR, forgets)
    with capture_logs() as logs:
        for _ in range(3):
            assert await client.poll() == {}
            assert await other.poll() == {}
    assert [entry["event"] for entry in logs].count("ddi.not_offered") == 1


async def test_a_recall_is_answered(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await recall(web)
    [(name, href)] = (await client.poll()).items()
    assert (name, href) == ("cancelAction", f"{PUBLIC}/DEFAULT/controller/v1/d1/cancelAction/1")
    assert (await client.follow(href)).json() == {"id": "1", "cancelAction": {"stopId": "1"}}
    assert (await client.call("GET", "/deploymentBase/1")).status_code == 404
    assert (await client.call("GET", "/softwaremodules/1/artifacts/radio-2.0.0.bin")).status_code == 404
    assert await client.say("proceeding", to="cancelAction") == 200
    assert await state(web) == (S.RECALLING, "")
    assert await client.say("closed", "success", to="cancelAction") == 200
    assert await state(web) == (S.RECALLED, "")
    assert await client.poll() == {}


async def test_a_device_that_was_recalled_is_heard_when_it_is_offered_the_release_again(web: Site) -> None:
    client = await offered(web)
    rollout = await web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    await client.follow(await client.artifact())
    await recall(web)
    await client.poll()
    await client.say("closed", "success", to="cancelAction")
    assert await state(web) == (S.RECALLED, "")
    await web.plant.command(rollout, Command.RESUME)
    await web.plant.advance(rollout)
    await web.plant.seal()
    await client.follow(await client.artifact())
    assert await state(web) == (S.ACCEPTED, "")
    await recall(web)
    await client.poll()
    await client.say("closed", "success", to="cancelAction")
    assert await state(web) == (S.RECALLED, "")


@pytest.mark.parametrize(
    ("to", "execution", "finished", "means"),
    [
        ("cancelAction", "canceled", "none", S.RECALLED),
        ("cancelAction", "rejected", "success", S.TOO_LATE),
        ("cancelAction", "closed", "failure", S.TOO_LATE),
        ("deploymentBase", "canceled", "success", S.RECALLED),
        ("deploymentBase", "closed", "success", S.INSTALLED),
        ("deploymentBase", "rejected", "none", S.RECALLING),
    ],
)
async def test_a_recall_may_be_too_late(web: Site, to: str, execution: str, finished: str, means: S) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await recall(web)
    await client.poll()
    assert await client.say(execution, finished, to=to) == 200
    assert (await state(web))[0] is means


async def test_a_recall_that_nobody_asked_for_is_not_believed(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    assert await client.say("closed", "success", to="cancelAction") == 200
    assert await state(web) == (S.ACCEPTED, "")
    assert (await client.call("GET", "/cancelAction/1")).status_code == 404


async def test_a_device_that_gives_up_by_itself_failed_once_it_had_begun(web: Site) -> None:
    client = await offered(web, "d1", "d2")
    other = replace(client, device="d2")
    await client.follow(await client.artifact())
    await other.poll()
    [mine] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    [theirs] = await web.plant.store.read(lambda tx: tx.updates_of(["d2"]))
    assert await client.say("canceled", number=mine.id) == 200
    assert await other.say("canceled", number=theirs.id) == 200
    assert (await state(web), await state(web, "d2")) == ((S.FAILED, "canceled"), (S.REFUSED, "canceled"))


async def test_late_words_about_anything_are_taken(web: Site) -> None:
    client = await offered(web)
    for number in ("1", "7", "0", "2147483648", "9" * 5000, "-1", "abc", "1.5"):
        body = {"status": {"execution": "closed", "result": {"finished": "success"}}}
        answer = await client.call("POST", f"/deploymentBase/{number}/feedback", json=body)
        assert answer.status_code == 200, number
        answer = await client.call("POST", f"/cancelAction/{number}/feedback", json=body)
        assert answer.status_code == 200, number
        if number != "1":
            for path in ("deploymentBase", "cancelAction", "installedBase"):
                assert (await client.call("GET", f"/{path}/{number}")).status_code == 404, number


async def test_a_feedback_before_anything_was_given_means_nothing(web: Site) -> None:
    await allow(web)
    await web.release(IMAGE)
    await enrol(web, "d1")
    await web.roll_out()  # planned, and not signed
    client = Client(web)
    assert await client.poll() == {}
    assert (await client.call("GET", "/softwaremodules/1/artifacts/radio-2.0.0.bin")).status_code == 404
    assert (await client.call("GET", "/deploymentBase/1")).status_code == 404


async def test_a_poll_before_the_trigger_is_signed_comes_back_soon(web: Site) -> None:
    await allow(web)
    await web.release(IMAGE)
    await enrol(web, "d1")
    await web.roll_out()
    assert (await Client(web).call("GET")).json() == {"config": {"polling": {"sleep": "00:00:02"}}}


async def test_a_device_that_has_begun_is_told_on_after_its_trigger_has_expired(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.")
    web.plant.clock.advance(web.plant.settings.lifetime_s + 1)
    assert "deploymentBase" in await client.poll()
    assert await client.say("closed", "success") == 200
    assert await state(web) == (S.CONFIRMED, "")


async def test_polls_of_a_device_on_its_way_write_nothing(web: Site) -> None:
    client = await offered(web)
    href = await client.artifact()
    await client.follow(href)
    web.plant.store.transactions = 0
    await client.poll()
    await client.deployment()
    await client.follow(href, headers={"Range": "bytes=10-"})
    await client.say("proceeding", "none", "still at it")
    assert web.plant.store.transactions == 0


async def test_progress_moves_a_number_and_keeps_no_lines(web: Site) -> None:
    client = await offered(web)
    await client.deployment()
    body: dict[str, Any] = {"status": {"execution": "proceeding", "result": {"finished": "none"}}}
    for percent in (10, 55, 40, True, -1, 1000, None, "60"):
        body["status"]["result"]["progress"] = {"percentage": percent}
        assert (await client.call("POST", "/deploymentBase/1/feedback", json=body)).status_code == 200
    for text in range(30):
        assert await client.say("proceeding", "none", f"line {text}", "x" * 5000) == 200
    [update] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    assert (update.state, update.progress) == (S.ACCEPTED, 55)
    assert len(await web.plant.store.read(lambda tx: tx.lines(1))) <= 1


async def test_downloads_have_ranges(web: Site) -> None:
    client = await offered(web)
    href = await client.artifact()
    size = len(IMAGE)
    part = await client.follow(href, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, IMAGE[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{size}"
    etag = part.headers["etag"]
    rest = await client.follow(href, headers={"Range": "bytes=5000-"})
    assert (rest.status_code, rest.content) == (206, IMAGE[5000:])
    assert (await client.follow(href, headers={"Range": "bytes=-20"})).content == IMAGE[-20:]
    many = await client.follow(href, headers={"Range": "bytes=0-9,50-59"})
    assert many.status_code == 206
    assert many.headers["content-type"].startswith("multipart/byteranges")
    assert IMAGE[50:60] in many.content
    for beyond in (f"bytes={size}-", "bytes=9000-9100"):
        over = await client.follow(href, headers={"Range": beyond})
        assert (over.status_code, over.headers["content-range"]) in ((416, f"*/{size}"), (416, f"bytes */{size}"))
    same = await client.follow(href, headers={"Range": "bytes=0-1", "If-Range": etag})
    other = await client.follow(href, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status_code, other.status_code, other.content) == (206, 200, IMAGE)
    md5 = await client.follow(f"{href}.MD5SUM")
    assert md5.text == f"{hashlib.md5(IMAGE).hexdigest()}  radio-2.0.0.bin\n"
    assert (await client.follow(href.replace("radio-2", "radio-3"))).status_code == 404


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Range", "bytes=", 200),
        ("Range", "bytes=a-b", 200),
        ("Range", "bytes=5-1", 200),
        ("Range", "bytes=-", 200),
        ("Range", "items=0-1", 200),
        ("Range", "bytes=0-" + "9" * 400, 206),
        ("Range", "bytes=-" + "9" * 400, 206),
        ("Range", "bytes=" + ",".join(["0-0"] * 500), 200),
        ("Range", "bytes=" + "9" * 5000 + "-", 416),
        ("If-Range", '"', 200),
        ("Accept", "x" * 5000, 200),
        ("User-Agent", "libcurl-agent/" + "x" * 5000, 200),
    ],
)
async def test_a_hostile_header_gets_an_answer_and_never_more(web: Site, name: str, value: str, status: int) -> None:
    client = await offered(web)
    answer = await client.follow(await client.artifact(), headers={name: value})
    assert (answer.status_code, len(answer.content) <= len(IMAGE)) == (status, True)


async def test_only_the_device_itself_sees_its_things(web: Site) -> None:
    client = await offered(web, "d1", "d2", delivery="poll")
    other = replace(client, device="d2")
    [mine] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    await client.poll()
    await other.poll()
    name = "radio-2.0.0.bin"
    for path in (f"/deploymentBase/{mine.id}", f"/installedBase/{mine.id}", f"/cancelAction/{mine.id}"):
        assert (await other.call("GET", path)).status_code == 404
    assert (await other.call("GET", f"/softwaremodules/{mine.id}/artifacts/{name}")).status_code == 404
    for execution, finished in (("closed", "success"), ("closed", "failure"), ("canceled", "none")):
        assert await other.say(execution, finished, number=mine.id) == 200
        assert await other.say(execution, finished, number=mine.id, to="cancelAction") == 200
    assert await state(web) == (S.OFFERED, "")
    stolen = replace(client, token=f"TargetToken {web.tokens['d2']}")
    for method, path in (
        ("GET", ""),
        ("PUT", "/configData"),
        ("GET", f"/deploymentBase/{mine.id}"),
        ("POST", f"/deploymentBase/{mine.id}/feedback"),
        ("GET", f"/softwaremodules/{mine.id}/artifacts/{name}"),
        ("HEAD", f"/softwaremodules/{mine.id}/artifacts/{name}"),
    ):
        assert (await stolen.call(method, path)).status_code == 401


async def test_who_is_not_known_learns_nothing(web: Site) -> None:
    await enrol(web, "d1")
    token = web.tokens["d1"]
    for login in (
        "TargetToken",
        "TargetToken ",
        "TargetToken wrong",
        f"Bearer {token}",
        f"GatewayToken {token}",
        "GatewayToken ",
        f"TargetToken {token}{'x' * 200}",
    ):
        answer = await Client(web, token=login).call("GET")
        assert problem(answer) == (401, "unauthorised"), login
    raw = await web.http.get("/DEFAULT/controller/v1/d1", headers=[(b"Authorization", b"TargetToken \xff\x00")])
    assert problem(raw) == (401, "unauthorised")
    assert (await Client(web, tenant="default").call("GET")).status_code == 200
    assert (await Client(web, tenant="other").call("GET")).status_code == 404
    assert (await Client(web, token=f"targettoken  {token}").call("GET")).status_code == 200


async def test_a_gateway_speaks_for_all_where_that_is_configured(tmp_path: Path) -> None:
    async with site(tmp_path, ddi=DdiSettings(gateway_token="of the gateway")) as web:
        await enrol(web, "d1")
        await web.enrol("native")
        assert (await Client(web, token="GatewayToken of the gateway").call("GET")).status_code == 200
        assert (await Client(web, token="GatewayToken of the gatewax").call("GET")).status_code == 401
        assert (await Client(web, "unknown", token="GatewayToken of the gateway").call("GET")).status_code == 401
        answer = await Client(web, "native", token="GatewayToken of the gateway").call("GET")
        assert problem(answer) == (403, "other_dialect")


@pytest.mark.parametrize("agent", [SWUPDATE, RAUC])
async def test_who_goes_back_to_a_version_of_no_artifact_has_left_the_release(web: Site, agent: str) -> None:
    client = replace(await offered(web, stages=[{"devices": "rest", "soak": "1h"}]), agent=agent)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.")
    words = [client.attributes(version=VERSION), client.say("closed", "success")]
    for word in words if agent == SWUPDATE else reversed(words):
        await word
    assert await state(web) == (S.CONFIRMED, "")
    await client.attributes(version="1.0.0")
    assert await state(web) == (S.FAILED, "drifted")
    known = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert known is not None
    assert (known.version, known.rel) == ("1.0.0", 1)
    await client.attributes(version="0.9")
    known = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert known is not None
    assert (known.version, known.rel) == ("0.9", 0)


@pytest.mark.parametrize("before", [True, False])
async def test_a_halt_that_overtakes_a_download_keeps_the_bytes(
    web: Site, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    client = await offered(web)
    link, submit = await client.artifact(), web.plant.recorder.submit

    async def halt() -> None:
        assert (await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})).status_code == 200

    async def late_answer(*args: Any, **more: Any) -> Any:
        answer = await artifact_response(*args, **more)
        await halt()
        return answer

    async def late_word(report: Any) -> None:
        await halt()
        await submit(report)

    if before:
        monkeypatch.setattr(handing, "artifact_response", late_answer)
    else:
        monkeypatch.setattr(web.plant.recorder, "submit", late_word)
    assert problem(await client.follow(link)) == (404, "not_found")
    [update] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    assert (update.state, update.begun) == ((S.RECALLING, False) if before else (S.RECALLED, True))


@pytest.mark.parametrize(("name", "value", "status"), [("If-None-Match", "*", 304), ("Range", "bytes=-0", 416)])
async def test_an_answer_without_bytes_begins_nothing(web: Site, name: str, value: str, status: int) -> None:
    client = await offered(web)
    assert (await client.follow(await client.artifact(), headers={name: value})).status_code == status
    assert await state(web) == (S.OFFERED, "")


async def test_a_device_that_verifies_triggers_is_not_served_here(web: Site) -> None:
    await web.release(IMAGE)
    await web.enrol("d1")
    await web.roll_out()
    await web.plant.seal()
    assert problem(await Client(web).call("GET")) == (403, "other_dialect")


async def test_an_image_that_the_device_cannot_verify_is_never_offered(web: Site) -> None:
    sha256 = await web.release(IMAGE)
    await enrol(web, "d1")
    await enrol(web, "d2", enforces=["swupdate"])
    await web.enrol("native")
    await web.roll_out()
    await web.plant.seal()
    assert await Client(web).poll() == {}
    for device in ("d1", "d2"):
        [item] = (await web.ops("GET", f"/devices/{device}/explain")).json()["rollouts"]
        assert [reason["code"] for reason in item["reasons"]][0] == "unsigned_client"
        assert item["state"] is None
    [native] = (await web.ops("GET", "/devices/native/explain")).json()["rollouts"]
    assert native["state"] == "offered"

    def signed(tx: Tx) -> None:
        known = tx.artifact(sha256)
        assert known is not None
        tx.restate(replace(known, signature="swupdate"))

    await web.plant.store.transact(Lane.OPERATOR, signed)
    [d1] = (await web.ops("GET", "/devices/d1/explain")).json()["rollouts"]
    [d2] = (await web.ops("GET", "/devices/d2/explain")).json()["rollouts"]
    assert d1["reasons"][0]["text"] == (
        "it speaks ddi and verifies no trigger; the image carries the signature swupdate, "
        "and it is not known to enforce any"
    )
    assert "unsigned_client" not in [reason["code"] for reason in d2["reasons"]]


async def test_a_permission_is_on_the_record_and_may_be_taken_back(web: Site) -> None:
    client = await offered(web, delivery="poll")
    [item] = (await web.ops("GET", "/devices/d1/explain")).json()["rollouts"]
    assert item["unsigned_allowed"] == "a test"
    await allow(web, "")
    assert await client.poll() == {}
    assert (await client.call("GET", "/deploymentBase/1")).status_code == 404
    await allow(web)
    entries = (await web.ops("GET", "/audit")).json()
    told = [
        (item["action"], json.loads(item["detail"])["reason"])
        for item in entries
        if "unsigned_clients" in item["action"]
    ]
    assert told == [
        ("unsigned_clients.allowed", "a test"),
        ("unsigned_clients.forbidden", ""),
        ("unsigned_clients.allowed", "a test"),
    ]
    assert "deploymentBase" in await client.poll()


async def test_bytes_are_not_handed_out_once_operators_say_that_nobody_checks_them(web: Site) -> None:
    client = await offered(web)
    href = await client.artifact()
    await client.follow(href)
    await allow(web, "")
    assert (await client.follow(href)).status_code == 404
    assert "deploymentBase" in await client.poll()  # it has begun, and shall say how that ended
    assert await client.say("closed", "failure") == 200
    assert await state(web) == (S.FAILED, "install_failed")


async def test_a_body_that_is_too_large_or_none_is_refused(web: Site) -> None:
    client = await offered(web)
    big = b'{"status":{"execution":"closed","result":{"finished":"none"},"details":["' + b"x" * 300_000 + b'"]}}'
    assert problem(await client.call("POST", "/deploymentBase/1/feedback", content=big)) == (400, "oversize")
    for body in (b"", b"[]", b"{}", b'{"status":{"execution":"dancing","result":{"finished":"none"}}}', b"[" * 100_000):
        assert problem(await client.call("POST", "/deploymentBase/1/feedback", content=body)) == (400, "malformed")
    assert problem(await client.call("PUT", "/configData", content=b"[]")) == (400, "malformed")
    assert problem(await client.call("PUT", "/installedBase", content=b"{}")) == (400, "malformed")
    bad_text = b'{"status":{"execution":"proceeding","result":{"finished":"none"},"details":["\xff\xfe"]}}'
    assert (await client.call("POST", "/deploymentBase/1/feedback", content=bad_text)).status_code == 200


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FEEDBACK = st.fixed_dictionaries(
    {
        "status": st.fixed_dictionaries(
            {
                "execution": st.sampled_from([*ddi_feedback.Execution, "other"]),
                "result": st.fixed_dictionaries({"finished": st.sampled_from(list(ddi_feedback.Finished))})
                | st.fixed_dictionaries({"finished": st.just("none"), "progress": _VALUES}),
            },
            optional={"details": _VALUES, "code": _VALUES},
        )
    },
    optional={"id": _VALUES, "time": _VALUES, "extra": _VALUES},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=_FEEDBACK.map(json.dumps).map(str.encode) | st.binary(max_size=200))
def test_any_body_is_a_feedback_or_refused(body: bytes) -> None:
    try:
        said = ddi_feedback.decode_feedback(body)
    except PayloadError:
        return
    assert len(said.text) <= 512
    assert said.text.isprintable() or "\n" not in said.text
    assert said.percent is None or 0 <= said.percent <= 100


@settings(max_examples=100, deadline=None)
@given(body=_VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=100), name=st.text(max_size=10))
def test_any_body_has_a_version_or_none(body: bytes, name: str) -> None:
    with contextlib.suppress(PayloadError):
        assert len(ddi_feedback.version_in(body, name)) <= 64
    with contextlib.suppress(PayloadError):
        assert len(ddi_feedback.installed_in(body)) <= 64


@given(seconds=st.floats(min_value=-10, max_value=1e9))
def test_a_pause_is_never_nothing_and_never_a_day(seconds: float) -> None:
    text = ddi_documents.sleep(seconds)
    hours, minutes, rest = (int(part) for part in text.split(":"))
    assert len(text) == 8
    assert 1 <= hours * 3600 + minutes * 60 + rest < 86_400
    assert minutes < 60
    assert rest < 60


@given(name=st.text(min_size=1, max_size=80), version=st.text(min_size=1, max_size=80))
def test_a_file_name_needs_no_escape(name: str, version: str) -> None:
    artifact = replace(make_artifact(), name=name, version=version, format="swu")
    found = ddi_documents.file_name(artifact)
    assert found.endswith(".swu")
    assert len(found) <= 64
    assert not set(found) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
