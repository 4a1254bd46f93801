"""What is shown: rollouts and devices, and each thing in a line of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.model import Remark, UpdateState
from orchestrator.engine.insight import views
from orchestrator.errors import NotFoundError
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_artifact, stock

S = UpdateState
View = dict[str, Any]


async def seen(it: Plant, name: str = "spring") -> View:
    found = await it.store.read(lambda tx: views.rollout_view(tx, name, it.clock(), hearing=it.hearing()))
    json.dumps(found)
    return found


async def test_a_draft_is_shown_before_anything_is_known(it: Plant) -> None:
    await it.create(make_plan((5, REST)))
    view = await seen(it)
    assert (view["phase"], view["cohort_size"], view["bound"], view["reached"]) == ("draft", None, None, 0)
    assert [(stage["phase"], stage["target"], stage["opened"]) for stage in view["stages"]] == [
        ("waiting", None, 0)
    ] * 2


async def test_a_running_rollout_is_shown_with_its_numbers(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((20, REST)))
    updates = await it.updates(rollout, S.OFFERED)
    await it.confirm(updates[:4])
    await it.say(updates[4:5], Kind.FAILED)
    view = await seen(it)
    assert view["states"] == {"confirmed": 4, "failed": 1, "offered": 5, "pending": 10}
    assert (view["in_flight"], view["in_flight_limit"], view["reached"], view["epoch"]) == (5, 100, 10, 0)
    assert view["standing"]["code"] == "offering"
    assert [stage["phase"] for stage in view["stages"]] == ["open", "waiting"]
    assert view["stages"][0] | {"failures": 1, "confirmed": 4, "in_flight": 5, "opened": 20} == view["stages"][0]
    [total] = view["evidence"]
    assert (total["stratum"], total["k"], total["n"], total["threshold"]) == ("all", 1, 10, 20)
    assert (view["bound"]["k"], view["bound"]["n"]) == (6, 10)
    line = await it.store.read(lambda tx: views.rollout_line(rollout, tx.tally(rollout.id)))
    assert (line["confirmed"], line["failures"], line["in_flight"], line["stages"]) == (4, 1, 5, 2)


async def test_each_stage_is_passed_open_or_waiting(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((10, 10, REST)))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    assert [stage["phase"] for stage in (await seen(it))["stages"]] == ["passed", "open", "waiting"]


async def test_what_does_not_exist_is_not_shown(it: Plant) -> None:
    with pytest.raises(NotFoundError, match="no device 'none'"):
        await it.store.read(partial(views.device_view, device_id="none"))
    with pytest.raises(NotFoundError, match="no rollout named 'none'"):
        await seen(it, "none")


async def test_artifacts_and_releases_have_a_line_each(it: Plant) -> None:
    await it.write(stock)
    artifact = make_artifact(2, ("m1",), source_version="v7")
    line = views.artifact_line(artifact)
    assert (line["sha256"], line["hardware"], line["source_version"]) == (artifact.sha256, ["m1"], "v7")
    assert (line["format"], line["recognised"], line["warnings"]) == (artifact.format, "", [])
    noticed = replace(artifact, recognised="esp32", remarks=(Remark("no_hash", "it has none", "build it anew"),))
    warnings = [{"code": "no_hash", "text": "it has none", "remedy": "build it anew"}]
    line = views.artifact_line(noticed)
    assert (line["recognised"], line["warnings"]) == ("esp32", warnings)
    [release] = await it.store.read(lambda tx: tx.releases())
    assert views.release_line(release) == {
        "name": "radio-2.0.0",
        "version": "2.0.0",
        "rel": 2,
        "artifacts": [artifact.sha256],
        "moves": False,
        "created_at": 0.0,
    }
