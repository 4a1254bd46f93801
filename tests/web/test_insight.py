"""Over HTTP: who still runs a vulnerable version, and the curve of a rollout."""

from __future__ import annotations

import json

from orchestrator.engine.rollouts import operations
from tests.support.factory import make_artifact
from tests.web.site import PLAN, Site, problem


async def test_who_is_exposed_is_counted_and_listed(web: Site) -> None:
    await web.enrol("d1", "d2")
    await web.enrol("d3", model="m9")
    counted = (await web.ops("GET", "/exposed?below=2")).json()
    assert (counted["vulnerable"], counted["fleet"], counted["below_rel"]) == (3, 3, 2)
    listed = await web.ops("GET", "/exposed/devices?below=2")
    assert listed.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["id"] for line in listed.text.splitlines()] == ["d1", "d2", "d3"]
    assert (await web.ops("GET", "/exposed/devices?below=1")).text == ""


async def test_what_a_rollout_mends_is_asked_by_its_name_or_its_advisory(web: Site) -> None:
    await web.enrol("d1")
    await web.release()
    await web.roll_out(severity="high", advisories=["CVE-2026-1234", "CVE-2026-1234"], fixes={"below": 2})
    for query in ("rollout=spring", "advisory=CVE-2026-1234"):
        assert (await web.ops("GET", f"/exposed?{query}")).json()["below"] == {"m1": 2}
    shown = (await web.ops("GET", "/rollouts/spring")).json()
    assert (shown["severity"], shown["advisories"], shown["fixes_below"]) == ("high", ["CVE-2026-1234"], 2)
    [line] = (await web.ops("GET", "/rollouts")).json()
    assert (line["severity"], line["advisories"]) == ("high", ["CVE-2026-1234"])


async def test_a_question_that_means_nothing_is_an_error_before_any_line(web: Site) -> None:
    for path in ("/exposed", "/exposed/devices"):
        assert problem(await web.ops("GET", path))[0] == 400
        assert problem(await web.ops("GET", f"{path}?rollout=none"))[0] == 404
        assert problem(await web.ops("GET", f"{path}?below=0"))[0] == 422


async def test_devices_are_counted_by_their_endpoints(web: Site) -> None:
    await web.enrol("d1", "d2", "d3")
    for name, eps in (("d1", 0), ("d2", 4)):
        body = {"v": 1, "dev": name, "model": "m1", "eps": eps}
        assert (await web.as_device(name, "POST", "/api/v1/hello", json=body)).status_code == 202
    assert (await web.ops("GET", "/endpoints")).json() == {
        "fleet": 3,
        "endpoints": [{"rel": 0, "devices": 1}, {"rel": 4, "devices": 1}],
        "unknown": 1,
    }
    assert (await web.ops("GET", "/devices/d2")).json()["endpoints"] == 4
    assert (await web.ops("GET", "/devices/d3")).json()["endpoints"] is None


async def test_a_move_does_not_start_while_nobody_signs_beats(web: Site) -> None:
    await web.enrol("d1")
    body = {"v": 1, "dev": "d1", "model": "m1", "eps": 0}
    await web.as_device("d1", "POST", "/api/v1/hello", json=body)
    artifact = make_artifact(1, component="endpoints", format="otad-endpoints")
    await web.plant.write(lambda tx: operations.register_artifact(tx, artifact, 0.0))
    made = await web.ops("POST", "/releases", {"name": "move-1", "artifacts": [artifact.sha256]})
    assert made.json()["moves"] is True
    await web.ops("POST", "/rollouts", PLAN | {"name": "move", "release": "move-1"})
    assert problem(await web.ops("POST", "/rollouts/move/start", {})) == (409, "beat_needed")
    await web.release()
    await web.roll_out()  # firmware does


async def test_a_rollout_has_a_curve(web: Site) -> None:
    await web.enrol("d1")
    await web.release()
    await web.roll_out()
    found = (await web.ops("GET", "/rollouts/spring/curve")).json()
    assert (found["offered"]["devices"], found["confirmed"]["devices"]) == (1, 0)
    assert problem(await web.ops("GET", "/rollouts/none/curve"))[0] == 404
