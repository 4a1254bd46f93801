"""The fifteen traps that clients of hawkBit's API set a server, one after the other, and recorded conversations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from orchestrator.core.model import UpdateState
from orchestrator.web.dialects import ddi_documents
from orchestrator.web.dialects.ddi_clients import CLIENTS, OTHER, client_of
from tests.support.factory import make_artifact
from tests.web.ddi_client import IMAGE, PUBLIC, RAUC, SWUPDATE, VERSION, Client, offered, recall, state
from tests.web.site import Site

S = UpdateState
PYTHON = "Python/3.11 aiohttp/3.14.5"


async def test_trap_01_numbers_of_actions_are_positive_31_bit_integers_as_texts(web: Site) -> None:
    client = await offered(web)
    found = await client.deployment()
    assert isinstance(found["id"], str)
    assert 1 <= int(found["id"]) < 2**31
    [update] = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
    artifact = replace(make_artifact(), sha1="0" * 40)
    assert ddi_documents.can_name(update._replace(id=2**31 - 1), artifact)
    assert not ddi_documents.can_name(update._replace(id=2**31), artifact)
    await recall(web)
    found = (await client.follow((await client.poll())["cancelAction"])).json()
    assert (found["id"], found["cancelAction"]["stopId"]) == ("1", "1")


@pytest.mark.parametrize("agent", [SWUPDATE, RAUC, PYTHON])
async def test_trap_02_every_success_is_200(web: Site, agent: str) -> None:
    client = replace(await offered(web), agent=agent)
    body = {"status": {"execution": "proceeding", "result": {"finished": "none"}}}
    for method, path, more in (
        ("GET", "", {}),
        ("GET", "/deploymentBase/1?c=1", {}),
        ("PUT", "/configData", {"json": {"data": {"x": "y"}}}),
        ("PUT", "/installedBase", {"json": {"name": "radio", "version": "1.0.0"}}),
        ("POST", "/deploymentBase/1/feedback", {"json": body}),
        ("POST", "/cancelAction/1/feedback", {"json": body}),
        ("GET", "/confirmationBase", {}),
        ("POST", "/confirmationBase/1/feedback", {"json": {"confirmation": "denied"}}),
        ("POST", "/confirmationBase/activateAutoConfirm", {"json": {}}),
        ("POST", "/confirmationBase/deactivateAutoConfirm", {}),
    ):
        assert (await client.call(method, path, **more)).status_code == 200, path


async def test_trap_03_a_pause_is_always_said_in_hours_minutes_and_seconds(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    for _ in range(2):
        sleep = (await client.call("GET")).json()["config"]["polling"]["sleep"]
        assert (len(sleep), sleep) == (8, "00:05:00")
        await recall(web)


async def test_trap_04_the_link_to_a_recall_has_no_query(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await recall(web)
    [href] = (await client.poll()).values()
    assert "?" not in href
    answer = await client.follow(
        f"{href}/feedback", "POST", json={"status": {"execution": "closed", "result": {"finished": "success"}}}
    )
    assert answer.status_code == 200
    assert await state(web) == (S.RECALLED, "")


async def test_trap_05_both_links_and_all_three_hashes_are_there(web: Site) -> None:
    [chunk] = (await (await offered(web)).deployment())["deployment"]["chunks"]
    [artifact] = chunk["artifacts"]
    assert set(artifact["_links"]) == {"download", "download-http"}
    assert {name: len(text) for name, text in artifact["hashes"].items()} == {"sha1": 40, "md5": 32, "sha256": 64}
    assert all(text == text.lower() for text in artifact["hashes"].values())


async def test_trap_06_downloads_have_ranges_several_of_them_head_and_416(web: Site) -> None:
    client = await offered(web)
    href = await client.artifact()
    assert (await client.follow(href, "HEAD")).headers["content-length"] == str(len(IMAGE))
    assert (await client.follow(href, headers={"Range": "bytes=7-"})).content == IMAGE[7:]
    several = await client.follow(href, headers={"Range": "bytes=0-1,8-9"})
    assert (several.status_code, several.headers["content-type"][:20]) == (206, "multipart/byteranges")
    assert (await client.follow(href, headers={"Range": f"bytes={len(IMAGE)}-"})).status_code == 416


@pytest.mark.parametrize("number", [1, "1", None, {"x": []}])
async def test_trap_07_members_that_are_not_known_and_numbers_of_any_kind_are_taken(web: Site, number: Any) -> None:
    client = await offered(web)
    await client.deployment()
    status = {"execution": "proceeding", "result": {"finished": "none", "x": 1}, "code": "z", "y": None}
    body = {"id": number, "time": "20261121T181000", "timestamp": 17, "status": status, "z": [1]}
    assert (await client.call("POST", "/deploymentBase/1/feedback", json=body)).status_code == 200
    assert await state(web) == (S.ACCEPTED, "")


async def test_trap_08_many_lines_of_any_text_are_taken(web: Site) -> None:
    client = await offered(web)
    await client.deployment()
    lines = [f"<b>{number} \u2028 'x' \" \\ \x1b[31m {{}}</b>" * 40 for number in range(60)]
    assert await client.say("proceeding", "none", *lines) == 200
    assert await client.say("closed", "failure", *lines) == 200
    assert await state(web) == (S.FAILED, "install_failed")


async def test_trap_09_a_deployment_is_shown_until_it_is_closed_and_late_words_are_taken(web: Site) -> None:
    client = await offered(web)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.")
    web.plant.clock.advance(web.plant.settings.lifetime_s + 1)
    assert "deploymentBase" in await client.poll()
    for _ in range(3):
        assert await client.say("closed", "success") == 200
    assert await state(web) == (S.CONFIRMED, "")
    assert await client.say("closed", "failure") == 200
    assert await client.say("closed", "failure", number=77) == 200
    assert await state(web) == (S.CONFIRMED, "")


async def test_trap_10_nobody_is_told_to_skip(web: Site) -> None:
    client = await offered(web)
    assert b"skip" not in (await client.call("GET", "/deploymentBase/1")).content
    await recall(web)
    assert "deploymentBase" not in await client.poll()


async def test_trap_11_who_says_much_is_never_told_that_it_is_too_much(web: Site) -> None:
    client = await offered(web)
    answers = {await client.say("proceeding", "none", f"line {number}") for number in range(120)}
    assert answers == {200}


async def test_trap_12_there_is_one_chunk_with_one_artifact(web: Site) -> None:
    [chunk] = (await (await offered(web)).deployment())["deployment"]["chunks"]
    assert len(chunk["artifacts"]) == 1
    assert all(isinstance(chunk[name], str) and chunk[name] for name in ("part", "version", "name"))


@pytest.mark.parametrize("mode", ["replace", "merge", None, "absent"])
async def test_trap_13_attributes_are_taken_in_every_mode(web: Site, mode: str | None) -> None:
    client = await offered(web)
    body: dict[str, Any] = {
        "id": "",
        "time": "20261121T181000",
        "status": {"execution": "closed"},
        "data": {"version": "1.5.0"},
    }
    body |= {} if mode == "absent" else {"mode": mode}
    answer = await client.call("PUT", "/configData", json=body, headers={"Expect": "100-continue"})
    assert answer.status_code == 200
    device = await web.plant.store.read(lambda tx: tx.device("d1"))
    assert device is not None
    assert device.version == "1.5.0"


@pytest.mark.parametrize("tenant", ["DEFAULT", "default", "Default"])
async def test_trap_14_the_tenant_is_taken_in_any_spelling_and_links_keep_it(web: Site, tenant: str) -> None:
    client = replace(await offered(web), tenant=tenant)
    assert (await client.poll())["deploymentBase"].startswith(f"{PUBLIC}/{tenant}/controller/v1/d1/")
    assert (await client.deployment())["id"] == "1"


def test_trap_15_only_who_survives_it_is_sent_to_another_host() -> None:
    assert [client_of(agent).follows for agent in (SWUPDATE, RAUC, PYTHON)] == [True] * 3
    others = ("", "  ", "Zephyr/3.7", "curl/8", "ESP32HTTPClient")
    assert [client_of(agent).follows for agent in others] == [False] * 5


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (SWUPDATE, "SWUpdate"),
        ("SWUpdate 2026.05", "SWUpdate"),
        ("LIBCURL-AGENT/1.0", "SWUpdate"),
        (RAUC, "rauc-hawkbit-updater"),
        (PYTHON, "rauc-hawkbit"),
        ("", OTHER.name),
        ("x" * 5000, OTHER.name),
        ("Mozilla/5.0 libcurl-agent/1.0", OTHER.name),
    ],
)
def test_a_client_is_known_by_what_it_calls_itself(agent: str, name: str) -> None:
    found = client_of(agent)
    assert (found.name, found.closes_late) == (name, name == "SWUpdate")
    assert all(item.agent == item.agent.lower() and item.agent for item in CLIENTS)


async def said(client: Client, lines: str, *, to: str = "deploymentBase") -> list[int]:
    """Post feedbacks as they were recorded, one a line, and return the statuses."""
    found = []
    for line in lines.strip().splitlines():
        answer: httpx2.Response = await client.call(
            "POST", f"/{to}/1/feedback", content=line.strip(), headers={"Content-Type": "application/json"}
        )
        found.append(answer.status_code)
    return found


async def test_a_recorded_conversation_of_swupdate_completes(web: Site) -> None:
    client = await offered(web)
    assert "deploymentBase" in await client.poll()
    await client.deployment()
    attributes = (
        '{"id":"","time":"20261121T181000","status":{"result":{"finished":"success"},"execution":"closed",'
        '"details":[""]},"data":{"hw_boardname":"board","version":"1.0.0"}}'
    )
    assert (await client.call("PUT", "/configData", content=attributes)).status_code == 200
    href = await client.artifact()
    assert (await client.follow(href, "HEAD")).status_code == 200
    assert (await client.follow(href)).content == IMAGE
    head = '{"id":1,"time":"20261121T181001","status":{"result":{"progress":'
    codes = await said(
        client,
        head
        + '{"cnt":0,"of":1},"finished":"none"},"execution":"proceeding","details":["Processing 1 artifacts."]}}\n'
        + head
        + '{"cnt":0,"of":0},"finished":"none"},"execution":"proceeding","details":["a","b","c"]}}\n'
        + head
        + '{"cnt":1,"of":1},"finished":"none"},"execution":"proceeding","details":["All Chunks Installed."]}}\n',
    )
    assert (codes, await state(web)) == ([200] * 3, (S.INSTALLED, ""))
    await client.poll()
    assert (await client.call("PUT", "/configData", content=attributes.replace("1.0.0", VERSION))).status_code == 200
    assert (await state(web))[0] is S.INSTALLED
    last = '{"cnt":1,"of":1},"finished":"success"},"execution":"closed","details":[""]}}'
    assert await said(client, head + last) == [200]
    assert await state(web) == (S.CONFIRMED, "")


async def test_a_recorded_conversation_of_rauc_hawkbit_completes(web: Site) -> None:
    client = replace(await offered(web), agent=PYTHON)
    links = await client.poll()
    assert "?c=" in links["deploymentBase"]
    [chunk] = (await client.follow(links["deploymentBase"])).json()["deployment"]["chunks"]
    href = chunk["artifacts"][0]["_links"]["download-http"]["href"]
    assert (await client.follow(href, headers={"Accept": "application/octet-stream"})).content == IMAGE
    head = '{"id": "1", "time": "20261121T202940", "status": {"result": {"progress": '
    codes = await said(
        client,
        head
        + '{"percentage": 20}, "finished": "none"}, "execution": "proceeding", "details": ["Checking bundle"]}}\n'
        + head
        + '{"percentage": 60}, "finished": "none"}, "execution": "proceeding", "details": ["Updating slots"]}}\n'
        + head
        + '{}, "finished": "success"}, "execution": "closed", "details": ["completed with result: 0"]}}\n',
    )
    assert (codes, await state(web)) == ([200] * 3, (S.INSTALLED, ""))
    assert list(await client.poll()) == ["configData"]
    attributes = {"id": "", "status": {"result": {"finished": "success"}, "execution": "closed", "details": []}}
    put = await client.call("PUT", "/configData", json=attributes | {"data": {"version": VERSION}})
    assert put.status_code == 200
    assert await state(web) == (S.CONFIRMED, "")


async def test_a_recorded_refusal_of_rauc_hawkbit_to_stop_is_heard(web: Site) -> None:
    client = replace(await offered(web), agent=PYTHON)
    await client.follow(await client.artifact())
    await recall(web)
    line = (
        '{"id": "1", "time": "20261121T202940", "status": {"result": {"finished": "success"}, "execution": "rejected", '
        '"details": "Cancelling not supported"}}'
    )
    assert await said(client, line, to="cancelAction") == [200]
    assert await state(web) == (S.TOO_LATE, "")
