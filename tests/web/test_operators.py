"""The operator API: what each route answers, and how it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from orchestrator.core.trust.roles import Role
from orchestrator.errors import UnavailableError
from orchestrator.web.app import MAX_BODY_BYTES
from tests.web.site import PLAN, TOKEN, Site, problem, site

ROUTES = [
    ("GET", "/status", None),
    ("POST", "/artifacts", {"uri": "file:///x"}),
    ("GET", "/artifacts", None),
    ("POST", "/releases", {"name": "r", "artifacts": ["x"]}),
    ("GET", "/releases", None),
    ("POST", "/devices", {"devices": [{"id": "d1", "model": "m1"}]}),
    ("GET", "/devices", None),
    ("GET", "/devices/d1", None),
    ("GET", "/devices/d1/explain", None),
    ("POST", "/rollouts", PLAN),
    ("GET", "/rollouts", None),
    ("GET", "/rollouts/spring", None),
    ("GET", "/rollouts/spring/explain", None),
    ("POST", "/rollouts/spring/start", {}),
]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic b3BlcmF0b3I6eA==", "Bearer ", "Bearer " + "x" * 5000])
async def test_every_route_needs_the_token(web: Site, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path, body in ROUTES:
        answer = await web.http.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert problem(answer) == (401, "unauthorised")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_device_token_opens_no_operator_route(web: Site) -> None:
    await web.enrol("d1")
    assert problem(await web.as_device("d1", "GET", "/api/v1/devices")) == (401, "unauthorised")


async def test_health_needs_no_token(web: Site) -> None:
    answer = await web.http.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_ready_is_who_can_write_its_store(tmp_path: Path) -> None:
    faults: dict[str, str] = {}
    async with site(tmp_path, unready=lambda: faults) as web:
        assert (await web.http.get("/readyz")).text == "ok\n"
        faults = {"store": "the database failed: database or disk is full"}
        answer = await web.http.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "not ready\n")


async def test_an_operator_whose_use_cannot_be_noted_may_still_halt(web: Site) -> None:
    token = await web.operator("bo", Role.OPERATOR)
    await web.enrol("d1")
    await web.release()
    await web.roll_out()
    store = web.plant.store

    def full() -> None:
        raise UnavailableError("the database failed: database or disk is full", code="store")

    store.breaks = full
    answer = await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"}, token=token)
    assert problem(answer) == (503, "stopped_here")
    assert "spring is stopped in this process all the same" in answer.json()["detail"]
    assert set(web.plant.conductor.stops.rollouts.values()) == {"spring"}
    store.breaks = None
    answer = await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"}, token=token)
    assert (answer.status_code, answer.json()["phase"], answer.json()["changed"]) == (200, "halted", False)


async def test_status_says_how_the_daemon_is(web: Site) -> None:
    store = {"devices": 0, "running": 0, "waiting": 0, "seq": 0}
    assert (await web.ops("GET", "/status")).json() == {"recorder": {}, "store": store}


async def test_an_artifact_is_imported_and_listed(web: Site) -> None:
    uri = web.put_image(b"image" * 100)
    made = await web.ops("POST", "/artifacts", {"uri": uri})
    assert made.status_code == 201
    assert made.json() | {"sha256": "", "source_version": ""} == {
        "sha256": "",
        "name": "radio",
        "version": "2.0.0",
        "rel": 2,
        "hardware": ["m1"],
        "component": "main",
        "size_bytes": 500,
        "uri": uri,
        "source_version": "",
        "format": "raw",
        "recognised": "raw",
        "signature": "",
        "warnings": [],
    }
    assert (await web.ops("GET", "/artifacts")).json() == [made.json()]
    assert (await web.ops("POST", "/artifacts", {"uri": uri})).json() == made.json()


async def test_artifacts_that_cannot_be_trusted_or_found(web: Site) -> None:
    tampered = web.put_image(b"image" * 100)
    (web.folder / "fw.bin").write_bytes(b"IMAGE" * 100)
    (web.folder / "plain.bin").write_bytes(b"x")
    unsigned = (web.folder / "plain.bin").as_uri()
    answers = {
        uri: problem(await web.ops("POST", "/artifacts", {"uri": uri}))
        for uri in (tampered, unsigned, "file:///etc/passwd", "ftp://x/y", (web.folder / "no.bin").as_uri())
    }
    assert list(answers.values()) == [
        (422, "hash_mismatch"),
        (422, "unsigned"),
        (403, "outside_roots"),
        (400, "bad_uri"),
        (404, "no_such_file"),
    ]


async def test_a_release_is_made_once(web: Site) -> None:
    sha256 = await web.release()
    (line,) = (await web.ops("GET", "/releases")).json()
    made_at = web.plant.clock()
    told = {"name": "radio-2", "version": "2.0.0", "rel": 2, "artifacts": [sha256], "moves": False}
    assert line == told | {"created_at": made_at}
    again = await web.ops("POST", "/releases", {"name": "radio-2", "artifacts": [sha256]})
    assert problem(again) == (409, "conflict")
    unknown = await web.ops("POST", "/releases", {"name": "radio-3", "artifacts": ["A" * 43]})
    assert problem(unknown) == (404, "not_found")


async def test_devices_are_enrolled_paged_and_shown(web: Site) -> None:
    await web.enrol("d1", "d2", "d3")
    assert all(token.startswith("otad_") for token in web.tokens.values())
    page = (await web.ops("GET", "/devices?limit=2")).json()
    assert [line["id"] for line in page] == ["d1", "d2"]
    assert [line["id"] for line in (await web.ops("GET", "/devices?after=d2")).json()] == ["d3"]
    shown = (await web.ops("GET", "/devices/d1")).json()
    assert shown == page[0] | {"updates": []}
    assert (shown["model"], shown["rel"], shown["online"], shown["seen_at"]) == ("m1", 1, None, None)


async def test_enrolling_again_renews_the_token(web: Site) -> None:
    await web.enrol("d1")
    old = web.tokens["d1"]
    await web.enrol("d1")
    assert (await web.as_device("d1", "GET", "/api/v1/firmware/version")).status_code == 204
    web.tokens["d1"] = old
    assert problem(await web.as_device("d1", "GET", "/api/v1/firmware/version")) == (401, "unauthorised")


async def test_a_device_twice_in_one_list_is_refused(web: Site) -> None:
    device = {"id": "d1", "model": "m1"}
    answer = await web.ops("POST", "/devices", {"devices": [device, device]})
    assert problem(answer) == (400, "bad_request")
    assert (await web.ops("GET", "/devices")).json() == []


async def test_a_rollout_from_draft_to_its_end(web: Site) -> None:
    await web.release()
    await web.enrol("d1", "d2")
    made = await web.ops("POST", "/rollouts", PLAN)
    assert (made.status_code, made.json()["phase"], made.json()["cohort_size"]) == (201, "draft", None)
    started = await web.ops("POST", "/rollouts/spring/start", {"reason": "it is spring"})
    assert (started.status_code, started.json()["phase"]) == (200, "preparing")
    assert started.json()["answer"]
    await web.plant.conductor.advance(started.json()["id"])
    shown = (await web.ops("GET", "/rollouts/spring")).json()
    assert (shown["phase"], shown["cohort_size"], shown["actor"]) == ("running", 2, "orchestrator")
    assert [stage["target"] for stage in shown["stages"]] == [2]
    (line,) = (await web.ops("GET", "/rollouts")).json()
    assert (line["name"], line["phase"], line["in_flight"]) == ("spring", "running", shown["in_flight"])
    for command, phase in (("pause", "paused"), ("resume", "running"), ("halt", "halted"), ("abort", "aborted")):
        moved = await web.ops("POST", f"/rollouts/spring/{command}", {"reason": "a try"})
        assert (moved.status_code, moved.json()["phase"]) == (200, phase)
    explained = (await web.ops("GET", "/rollouts/spring/explain")).json()
    assert explained["next"] == ["nothing: it is over"]
    assert [event["phase"] for event in explained["events"]] == [
        "draft",
        "preparing",
        "running",
        "paused",
        "running",
        "halted",
        "aborted",
    ]


async def test_why_a_device_has_a_release_or_not(web: Site) -> None:
    await web.release()
    await web.enrol("d1")
    await web.enrol("m2-device", model="m2")
    await web.roll_out()
    taken = (await web.ops("GET", "/devices/d1/explain")).json()["rollouts"]
    assert [(line["rollout"], line["state"]) for line in taken] == [("spring", "offered")]
    (left,) = (await web.ops("GET", "/devices/m2-device/explain")).json()["rollouts"]
    assert (left["state"], left["because"]) == (None, "the release has no artifact for m2")


async def test_what_does_not_exist(web: Site) -> None:
    for path in (
        "/devices/nobody",
        "/devices/nobody/explain",
        "/rollouts/none",
        "/rollouts/none/explain",
        "/devices/" + "x" * 3000,
        "/rollouts/%00",
        "/devices/%ff%fe",
    ):
        answer = await web.ops("GET", path)
        assert problem(answer) == (404, "not_found")
        assert len(answer.text) < 400


async def test_what_does_not_exist_cannot_be_moved_or_used(web: Site) -> None:
    assert problem(await web.ops("POST", "/rollouts/none/start", {})) == (404, "not_found")
    answer = await web.ops("POST", "/rollouts", PLAN)
    assert problem(answer) == (404, "not_found")
    assert "`ota release create`" in answer.json()["detail"]


async def test_conflicts(web: Site) -> None:
    await web.release()
    assert (await web.ops("POST", "/rollouts", PLAN)).status_code == 201
    assert problem(await web.ops("POST", "/rollouts", PLAN)) == (409, "conflict")
    assert problem(await web.ops("POST", "/rollouts/spring/resume", {}))[0] == 409


async def test_an_emergency_needs_a_warrant(web: Site) -> None:
    await web.release()
    assert (await web.ops("POST", "/rollouts", PLAN | {"urgency": "emergency"})).status_code == 201
    assert problem(await web.ops("POST", "/rollouts/spring/start", {})) == (409, "warrant_needed")


async def test_all_faults_of_a_plan_are_listed_with_their_places(web: Site) -> None:
    plan = {
        "name": "Spring",
        "release": "radio-2",
        "stages": [{"devices": "rest"}, {"devices": 0, "soak": 10}],
        "halt": {"tolerated": "50%"},
        "colour": "red",
    }
    answer = await web.ops("POST", "/rollouts", plan)
    assert problem(answer) == (422, "invalid")
    assert [fault.partition(": ")[0] for fault in answer.json()["faults"]] == [
        "name",
        "stages.0.devices",
        "stages.1.devices",
        "stages.1.soak",
        "halt.tolerated",
        "colour",
    ]
    assert answer.json()["faults"][-1] == "colour: unknown key"
    assert answer.json()["detail"] == "; ".join(answer.json()["faults"])


REFUSED_BODIES: list[tuple[str, Any, str]] = [
    ("/artifacts", {"uri": 5}, "uri"),
    ("/artifacts", {"uri": "x" * 3000}, "uri"),
    ("/artifacts", {}, "uri"),
    ("/releases", {"name": "r", "artifacts": []}, "artifacts"),
    ("/releases", {"name": "r", "artifacts": ["x"], "extra": 1}, "extra"),
    ("/devices", {"devices": []}, "devices"),
    ("/devices", {"devices": [{"id": "UPPER", "model": "m1"}]}, "devices.0.id"),
    ("/devices", {"devices": [{"id": "d1", "model": "a/b"}]}, "devices.0.model"),
    ("/devices", {"devices": [{"id": "d1", "model": "m1", "rel": -1}]}, "devices.0.rel"),
    ("/rollouts/spring/start", {"reason": "x" * 501}, "reason"),
]


async def test_bodies_that_are_refused(web: Site) -> None:
    for path, body, place in REFUSED_BODIES:
        answer = await web.ops("POST", path, body)
        assert problem(answer) == (422, "invalid")
        assert [fault.partition(":")[0] for fault in answer.json()["faults"]] == [place]


async def test_pages_that_are_refused(web: Site) -> None:
    for query in ("limit=0", "limit=1001", "limit=x", "after=" + "x" * 65):
        assert problem(await web.ops("GET", f"/devices?{query}")) == (422, "invalid")


async def post_raw(web: Site, path: str, content: bytes) -> httpx2.Response:
    headers = {"Authorization": "Bearer operator-token-of-the-test", "Content-Type": "application/json"}
    return await web.http.post(f"/api/v1{path}", content=content, headers=headers)


NONSENSE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"uri": NaN}',
    b'{"\\ud800": 1, "uri": "x"}',
    b'{"uri": "\\ud800"}',
    b"1" * 6000,
)


async def test_bodies_that_are_no_sense_at_all(web: Site) -> None:
    for content in NONSENSE:
        status, _ = problem(await post_raw(web, "/artifacts", content))
        assert status in (400, 422)


async def test_a_body_larger_than_any_of_ours_is_refused(web: Site) -> None:
    assert problem(await post_raw(web, "/artifacts", b" " * (MAX_BODY_BYTES + 1))) == (413, "http_413")


async def test_unknown_paths_methods_and_commands(web: Site) -> None:
    assert problem(await web.ops("GET", "/nothing")) == (404, "http_404")
    assert problem(await web.ops("DELETE", "/rollouts")) == (405, "http_405")
    assert problem(await web.ops("POST", "/rollouts/spring/explode", {})) == (422, "invalid")


async def test_a_store_that_is_away_is_said_so(web: Site) -> None:
    web.plant.store.fails = 1
    assert problem(await web.ops("GET", "/devices")) == (503, "store")
    assert (await web.ops("GET", "/devices")).status_code == 200


async def test_a_bug_of_ours_is_answered_without_details(web: Site) -> None:
    def broken() -> None:
        raise ZeroDivisionError("the secret is 42")

    web.plant.store.breaks = broken
    with capture_logs() as logs:
        answer = await web.ops("POST", "/devices", {"devices": [{"id": "d1", "model": "m1"}]})
    assert problem(answer) == (500, "internal")
    assert [(line["event"], line["path"]) for line in logs] == [("request.failed", "/api/v1/devices")]
    assert "42" not in answer.text


@pytest.mark.parametrize("medium", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
async def test_a_body_of_another_kind_is_told_so(web: Site, medium: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": medium}
    answer = await web.http.post("/api/v1/releases", content=b'{"name": "r", "artifacts": ["x"]}', headers=headers)
    assert problem(answer) == (415, "not_json")
    assert "application/json" in answer.json()["detail"]


async def test_what_is_no_object_is_called_the_body(web: Site) -> None:
    answer = await post_raw(web, "/devices", b"[]")
    assert answer.json()["faults"] == ["the body: [] is not allowed; write keys with their values"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "/devices?lmit=1",
            "query.lmit: unknown parameter; there are after, cursor, limit, quarantined, select, where",
        ),
        ("/rollouts?where=x", "query.where: unknown parameter; there are cursor, limit, name, phase"),
        ("/status?x=", "query.x: unknown parameter; there are none here"),
    ],
)
async def test_a_filter_with_a_wrong_letter_does_not_mean_everything(web: Site, path: str, said: str) -> None:
    answer = await web.ops("GET", path)
    assert problem(answer) == (400, "unknown_parameter")
    assert answer.json()["detail"] == said
    assert problem(await web.ops("GET", path, token="wrong")) == (401, "unauthorised")


async def test_refusals_of_the_routing_say_where_to_look(web: Site) -> None:
    for method, path in (("GET", "/nothing"), ("DELETE", "/rollouts")):
        assert "/api/v1/openapi.json" in (await web.ops(method, path)).json()["detail"]
    assert "not JSON" in (await post_raw(web, "/devices", b"[" * 100_000)).json()["detail"]
