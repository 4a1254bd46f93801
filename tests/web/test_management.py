"""hawkBit's Management API: the sequences of the rigs that were written around it, and who may do what."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from orchestrator.adapters.shelf import FolderShelf
from orchestrator.adapters.store import rows
from orchestrator.config import Settings, load
from orchestrator.config.settings import Hawkbit
from orchestrator.core.model import Phase, Rollout, UpdateState
from orchestrator.core.trust.roles import Role, may
from orchestrator.daemon import given as given_settings
from orchestrator.demo.broker import HOST
from orchestrator.engine.rollouts import operations, single
from orchestrator.engine.targeting.targets import GONE
from orchestrator.errors import ConfigError, PayloadError, RequestError
from orchestrator.ports import Lane, Tx
from orchestrator.web.context import Context, DdiSettings
from orchestrator.web.management import said
from orchestrator.web.management.api import AT, handlers
from orchestrator.web.management.settings import Management
from orchestrator.web.management.targets import SHOWN_S
from orchestrator.web.server import HttpServer
from tests.web.ddi_client import IMAGE, RAUC, SWUPDATE, Client, allow, state
from tests.web.hawkbit_tool import Tool
from tests.web.site import PLAN, TOKEN, Site, problem, site, statement

S = UpdateState
TARGET = "test-1.5"


def managed(folder: Path, *, model: str | None = "m1", shelf: bool = True) -> AbstractAsyncContextManager[Site]:
    where = FolderShelf(folder / "images") if shelf else None
    return site(folder, management=Management(where, 1 << 20, model, ("rauc",)))


@pytest.fixture
async def tool(tmp_path: Path) -> AsyncIterator[Tool]:
    async with managed(tmp_path) as web:
        await allow(web)
        web.plant.clock.advance(web.plant.settings.grace_s)
        yield Tool(web)


def device(tool: Tool, agent: str = SWUPDATE) -> Client:
    return Client(tool.web, TARGET, agent)


async def test_it_is_off_unless_the_configuration_turns_it_on(web: Site) -> None:
    answer = await web.http.get("/rest/v1/targets", auth=("operator", TOKEN))
    assert answer.status_code == 404


async def test_a_rig_creates_uploads_assigns_and_sees_its_device_finish(tool: Tool) -> None:
    await tool.add_target()
    assert (await tool.get(f"targets/{TARGET}"))["updateStatus"] == "unknown"
    set_ = await tool.ready(IMAGE)
    action = await tool.assign(set_)
    assert (await tool.get(f"targets/{TARGET}/actions/{action}"))["status"] == "pending"
    client = device(tool)
    href = (await client.poll())["deploymentBase"]
    assert f"/deploymentBase/{action}?" in href  # rigs compare the number with what their client logs
    assert (await client.follow(await client.artifact())).content == IMAGE
    await client.say("proceeding", "none", "All Chunks Installed.", number=action)
    running = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (running["type"], running["status"], running["detailStatus"]) == ("update", "pending", "running")
    await client.say("closed", "success", "It runs.", number=action)
    finished = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (finished["type"], finished["status"], finished["detailStatus"]) == ("update", "finished", "finished")
    said_ = await tool.get(f"targets/{TARGET}/actions/{action}/status?offset=0&limit=50&sort=id:DESC")
    assert (said_["content"][0]["type"], said_["content"][0]["messages"]) == ("finished", ["It runs."])
    assert [item["id"] for item in said_["content"]] == list(range(said_["total"], 0, -1))
    assert (await tool.get(f"targets/{TARGET}"))["updateStatus"] == "in_sync"
    assert await tool.get(f"targets/{TARGET}/attributes") == {}
    await client.attributes(version="2.0.0")
    assert await tool.get(f"targets/{TARGET}/attributes") == {"version": "2.0.0"}
    rollout = await tool.web.plant.rollout(1)
    assert (rollout.phase, rollout.cohort_size, rollout.actor) == (Phase.RUNNING, 1, "orchestrator")


async def test_success_before_the_reboot_is_not_finished(tool: Tool) -> None:
    await tool.add_target()
    action = await tool.assign(await tool.ready(IMAGE))
    client = device(tool, RAUC)
    await client.attributes(version="1.0.0")
    await client.follow(await client.artifact())
    await client.say("closed", "success", "Software bundle installed successfully.", number=action)
    status = await tool.get(f"targets/{TARGET}/actions/{action}/status?sort=id:DESC")
    assert status["content"][0]["type"] == "running"
    assert (await tool.get(f"targets/{TARGET}/actions/{action}"))["status"] == "pending"
    await client.attributes(version="2.0.0")
    assert (await tool.get(f"targets/{TARGET}/actions/{action}"))["detailStatus"] == "finished"


async def test_an_action_that_fails_is_an_error_and_may_be_assigned_again(tool: Tool) -> None:
    await tool.add_target()
    set_ = await tool.ready(IMAGE)
    action, client = await tool.assign(set_), device(tool)
    await client.follow(await client.artifact())
    await client.say("closed", "failure", "No space left.", number=action)
    await tool.web.plant.conductor.advance(1)
    failed = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (failed["status"], failed["detailStatus"]) == ("finished", "error")
    status = await tool.get(f"targets/{TARGET}/actions/{action}/status?sort=id:DESC")
    assert (status["content"][0]["type"], status["content"][0]["messages"]) == ("error", ["No space left."])
    assert (await tool.get(f"targets/{TARGET}"))["updateStatus"] == "error"
    again = await tool.assign(set_)
    assert again != action
    assert (await tool.web.plant.rollout(1)).phase is Phase.ABORTED
    assert f"/deploymentBase/{again}?" in (await client.poll())["deploymentBase"]


async def test_an_assignment_under_way_is_made_once(tool: Tool) -> None:
    await tool.add_target()
    set_ = await tool.ready(IMAGE)
    await tool.assign(set_)
    again = await tool.post(f"distributionsets/{set_}/assignedTargets", [{"id": TARGET}])
    assert again == {"assigned": 0, "alreadyAssigned": 1, "total": 1, "assignedActions": []}


async def test_a_cancellation_is_acknowledged_by_the_device(tool: Tool) -> None:
    await tool.add_target()
    action, client = await tool.assign(await tool.ready(IMAGE)), device(tool, RAUC)
    await client.poll()
    assert await tool.delete(f"targets/{TARGET}/actions/{action}") == 200
    canceling = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (canceling["type"], canceling["status"], canceling["detailStatus"]) == ("cancel", "pending", "canceling")
    await tool.web.plant.seal()
    href = (await client.poll())["cancelAction"]
    assert (await client.follow(href)).json()["cancelAction"]["stopId"] == str(action)
    await client.say("closed", "success", "Action canceled.", number=action, to="cancelAction")
    cancelled = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (cancelled["type"], cancelled["status"]) == ("cancel", "finished")
    status = await tool.get(f"targets/{TARGET}/actions/{action}/status?offset=0&limit=50&sort=id:DESC")
    assert (status["content"][0]["type"], status["content"][0]["messages"]) == ("canceled", ["Action canceled."])
    assert await tool.delete(f"targets/{TARGET}/actions/{action}") == 409


async def test_what_reached_no_device_is_cancelled_at_once(tool: Tool) -> None:
    await tool.add_target()
    action = await tool.assign(await tool.ready(IMAGE))
    assert await tool.delete(f"targets/{TARGET}/actions/{action}") == 200
    cancelled = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (cancelled["type"], cancelled["status"]) == ("cancel", "finished")
    assert (await tool.get(f"targets/{TARGET}/actions/{action}/status"))["content"][0]["type"] == "canceled"
    assert set(await device(tool).poll()) <= {"configData"}


async def test_a_device_that_began_to_install_may_finish_what_was_cancelled(tool: Tool) -> None:
    await tool.add_target()
    action, client = await tool.assign(await tool.ready(IMAGE)), device(tool)
    await client.follow(await client.artifact())
    assert await tool.delete(f"targets/{TARGET}/actions/{action}") == 200
    await tool.web.plant.seal()
    await client.say("rejected", "none", "Too late.", number=action, to="cancelAction")
    await client.say("proceeding", "none", "All Chunks Installed.", number=action)
    await client.say("closed", "success", "Installed.", number=action)
    found = await tool.get(f"targets/{TARGET}/actions/{action}")
    assert (found["type"], found["status"], found["detailStatus"]) == ("update", "finished", "finished")


async def test_force_waits_no_longer_for_a_device_and_never_comes_first(tool: Tool) -> None:
    await tool.add_target()
    action, client = await tool.assign(await tool.ready(IMAGE)), device(tool)
    await client.poll()
    path = f"targets/{TARGET}/actions/{action}"
    answer = await tool.call("DELETE", f"{path}?force=true")
    assert (answer.status_code, answer.json()["errorCode"]) == (409, "ota.not_cancelled")
    assert [await tool.delete(path), await tool.delete(f"{path}?force=true")] == [200, 200]
    assert (await tool.get(path))["status"] == "finished"
    assert await state(tool.web, TARGET) == (S.UNREACHED, "")
    entries = await tool.web.plant.store.read(lambda tx: tx.audit_entries(0, 100))
    assert [item.actor for item in entries if item.action == "recall.given_up"] == ["operator"]


async def test_an_unsigned_upload_is_refused_and_nothing_of_it_stays(tool: Tool) -> None:
    module = await tool.add_module()
    answer = await tool.upload(module, "bundle.raucb", IMAGE)
    assert (answer.status_code, answer.json()["errorCode"]) == (422, "ota.unsigned")
    assert "ota artifact sign" in answer.json()["message"]
    forged = statement(IMAGE + b"!", 2, ("m1",))
    answer = await tool.upload(module, "bundle.raucb", IMAGE, forged)
    assert (answer.status_code, answer.json()["errorCode"]) == (422, "ota.size_mismatch")
    assert await tool.get(f"softwaremodules/{module}/artifacts") == []
    assert await tool.web.plant.store.read(lambda tx: tx.artifacts()) == []
    assert list((tool.web.folder / "artifacts").iterdir()) == []


async def test_a_statement_may_come_before_its_file_and_known_bytes_need_none(tool: Tool) -> None:
    module = await tool.add_module()
    signed = statement(IMAGE, 2, ("m1",))
    assert (await tool.upload(module, "bundle.raucb.statement", signed)).status_code == 201
    first = await tool.upload(module, "bundle.raucb", IMAGE)
    assert first.status_code == 201, first.text
    assert first.json()["hashes"]["sha256"]
    assert (await tool.upload(module, "bundle.raucb", IMAGE)).json()["errorCode"] == "ota.exists"
    other = await tool.add_module("1.1")
    second = await tool.upload(other, "again.raucb", IMAGE)
    assert second.json()["id"] == first.json()["id"]
    assert (await tool.get(f"softwaremodules/{other}/artifacts/{second.json()['id']}"))["size"] == len(IMAGE)
    assert await tool.delete(f"softwaremodules/{other}/artifacts/{second.json()['id']}") == 200
    assert await tool.get(f"softwaremodules/{other}/artifacts") == []
    assert [await tool.delete(f"softwaremodules/{other}") for _ in range(2)] == [200, 200]
    assert (await tool.call("GET", f"softwaremodules/{other}")).status_code == 404
    assert await tool.add_module("1.2") == other + 1


async def test_an_upload_may_be_larger_than_any_other_request_and_no_larger_than_an_artifact(tool: Tool) -> None:
    module = await tool.add_module()
    large = bytes(1 << 20)
    assert (await tool.upload(module, "a.bin", large, statement(large, 3, ("m1",)))).status_code == 201
    answer = await tool.upload(module, "b.bin", bytes((1 << 20) + 70_000))
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "ota.oversize")


async def test_what_is_no_form_is_refused(tool: Tool) -> None:
    module = await tool.add_module()
    path = f"softwaremodules/{module}/artifacts"
    for content, type_ in (
        (b"x", "text/plain"),
        (b"--b\r\n\r\n", "multipart/form-data; boundary=b"),
        (
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx',
            "multipart/form-data; boundary=b",
        ),
        (b"--b--", "multipart/form-data; boundary=b"),
    ):
        answer = await tool.call("POST", path, content=content, headers={"Content-Type": type_})
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "ota.malformed"), content
    assert list((tool.web.folder / "artifacts").iterdir()) == []


@pytest.mark.parametrize("name", ["../../up.bin", "/etc/passwd", ".hidden", "a\\b.bin", "x" * 128, "%2e%2e%2fup"])
async def test_no_name_leads_out_of_the_folder(tool: Tool, name: str) -> None:
    module = await tool.add_module()
    answer = await tool.upload(module, name, IMAGE, statement(IMAGE, 2, ("m1",)))
    assert answer.status_code == 201, answer.text
    [artifact] = await tool.web.plant.store.read(lambda tx: tx.artifacts())
    path = Path(artifact.uri.removeprefix("file://"))
    assert path.parent.parent == tool.web.folder / "artifacts"
    assert path.read_bytes() == IMAGE


async def test_a_token_is_shown_to_who_made_its_target_and_only_for_a_while(tool: Tool) -> None:
    ann = await tool.as_role(Role.ADMIN)
    [made] = await ann.post("targets", [{"controllerId": TARGET, "name": "x", "securityToken": "0123456789abcdef"}])
    assert (made["name"], made["securityToken"]) == (TARGET, "0123456789abcdef")
    assert (await ann.get(f"targets/{TARGET}"))["securityToken"] == "0123456789abcdef"
    assert "securityToken" not in await tool.get(f"targets/{TARGET}")
    assert "securityToken" not in (await ann.get("targets"))["content"][0]
    tool.web.plant.clock.advance(SHOWN_S)
    assert "securityToken" not in await ann.get(f"targets/{TARGET}")
    tool.web.tokens[TARGET] = "0123456789abcdef"
    assert await device(tool).poll() is not None
    entries = await tool.web.plant.store.read(lambda tx: tx.audit_entries(0, 100))
    assert "0123456789abcdef" not in repr(entries)


async def test_targets_that_cannot_be_are_refused(tool: Tool) -> None:
    await tool.add_target(token="0123456789abcdef")
    for body, code in (
        ({"controllerId": TARGET}, (409, "ota.exists")),
        ({"controllerId": "d2", "securityToken": "0123456789abcdef"}, (409, "ota.conflict")),
        ({"controllerId": "d2", "securityToken": "short"}, (400, "ota.bad_request")),
        ({"controllerId": "No Identifier"}, (400, "ota.bad_request")),
        ({"name": "x"}, (400, "ota.malformed")),
    ):
        answer = await tool.call("POST", "targets", [body])
        assert (answer.status_code, answer.json()["errorCode"]) == code
        assert set(answer.json()) == {"exceptionClass", "errorCode", "message"}
    assert (await tool.get("targets"))["total"] == 1


async def test_without_a_model_no_target_is_made(tmp_path: Path) -> None:
    async with managed(tmp_path, model=None, shelf=False) as web:
        tool = Tool(web)
        assert (await tool.call("POST", "targets", [{"controllerId": "d1"}])).json()["errorCode"] == "ota.no_model"
        assert (await tool.call("GET", "softwaremodules")).json()["errorCode"] == "ota.no_uploads"


async def test_a_deleted_target_is_gone_and_may_come_again(tool: Tool) -> None:
    first = await tool.add_target()
    set_ = await tool.ready(IMAGE)
    action, client = await tool.assign(set_), device(tool)
    await client.follow(await client.artifact())
    await client.say("proceeding", "none", "All Chunks Installed.", number=action)
    await client.say("closed", "success", number=action)
    assert await state(tool.web, TARGET) == (S.CONFIRMED, "")
    assert await tool.delete(f"targets/{TARGET}") == 200
    assert (await client.call("GET")).status_code == 401
    assert (await tool.call("GET", f"targets/{TARGET}")).status_code == 404
    assert (await tool.get("targets"))["content"] == []
    known = await tool.web.plant.store.read(lambda tx: tx.device(TARGET))
    assert known is not None
    assert known.quarantine == GONE
    assert await tool.add_target() != first
    assert await tool.get(f"targets/{TARGET}/attributes") == {}
    again = await tool.assign(await tool.add_set(1))
    assert f"/deploymentBase/{again}?" in (await device(tool).poll())["deploymentBase"]


async def test_deleting_a_target_cancels_what_is_its_own_and_lifts_no_quarantine(tool: Tool) -> None:
    await tool.add_target()
    await tool.assign(await tool.ready(IMAGE))
    assert await tool.delete(f"targets/{TARGET}") == 200
    assert (await tool.web.plant.rollout(1)).phase is Phase.ABORTED
    await tool.add_target("d2")
    await tool.web.ops("POST", "/devices/quarantine", {"devices": ["d2"], "reason": "it smokes"})
    answer = await tool.call("DELETE", "targets/d2")
    assert (answer.status_code, answer.json()["errorCode"]) == (409, "ota.quarantined")


async def test_a_deleted_target_is_nothing_to_its_gateway_either(tmp_path: Path) -> None:
    management = Management(FolderShelf(tmp_path / "images"), 1 << 20, "m1", ("rauc",))
    async with site(tmp_path, management=management, ddi=DdiSettings(gateway_token="of the gateway")) as web:
        await allow(web)
        tool, client = Tool(web), Client(web, TARGET, token="GatewayToken of the gateway")
        await tool.add_target()
        await tool.add_target("d2")
        await web.release(IMAGE)
        await web.roll_out()
        await web.plant.seal()
        link = await client.artifact()
        assert await tool.delete(f"targets/{TARGET}") == 200
        assert (await client.call("GET")).status_code == (await client.follow(link)).status_code == 401
        assert await state(web, TARGET) == (S.SUPERSEDED, "quarantined")
        assert (await state(web, "d2"))[0] is S.OFFERED


async def test_who_cannot_be_deleted_keeps_what_is_under_way(tool: Tool) -> None:
    await tool.add_target()
    await tool.assign(await tool.ready(IMAGE))
    await tool.web.ops("POST", "/devices/quarantine", {"devices": [TARGET], "reason": "it smokes"})
    assert await tool.delete(f"targets/{TARGET}") == 409
    assert (await tool.web.plant.rollout(1)).phase is Phase.RUNNING


async def test_whatever_changes_a_module_is_in_the_audit_log(tool: Tool) -> None:
    module = await tool.add_module()
    assert (await tool.upload(module, "bundle.raucb.statement", statement(IMAGE, 2, ("m1",)))).status_code == 201
    [uploaded] = [(await tool.upload(module, "bundle.raucb", IMAGE)).json()]
    assert await tool.delete(f"softwaremodules/{module}/artifacts/{uploaded['id']}") == 200
    assert (await tool.upload(module, "again.raucb", IMAGE)).status_code == 201  # known bytes, imported no second time
    assert [await tool.delete(f"softwaremodules/{module}") for _ in range(2)] == [200, 200]
    entries = await tool.web.plant.store.read(lambda tx: tx.audit_entries(0, 100))
    noted = [(item.action, item.object, item.actor) for item in entries if item.action.startswith("module.")]
    acts = ["created", "statement_kept", "file_added", "file_removed", "file_added", "deleted"]
    assert noted == [(f"module.{act}", str(module), "operator") for act in acts]


async def test_an_assignment_reads_only_what_is_under_way(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time that a halt waits behind it would grow with all that was ever assigned."""
    set_ = await tool.ready(IMAGE)
    await tool.add_target()

    def others(tx: Tx) -> None:
        release = tx.release(f"hawkbit-{set_}")
        assert release is not None
        for number in range(20):
            plan = single.plan_of(f"old-{number}", release, f"other-{number}")
            operations.create_rollout(tx, plan, "ann", 0.0)

    store = tool.web.plant.store
    await store.transact(Lane.BULK, others)
    read: list[object] = []
    decoded = rows.rollout

    def decode(row: Any) -> Rollout:
        read.append(row)
        return decoded(row)

    monkeypatch.setattr(rows, "rollout", decode)

    def assign(tx: Tx) -> str:
        release, device_ = tx.release(f"hawkbit-{set_}"), tx.device(TARGET)
        assert release is not None
        assert device_ is not None
        return single.assign(tx, release, device_, "ann", 1.0)[0].plan.name

    assert await store.transact(Lane.OPERATOR, assign) == f"hawkbit-{set_}-21"
    assert await store.transact(Lane.OPERATOR, assign) == f"hawkbit-{set_}-21"
    assert len(read) == 2  # the one that was made, and found again


async def test_giving_up_wakes_who_waits_for_the_slot(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    await tool.add_target()
    action, client = await tool.assign(await tool.ready(IMAGE)), device(tool)
    await client.follow(await client.artifact())
    path = f"targets/{TARGET}/actions/{action}"
    assert await tool.delete(path) == 200
    told: list[set[int]] = []
    monkeypatch.setattr(tool.web.plant.conductor, "changed", told.append)
    assert await tool.delete(f"{path}?force=true") == 200
    assert told == [{1}]
    assert await state(tool.web, TARGET) == (S.EXPIRED, "")


async def test_a_name_that_people_took_keeps_nobody_from_a_set(tool: Tool) -> None:
    set_ = await tool.ready(IMAGE)
    for number in (2, 3):
        plan = PLAN | {"name": f"hawkbit-{set_}-{number}", "release": f"hawkbit-{set_}"}
        assert (await tool.web.ops("POST", "/rollouts", plan)).status_code == 201
    await tool.add_target()
    assert await tool.assign(set_)
    names = await tool.web.plant.store.read(lambda tx: [item.plan.name for item in tx.rollouts()])
    assert f"hawkbit-{set_}-4" in names


async def test_devices_of_other_dialects_are_no_targets(tool: Tool) -> None:
    await tool.web.enrol("d1")
    assert (await tool.get("targets"))["total"] == 0
    assert (await tool.call("GET", "targets/d1")).status_code == 404
    assert (await tool.call("DELETE", "targets/d1")).status_code == 404
    set_ = await tool.ready(IMAGE)
    answer = await tool.call("POST", f"distributionsets/{set_}/assignedTargets", [{"id": "d1"}])
    assert answer.status_code == 404


async def test_a_device_that_may_not_have_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with managed(tmp_path) as web:
        tool = Tool(web)
        web.plant.clock.advance(web.plant.settings.grace_s)
        await tool.add_target()
        set_ = await tool.ready(IMAGE)
        answer = await tool.call("POST", f"distributionsets/{set_}/assignedTargets", [{"id": TARGET}])
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "ota.unsigned_client")
        assert await tool.web.plant.store.read(lambda tx: tx.rollouts()) == []


@pytest.mark.parametrize(
    "more", [{"type": "downloadonly"}, {"type": "soft"}, {"maintenanceWindow": {"schedule": "0 0 * * * ?"}}]
)
async def test_what_is_not_served_is_said(tool: Tool, more: dict[str, Any]) -> None:
    await tool.add_target()
    set_ = await tool.ready(IMAGE)
    answer = await tool.call("POST", f"distributionsets/{set_}/assignedTargets", [{"id": TARGET} | more])
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "ota.not_served")


async def test_an_assignment_waits_for_its_approval_and_goes_on_with_it(tool: Tool) -> None:
    ben, eve = await tool.as_role(Role.APPROVER, name="ben"), await tool.as_role(Role.APPROVER, name="eve")
    ann = await tool.as_role(Role.OPERATOR)
    await tool.add_target()
    newer = await tool.ready(IMAGE, rel=3, name="newer.bin")
    await tool.assign(newer)
    older = await tool.ready(IMAGE + b"old", rel=2, name="older.bin")
    path, body = f"distributionsets/{older}/assignedTargets", [{"id": TARGET}]
    answer = await ann.call("POST", path, body)
    assert (answer.status_code, answer.json()["errorCode"]) == (409, "ota.approval_needed")
    proposal = answer.json()["parameters"]["proposal"]
    for voter in (ben, eve):
        await tool.web.ops("POST", f"/approvals/{proposal}/approve", {"reason": "fine"}, token=voter.login[1])
    assert (await ann.call("POST", path, body)).json()["assigned"] == 1
    assert len(await tool.web.plant.store.read(lambda tx: tx.rollouts())) == 2


async def test_a_rollout_that_cannot_open_says_so_and_goes_on_when_asked_again(tmp_path: Path) -> None:
    async with managed(tmp_path) as web:
        await allow(web)
        tool = Tool(web)
        await tool.add_target()
        set_ = await tool.ready(IMAGE)
        path, body = f"distributionsets/{set_}/assignedTargets", [{"id": TARGET}]
        web.plant.bus.go_down()
        web.plant.hearing()
        answer = await tool.call("POST", path, body)
        assert (answer.status_code, answer.json()["errorCode"]) == (503, "ota.holds")
        web.plant.bus.come_up()
        web.plant.hearing()
        web.plant.clock.advance(web.plant.settings.grace_s + 1)
        assert (await tool.call("POST", path, body)).json()["assigned"] == 1


async def test_actions_of_a_rollout_to_many_are_seen_and_not_cancelled(tool: Tool) -> None:
    await tool.add_target()
    await tool.web.release(IMAGE)
    await tool.web.roll_out()
    found = await tool.get(f"targets/{TARGET}/actions?limit=1")
    assert (found["total"], found["size"], found["content"][0]["rolloutName"]) == (1, 1, "spring")
    answer = await tool.call("DELETE", f"targets/{TARGET}/actions/{found['content'][0]['id']}")
    assert (answer.status_code, answer.json()["errorCode"]) == (409, "ota.not_its_own")


async def test_no_action_is_seen_below_another_target(tool: Tool) -> None:
    await tool.add_target()
    await tool.add_target("d2")
    action = await tool.assign(await tool.ready(IMAGE))
    for path in (f"targets/d2/actions/{action}", f"targets/d2/actions/{action}/status"):
        assert (await tool.call("GET", path)).status_code == 404
    assert await tool.delete(f"targets/d2/actions/{action}") == 404
    for number in ("0", "-1", "x", "2147483648", "9" * 30):
        assert (await tool.call("GET", f"targets/{TARGET}/actions/{number}")).status_code == 404


async def test_lists_come_in_parts(tool: Tool) -> None:
    await tool.post("targets", [{"controllerId": f"t{number}"} for number in range(7)])
    found = await tool.get("targets?offset=2&limit=3")
    assert [item["controllerId"] for item in found["content"]] == ["t2", "t3", "t4"]
    assert (found["total"], found["size"]) == (7, 3)
    for query in ("limit=x", "offset=-1", "sort=name:ASC", "q=name==x", "limit=99999999999"):
        assert (await tool.call("GET", f"targets?{query}")).status_code == 400
    for version in ("1", "2", "3"):
        await tool.add_module(version)
    assert [item["id"] for item in (await tool.get("softwaremodules?sort=id:DESC&limit=2"))["content"]] == [3, 2]


async def test_sets_are_releases(tool: Tool) -> None:
    set_ = await tool.ready(IMAGE)
    assert (await tool.get(f"distributionsets/{set_}"))["version"] == "2.0.0"
    assert [item["id"] for item in (await tool.get("distributionsets"))["content"]] == [set_]
    assert await tool.delete(f"distributionsets/{set_}") == 200
    empty = await tool.add_module("9")
    body = {"name": "s", "version": "1", "modules": [{"id": empty}]}
    assert (await tool.call("POST", "distributionsets", [body])).json()["errorCode"] == "ota.incomplete"
    body["modules"] = [{"id": 99}]
    assert (await tool.call("POST", "distributionsets", [body])).status_code == 404


async def test_the_configuration_is_shown_and_stays_as_it_is(tmp_path: Path) -> None:
    secret = "gateway-token-of-the-test"
    async with site(tmp_path, management=Management(), ddi=DdiSettings(poll_s=30, gateway_token=secret)) as web:
        tool = Tool(web)
        assert (await tool.get("system/configs/pollingTime"))["value"] == "00:00:30"
        for key, value, status in (
            ("pollingTime", "00:00:30", 200),
            ("pollingTime", "00:05:00", 409),
            ("authentication.targettoken.enabled", True, 200),
            ("authentication.targettoken.enabled", False, 409),
            ("authentication.gatewaytoken.enabled", "true", 200),
            ("authentication.gatewaytoken.key", secret, 200),
            ("authentication.gatewaytoken.key", "another", 409),
            ("authentication.gatewaytoken.key", None, 409),
            ("nothing.of.ours", 1, 404),
        ):
            answer = await tool.call("PUT", f"system/configs/{key}", {"value": value})
            assert answer.status_code == status, (key, value)
            assert secret not in answer.text
        assert (await tool.call("GET", "system/configs/authentication.gatewaytoken.key")).status_code == 403


def calls(context: Context) -> list[tuple[str, str, tuple[Any, ...]]]:
    names = {"key": "pollingTime", "target": "x", "action": "1", "module": "9", "set": "9", "artifact": "1"}
    return [(method, AT + path.format(**names), acts) for method, path, _, acts in handlers(context, Management())]


def context_of(tool: Tool) -> Context:
    known: Any = type("Known", (), {"public_url": "", "store": tool.web.plant.store})()
    context: Context = known
    return context


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_call_what_it_permits_and_no_more(tool: Tool, role: Role) -> None:
    login = (await tool.as_role(role)).login
    for method, path, acts in calls(context_of(tool)):
        assert acts
        answer = await tool.web.http.request(method, path, json={}, auth=login)
        if all(may([role], act) for act in acts):
            assert answer.status_code not in (401, 403), path
        else:
            assert (answer.status_code, answer.json()["errorCode"]) == (403, "ota.not_permitted"), path


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"Bearer {TOKEN}",
        "Basic !!",
        "Basic " + base64.b64encode(b"operator:wrong").decode(),
        "Basic " + base64.b64encode(f"ann:{TOKEN}".encode()).decode(),
        "Basic " + base64.b64encode(b"operator:").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + "A" * 5000,
    ],
)
async def test_without_a_good_login_nothing_is_said(tool: Tool, header: str) -> None:
    told = set()
    for method, path, _ in calls(context_of(tool)):
        answer = await tool.web.http.request(method, path, json={}, headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        told.add(answer.text)
    assert len(told) == 1


async def test_a_tenant_before_the_name_is_no_other_account_and_a_browser_is_refused(tool: Tool) -> None:
    assert (await Tool(tool.web, ("DEFAULT\\operator", TOKEN)).call("GET", "targets")).status_code == 200
    for name, value in (("Origin", "https://x.example"), ("Sec-Fetch-Site", "cross-site")):
        answer = await tool.call("GET", "targets", headers={name: value})
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "ota.browser")


async def test_a_rig_works_over_loopback(tool: Tool) -> None:
    server = HttpServer(tool.web.app, HOST, 0, 100)
    running = asyncio.create_task(server.run())
    try:
        async with httpx2.AsyncClient(base_url=f"http://{HOST}:{server.port}", trust_env=False) as http:
            far = Tool(replace(tool.web, http=http))
            await far.add_target()
            large = bytes(range(256)) * 4096  # as large as may be, and more than one piece of the form
            action, client = await far.assign(await far.ready(large)), device(far)
            assert (await client.follow(await client.artifact())).content == large
            await client.say("proceeding", "none", "All Chunks Installed.", number=action)
            await client.say("closed", "success", number=action)
            assert (await far.get(f"targets/{TARGET}/actions/{action}"))["detailStatus"] == "finished"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_path_that_is_none_is_not_found(tool: Tool) -> None:
    assert problem(await tool.call("GET", "rollouts")) == (404, "http_404")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for type_ in (said.NewTarget, said.NewModule, said.NewSet, said.Assignment):
        try:
            found = said.some(body, type_)
        except PayloadError:
            continue
        assert all(isinstance(item, type_) for item in found)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["offset", "limit", "sort", "q"]), st.text(max_size=12)))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    try:
        page = said.page_of(QueryParams(query))
    except RequestError:
        return
    assert page.offset >= 0
    assert 0 <= page.limit <= said.MAX_PAGE


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.text(max_size=12))
def test_a_number_is_one_that_we_give_out_or_none(number: str) -> None:
    assert 0 <= said.number_in(number) < 2**31


def test_the_configuration_turns_it_on_and_names_what_is_wrong(tmp_path: Path) -> None:
    assert given_settings.management(Settings()) is None
    turned_on = Hawkbit(management=True, uploads=str(tmp_path), model="m1", enforces=("rauc",))
    made = given_settings.management(Settings(hawkbit=turned_on))
    assert made is not None
    assert made.open_shelf.add("a", "1", "os").id == 1
    assert (made.model, made.enforces, made.limit_bytes) == ("m1", ("rauc",), 2 * 2**30)
    with pytest.raises(ValueError, match="native signature"):
        Hawkbit(enforces=("mine",))
    file = tmp_path / "config.yaml"
    file.write_text(f"hawkbit: {{management: true, uploads: {tmp_path}/nowhere}}\n")
    with pytest.raises(ConfigError, match="hawkbit.uploads: there is no folder"):
        load(file, {})
