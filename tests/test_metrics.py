"""What is measured: a real daemon is asked over loopback, an engine with a past is looked at, and the page agrees."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs import draw_metrics
from orchestrator.adapters.prometheus import Kind
from orchestrator.core.model import Phase, Urgency
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.core.rollout import Command
from orchestrator.daemon import metrics
from orchestrator.demo.broker import HOST, BrokerInfo, free_port
from orchestrator.engine.insight import vitals as module
from orchestrator.engine.insight.vitals import Vitals, vitals
from orchestrator.errors import UnavailableError
from orchestrator.ports import DeliveryState, Queue
from orchestrator.wire.report import Kind as Said
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, plant
from tests.support.scene import Deployment, daemon, operator

S = DeliveryState
NOT_METRICS = {"ota_resumption"}
"""What else is called so: a field of ESP-IDF."""

PAGE = draw_metrics.TARGET.read_text(encoding="utf-8")


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what was said, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def lint(text: str) -> str:
    """Return what promtool does not like."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=text, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


async def look(it: Plant) -> Vitals:
    return await it.store.read(lambda tx: vitals(tx, it.clock(), STANDARD))


# A real daemon


async def test_a_running_daemon_measures_all_that_is_described(tmp_path: Path, open_broker: BrokerInfo) -> None:
    watched = f"{HOST}:{free_port()}"
    config = Deployment.made(tmp_path, open_broker.port, metrics={"listen": watched}).write()
    async with daemon(config) as running:
        async with operator(await running.origin()) as http, httpx2.AsyncClient(trust_env=False) as stranger:
            while not (await http.get("/api/v1/status")).json()["broker_connected"]:
                await asyncio.sleep(0.02)
            assert (await stranger.get(f"{http.base_url}/metrics")).status_code == 401
            assert (await http.get("/readyz")).json() == {"ready": True, "faults": {}}
            text = (await http.get("/metrics")).text
            assert (await stranger.get(f"http://{watched}/metrics")).text.startswith("# HELP ota_build_info ")
            assert (await stranger.get(f"http://{watched}/readyz")).json()["ready"] is True
            assert (await stranger.get(f"http://{watched}/api/v1/status")).status_code == 404
        assert (await running.stop())[0] == 0
    assert lint(text) == ""
    described = set(re.findall(r"^# TYPE (ota_\w+) (\w+)$", text, re.MULTILINE))
    assert described == {(metric.name, metric.kind.value) for metric in metrics.ALL}
    said = values(text)
    for name in ("ota_broker_connected", "ota_store_writable", "ota_store_readable", "ota_keyset_epoch"):
        assert said[name, ()] == 1
    for name in ("ota_key_faults", "ota_devices", "ota_stops_unstored", "ota_outage", "ota_ingest_lag_seconds"):
        assert said[name, ()] == 0
    assert said["ota_http_requests_open", ()] == 1
    labels = (("edge", "api"), ("method", "GET"), ("route", "/api/v1/status"), ("status", "200"))
    assert said["ota_http_requests_total", labels] >= 1
    assert said[
        "ota_http_requests_total", (("edge", "probe"), ("method", "GET"), ("route", "/metrics"), ("status", "401"))
    ]
    assert said["ota_store_write_seconds_count", (("lane", "operator"),)] > 0
    assert said["ota_disk_free_bytes", ()] <= said["ota_disk_bytes", ()]
    assert said["ota_store_bytes", (("file", "database"),)] > 0
    assert said["ota_rollouts", (("phase", "halted"),)] == 0


async def test_devices_that_poll_and_cease_to_are_not_heard_as_the_status_says(
    tmp_path: Path, open_broker: BrokerInfo
) -> None:
    often = {"poll_interval": "1s"}
    quick = Deployment.made(tmp_path, open_broker.port, devices=often, ddi=often, conductor={"link_grace": "1s"})
    async with daemon(quick.write()) as running, operator(await running.origin()) as http:

        async def until(heard: bool) -> None:
            async with asyncio.timeout(20):
                while (await http.get("/api/v1/status")).json()["hearing"] is not heard:
                    await asyncio.sleep(0.05)
            assert values((await http.get("/metrics")).text)["ota_hearing", ()] == heard

        devices = [{"id": f"d{number}", "model": "m1"} for number in range(12)]
        made = await http.post("/api/v1/devices", json={"devices": devices})
        await until(True)
        for token in made.json()["tokens"].values():
            await http.get("/api/v1/firmware/version", headers={"Authorization": f"Bearer {token}"})
        await until(False)
        assert (await running.stop())[0] == 0


# What the database says


async def test_rollouts_are_told_of_by_stage_state_and_evidence(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        await it.enrol(40)
        rollout = await it.running(make_plan((20, REST), in_flight=20))
        await it.send()
        updates = await it.updates(rollout)
        await it.confirm(updates[:5])
        await it.say(updates[5:6], Said.FAILED, code="no_boot")
        found = await look(it)
    (course,) = found.courses
    assert course.updates == {(0, "confirmed"): 5, (0, "failed"): 1, (0, "offered"): 4, (0, "pending"): 10}
    (line,) = course.evidence
    assert (line.stratum, line.failures, line.exposed, line.threshold) == ("", 1, 10, 20)
    assert course.bound is not None
    assert (found.devices, found.phases[Phase.RUNNING], found.phases[Phase.HALTED]) == (40, 1, 0)
    assert set(found.phases) == set(Phase) - {Phase.DONE, Phase.ABORTED}
    assert found.in_flight == {**dict.fromkeys(Urgency, 0), Urgency.NORMAL: 4}
    assert (found.room.limit, found.room.spent, found.outage) == (500, 10, False)
    told = metrics._of_store(found, it.clock())
    assert told[metrics.UPDATES] == {
        ("spring", "0", "confirmed"): 5,
        ("spring", "0", "failed"): 1,
        ("spring", "0", "offered"): 4,
        ("spring", "0", "pending"): 10,
    }
    assert told[metrics.FAILURES] == {("spring", "all"): 1}
    assert told[metrics.PHASE] == {("spring", "running", "normal"): 1}


async def test_deliveries_are_told_of_by_what_they_wait_for(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        await it.enrol(10)
        planned_at = it.clock() + it.settings.grace_s
        rollout = await it.running(make_plan((REST,), in_flight=10))
        assert (await look(it)).queues == [Queue(S.PLANNED, True, 10, planned_at)]
        it.clock.advance(7)
        await it.sealer.seal_once()
        found = await look(it)
        assert found.queues == [Queue(S.SEALED, True, 10, planned_at)]
        told = metrics._of_store(found, it.clock())
        assert told[metrics.QUEUED] == {("sealed", "push"): 10}
        assert told[metrics.QUEUE_AGE] == {("sealed", "push"): 7}
        await it.dispatch()
        assert (await look(it)).queues == []
        assert (await it.rollout(rollout.id)).phase is Phase.RUNNING


async def test_what_a_pause_made_void_waits_for_nothing(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        await it.enrol(10)
        rollout = await it.running(make_plan((REST,), in_flight=10))
        await it.sealer.seal_once()
        await it.conductor.command(rollout.plan.name, Command.PAUSE, actor="ann", reason="wait")
        assert (await look(it)).queues == []


async def test_a_rollout_that_is_over_is_told_of_no_more(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        await it.enrol(4)
        rollout = await it.running(make_plan((REST,)))
        await it.conductor.command(rollout.plan.name, Command.ABORT, actor="ann", reason="enough")
        found = await look(it)
    assert found.courses == []
    assert found.phases.total() == 0


async def test_many_rollouts_make_no_more_lines_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    async with plant(tmp_path) as it:
        await it.enrol(1)
        for number in range(5):
            await it.create(make_plan((REST,), name=f"r{number}"))
        found = await look(it)
    assert [course.rollout.plan.name for course in found.courses] == ["r4", "r3", "r2"]
    assert found.phases[Phase.DRAFT] == 5


async def test_no_number_of_drafts_hides_a_rollout_that_was_halted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    async with plant(tmp_path) as it:
        await it.enrol(4)
        await it.running(make_plan((REST,), name="bad"))
        await it.conductor.command("bad", Command.HALT, actor="ann", reason="smoke")
        await it.running(make_plan((REST,), name="good"))
        for number in range(3):
            await it.create(make_plan((REST,), name=f"draft-{number}"))
        found = await look(it)
    assert [course.rollout.plan.name for course in found.courses] == ["bad", "good"]


class _Slow:
    """A store that answers when it is let to.

    Attributes:
        asked: how often it was asked.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def read(self, _: Any) -> str:
        self.asked += 1
        await self.answers.wait()
        if self.asked == 1:
            raise UnavailableError("the database is away", code="store")
        return "vitals"


async def test_a_store_that_does_not_answer_is_waited_for_once_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.01)
    store = _Slow()
    places = SimpleNamespace(store=store, conductor=SimpleNamespace(limits=STANDARD))
    watched = metrics.Metrics(cast(metrics.Places, places), lambda: 0.0)
    assert [await watched._look(), await watched._look()] == [None, None]
    assert store.asked == 1
    store.answers.set()
    await asyncio.gather(cast("asyncio.Future[object]", watched._looking), return_exceptions=True)
    assert cast(object, await watched._look()) == "vitals"


# Halts


async def test_a_halt_by_evidence_is_measured_to_its_last_trigger(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        it.dispatcher._reaction = it.conductor.reaction
        await it.enrol(20)
        rollout = await it.running(make_plan((REST,), in_flight=20))
        await it.send()
        done = await it.say((await it.updates(rollout))[:4], Said.FAILED, code="no_boot")
        it.conductor.changed(done.rollouts)
        assert (await it.advance(rollout)).phase is Phase.HALTED
        assert it.conductor.reaction.halts.below[-1][1] == 1
        await it.send()  # the recalls
        triggers = it.conductor.reaction.triggers
        assert (triggers.below[-1][1], triggers.total_s) == (1, 0)


async def test_a_person_who_halts_is_not_measured(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        await it.enrol(20)
        rollout = await it.running(make_plan((REST,)))
        await it.conductor.command(rollout.plan.name, Command.HALT, actor="ann", reason="smoke")
        await it.advance(rollout)
        assert it.conductor.reaction.halts.below[-1][1] == 0


# Names and the page


def test_names_are_those_of_prometheus() -> None:
    for metric in metrics.ALL:
        assert re.fullmatch(r"ota_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds")
        assert not metric.text.endswith(".")
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)


def test_the_page_is_up_to_date() -> None:
    assert draw_metrics.render() == PAGE, "run: python docs/draw_metrics.py"


def test_every_metric_is_on_the_page_once_and_no_other_one() -> None:
    rows = re.findall(r"^\| `(ota_\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(metric.name for metric in metrics.ALL)


def test_no_other_page_names_a_metric_that_is_not_measured() -> None:
    known = {metric.name for metric in metrics.ALL}
    ends = {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    root = draw_metrics.TARGET.parents[1]
    for page in [
        *root.glob("*.md"),
        *root.glob("docs/**/*.md"),
        *root.glob("deploy/**/*.md"),
        *root.glob("benchmarks/*.md"),
    ]:
        named = set(re.findall(r"`(ota_[a-z_]+)(?:\{[^`]*)?`", page.read_text(encoding="utf-8")))
        assert named - NOT_METRICS <= known | ends, page
