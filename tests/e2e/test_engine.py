"""The rollout engine, used as people and devices use it: whom a rollout takes, what stops it, and who helps it on.

Rules:
- One scene for the module; tests build on each other in their order, through the fixtures `spring` and `links`.
- Eight simulated devices hear by push, by poll or by both. Four hands say what the test tells them to.
- Three persons have accounts, so acts that loosen, hurry or go back wait for another one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo import bucket
from orchestrator.demo.scene import BUCKET, MODEL, Scene, Wishes, scene
from orchestrator.errors import UnavailableError
from orchestrator.sim.image import make_image
from orchestrator.wire.report import Kind
from tests.support.hand import Hand, Service, Word, broken_at_first, hands, healthy, service

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIMULATED = [f"sim-{at:05d}" for at in range(8)]
HAND_NAMES = [f"sim-{at:05d}" for at in range(8, 12)]
HAND = "hand-a"
BERLIN, OSLO = SIMULATED[:4], SIMULATED[4:]
IN_LAB, QUARANTINED = SIMULATED[6], SIMULATED[7]
TAKEN = SIMULATED[:6]
"""Those that the rollout `spring` takes."""

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """What all tests share: the scene, the hands, the service that gates ask."""

    scene: Scene
    hands: list[Hand]
    service: Service

    async def get(self, path: str) -> Any:
        return await self.scene.api("GET", path)

    async def post(self, path: str, **body: object) -> Any:
        return await self.scene.api("POST", path, body)

    async def ota(self, *words: str | Path, by: str = "") -> str:
        """Run a command, by the shared login or by a person with an account."""
        token = ("--token-file", self.scene.directory / f"{by}.token") if by else ()
        return await self.scene.ota(*token, *words)

    async def refused(self, *words: str | Path, by: str = "") -> str:
        """Run a command that must fail, and return what it says."""
        with pytest.raises(UnavailableError) as caught:
            await self.ota(*words, by=by)
        return caught.value.message.partition("error: ")[2]

    async def approved(self, *words: str | Path) -> str:
        """Let ann do what ben must approve, and return why he must."""
        why = await self.refused(*words, by="ann")
        found = re.search(r"`ota approve (\d+) --reason WHY`", why)
        assert found, why
        await self.ota("approve", found[1], "--reason", "read it", by="ben")
        await self.ota(*words, by="ann")
        return why

    async def until(self, name: str, meets: Callable[[View], bool]) -> View:
        """Wait until a rollout is as it should be, and return it."""
        view: View = {}
        for _ in range(600):
            view = await self.get(f"/rollouts/{name}")
            if meets(view):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} is {view['phase']}: {view['standing']}, {view['states']}")

    async def until_states(self, name: str, **wanted: int) -> View:
        """Wait until so many updates of a rollout are in these states, and none in others."""
        return await self.until(name, lambda view: +Counter(view["states"]) == Counter(wanted))

    async def until_done(self, name: str) -> View:
        return await self.until(name, lambda view: view["phase"] == "done")

    async def stands(self, name: str, code: str) -> str:
        """Wait until a rollout waits for something, and return how that is said."""
        view = await self.until(name, lambda view: view["standing"]["code"] == code)
        return str(view["standing"]["text"])

    async def release(self, name: str, rel: int, model: str) -> None:
        """Sign, upload and import an image, and make a release of it."""
        image = self.scene.directory / f"{name}.bin"
        image.write_bytes(make_image(f"{rel}.0.0", rel, 8192, bad=False, seed=len(model)))
        sha256 = await self.sign(image, rel, model)
        await self.post("/releases", name=name, artifacts=[sha256])

    async def sign(self, image: Path, rel: int, model: str, *more: str) -> str:
        """Sign an image, upload and import it, and return its hash."""
        version = f"{rel}.0.0"
        await self.ota(
            *("artifact", "sign", image, "--key", self.scene.directory / "keys" / "artifact.pem", "--name", "engine"),
            *("--version", version, "--rel", str(rel), "--hw", model, *more),
        )
        for path in (image, Path(f"{image}.statement")):
            await bucket.put(self.scene.endpoint, BUCKET, path.name, path.read_bytes())
        imported: View = await self.post("/artifacts", uri=f"s3://{BUCKET}/{image.name}")
        return str(imported["sha256"])

    async def draft(self, name: str, release: str, stages: list[View], **more: object) -> View:
        plan = {"name": name, "release": release, "stages": stages, **more}
        return dict(await self.post("/rollouts", **plan))

    async def start(self, name: str) -> None:
        await self.post(f"/rollouts/{name}/start", reason="")

    async def update(self, device: str, rollout: str) -> View:
        """Return the update of a device in a rollout."""
        updates = (await self.get(f"/devices/{device}"))["updates"]
        (found,) = (item for item in updates if item["rollout"] == rollout)
        return dict(found)

    async def running(self) -> dict[str, int]:
        """Return the release counter that each simulated device says it runs."""
        return {item["id"]: item["rel"] for item in await self.get("/devices") if item["id"] in SIMULATED}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    behaviour = {"channels": {"push": 3, "poll": 3, "both": 2}, "download_s": [1, 2], "poll_s": 5}
    async with service() as asked:
        config: dict[str, dict[str, object]] = {"gates": {"origins": [asked.origin]}, "recorder": {"device_burst": 200}}
        devices = len(SIMULATED) + len(HAND_NAMES)
        wishes = Wishes(devices=devices, speed=20.0, behaviour=behaviour, config=config)
        async with (
            scene(tmp_path_factory.mktemp("engine"), wishes) as running,
            hands(running.broker, HAND, _hand_logins(running)) as by_hand,
        ):
            made = Stage(running, by_hand, asked)
            await running.start_fleet()
            for name, role in (("ann", "operator"), ("ben", "approver"), ("eve", "approver")):
                out = running.directory / f"{name}.token"
                await made.ota("operator", "add", name, "--person", name, "--role", role, "--token-out", out)
            yield made


def _hand_logins(running: Scene) -> dict[str, str]:
    """Take the logins of the hands out of the file that the simulated fleet reads."""
    path = running.directory / "credentials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["device"] in SIMULATED))
    return {line["device"]: line["mqtt_password"] for line in lines if line["device"] in HAND_NAMES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spring(stage: Stage) -> View:
    """The rollout `spring` at its end, with what was foreseen of it."""
    facts = [{"id": each, "site": "berlin", "time_zone": "UTC"} for each in BERLIN]
    facts += [{"id": each, "site": "oslo", "time_zone": "Asia/Tokyo"} for each in OSLO]
    facts[SIMULATED.index(IN_LAB)]["tags"] = ["lab"]  # type: ignore[assignment]
    await stage.post("/devices/facts", devices=facts)
    text = await stage.ota("device", "quarantine", QUARANTINED, "--reason", "water damage")
    assert text == "1 device quarantined\n"
    await stage.release("fw-2", 2, MODEL)
    stages: list[View] = [{"devices": 3}, {"devices": "rest"}]
    target = {"target": {"models": [MODEL]}, "select": "not tag(lab)", "stratify": "site"}
    await stage.draft("spring", "fw-2", stages, **target)
    foreseen = json.loads(await stage.ota("rollout", "preview", "spring", "-o", "json"))
    await stage.start("spring")
    return {"foreseen": foreseen, "done": await stage.until_done("spring")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def links(stage: Stage) -> View:
    """The rollout `links` with all its devices resolved: two were broken at first."""
    stage.hands[0].answer = broken_at_first(Word(Kind.ACCEPTED), Word(Kind.FAILED, "link_lost"))
    stage.hands[1].answer = broken_at_first(Word(Kind.ACCEPTED), Word(Kind.ROLLED_BACK, "self_test_crash"))
    await stage.release("hand-2", 2, HAND)
    stages: list[View] = [{"devices": "rest", "approve": True, "max_failure_bound": "90%"}]
    retry = {"transient": {"attempts": 3, "wait": "100ms", "jitter": "0%"}}
    await stage.draft("links", "hand-2", stages, retry=retry)
    await stage.start("links")
    return await stage.until_states("links", confirmed=3, rolled_back=1)


async def test_a_preview_names_the_devices_that_each_stage_then_takes(stage: Stage, spring: View) -> None:
    foreseen = spring["foreseen"]
    assert (foreseen["exact"], foreseen["fleet"], foreseen["devices"]) == (True, 12, 6)
    assert [item["strata"] for item in foreseen["stages"]] == [{"berlin": 2, "oslo": 1}, {"berlin": 2, "oslo": 1}]
    assert sorted(each for item in foreseen["stages"] for each in item["ids"]) == TAKEN
    for item in foreseen["stages"]:
        assert {(await stage.update(each, "spring"))["stage"] for each in item["ids"]} == {item["index"]}
    left_out = {item["code"]: item["ids"] for item in foreseen["left_out"]}
    assert left_out == {"quarantined": [QUARANTINED], "not_selected": [IN_LAB], "no_artifact": HAND_NAMES}
    assert sum(item["online"] is None for item in await stage.get("/devices")) == 3  # they only ever poll
    done = spring["done"]
    assert (done["cohort_size"], done["states"]["confirmed"]) == (6, 6)
    assert await stage.running() == dict.fromkeys(TAKEN, 2) | {IN_LAB: 1, QUARANTINED: 1}


@pytest.mark.usefixtures("spring")
async def test_a_quarantined_device_says_why_until_it_is_released(stage: Stage) -> None:
    assert "water damage" in await stage.ota("device", "list", "--quarantined")
    assert "water damage" in await stage.ota("device", "explain", QUARANTINED)
    assert await stage.ota("device", "release", QUARANTINED, "--reason", "dry") == "1 device released\n"
    assert (await stage.get(f"/devices/{QUARANTINED}"))["quarantine"] in (None, "")


async def test_a_broken_link_is_tried_again_and_a_failure_stays_in_the_evidence(stage: Stage, links: View) -> None:
    patient, crashed = stage.hands[:2]
    assert [item["k"] for item in links["evidence"]] == [1]
    again = await stage.update(patient.name, "links")
    assert (again["state"], again["attempt"], len(patient.attempts)) == ("confirmed", 2, 2)
    told = re.findall("install sent|said [a-z]+", await stage.ota("device", "explain", patient.name))
    tries = ["install sent", "said accepted", "said failed", "install sent", "said accepted", "said installed"]
    assert told == [*tries, "said confirmed"]
    assert (await stage.update(crashed.name, "links"))["attempt"] == 1
    told_once = await stage.ota("device", "explain", crashed.name)
    assert told_once.count("it went back to its old release: self_test_crash") == 1
    await stage.ota("rollout", "retry", "links", "--reason", "the antenna was changed")
    view = await stage.until_states("links", confirmed=4, retried=1)
    assert [(item["k"], item["n"]) for item in view["evidence"]] == [(1, 4)]
    assert view["bound"]["k"] == 1
    assert (await stage.update(crashed.name, "links"))["attempt"] == 2


@pytest.mark.usefixtures("links")
async def test_a_stage_that_wants_a_person_waits_for_two(stage: Stage) -> None:
    assert "ota rollout advance" in await stage.stands("links", "manual_gate")
    why = await stage.approved("rollout", "advance", "links", "--reason", "the lab saw what it wanted")
    assert "stage 1 would pass on a person's word" in why
    await stage.until_done("links")
    people = [item["actor"] for item in (await stage.get("/rollouts/links/explain"))["events"]]
    assert "ann" in people


@pytest.mark.usefixtures("links")
async def test_a_service_a_new_plan_and_a_person_let_stages_pass(stage: Stage) -> None:
    for each in stage.hands:
        each.answer = healthy
    stage.service.document = {"errors": {"rate": 0.5}}
    gate = {"url": f"{stage.service.origin}/ota?release=3", "condition": "errors.rate < 0.01", "every": "200ms"}
    soaking = [{"devices": size, "soak": "1h"} for size in (1, 1, "rest")]
    stages: list[View] = [{"devices": 1, "gate": gate}, *soaking]
    await stage.release("hand-3", 3, HAND)
    plan = await _written(stage, "asked", release="hand-3", stages=stages)
    await stage.ota("rollout", "create", "-f", plan)
    await stage.start("asked")
    said = "errors.rate < 0.01 does not hold: it is 0.5"
    held = await stage.until("asked", lambda view: view["standing"]["text"] == said)
    assert (held["standing"]["code"], held["stage"], +Counter(held["states"])) == ("service_gate", 0, {"confirmed": 1})
    assert set(stage.service.asked) == {"/ota?release=3"}
    stage.service.document = {"errors": {"rate": 0.001}}
    await stage.until("asked", lambda view: (view["stage"], view["standing"]["code"]) == (1, "soaking"))

    slower = await _written(stage, "asked", release="hand-3", stages=stages, in_flight=50)
    edit = ("rollout", "edit", "asked", "-f", slower, "--reason")
    assert await stage.ota(*edit, "slower over the holidays") == ("  in_flight: 100 -> 50\nasked has plan version 2\n")
    stages[1]["soak"] = "100ms"
    plan = await _written(stage, "asked", release="hand-3", stages=stages, in_flight=50)
    shown = await stage.ota("rollout", "edit", "asked", "-f", plan, "--dry-run")
    assert shown == "  stages.1.soak: 1h -> 100ms  loosens\n"
    why = await stage.approved("rollout", "edit", "asked", "-f", plan, "--reason", "seen enough")
    assert "it loosens stages.1.soak" in why
    await stage.until("asked", lambda view: (view["stage"], view["standing"]["code"]) == (2, "soaking"))
    assert [item["version"] for item in await stage.get("/rollouts/asked/history")] == [1, 2, 3]

    why = await stage.approved("rollout", "skip", "asked", "--reason", "that site is closed")
    assert "stage 3 would pass on a person's word" in why
    await stage.until("asked", lambda view: (view["stage"], view["standing"]["code"]) == (3, "soaking"))
    assert "this is the last stage" in await stage.refused("rollout", "skip", "asked", "--reason", "x", by="ann")
    await stage.approved("rollout", "advance", "asked", "--reason", "the lab is content")
    assert (await stage.until_done("asked"))["states"]["confirmed"] == 4


async def _written(stage: Stage, name: str, **plan: object) -> Path:
    path = stage.scene.directory / f"{name}.json"
    path.write_text(json.dumps({"name": name, **plan}))
    return path


async def test_devices_that_measure_themselves_sick_halt_a_rollout(stage: Stage) -> None:
    for each, degrees in zip(stage.hands, (40.0, 95.0, 41.5, 95.0), strict=True):
        each.answer = lambda attempt, degrees=degrees: healthy(attempt, temperature=degrees)  # type: ignore[misc]
    await stage.release("hand-4", 4, HAND)
    health = [{"metric": "temperature", "must_be": "below 80"}]
    await stage.draft("sick", "hand-4", [{"devices": "rest"}], health=health)
    await stage.start("sick")
    view = await stage.until("sick", lambda view: view["phase"] == "halted")
    assert view["reason"]["code"] == "evidence"
    assert [item["k"] for item in view["evidence"]] == [2]
    assert "halts at 20; that is enough to halt" in await stage.ota("rollout", "explain", "sick")
    text = await stage.ota("device", "explain", stage.hands[1].name)
    assert "unhealthy" in text and "temperature=95" in text


@pytest.mark.usefixtures("spring")
async def test_devices_go_back_where_a_statement_allows_it_and_another_person_agrees(stage: Stage) -> None:
    await stage.release("fw-1", 1, MODEL)
    back = ("rollout", "rollback", "spring", "--reason", "it loses packets")
    assert "`ota artifact sign --leave 2 --replace`" in await stage.refused(*back)
    await stage.sign(stage.scene.directory / "fw-1.bin", 1, MODEL, "--leave", "2", "--replace")
    made = json.loads(await stage.ota(*back, "-o", "json"))
    assert (made["name"], made["release"], made["phase"]) == ("spring-rollback", "fw-1", "draft")
    why = await stage.approved("rollout", "start", "spring-rollback")
    assert "it brings an older release than an earlier rollout did" in why
    done = await stage.until_done("spring-rollback")
    assert (done["cohort_size"], done["states"]["confirmed"]) == (6, 6)
    assert await stage.running() == dict.fromkeys(SIMULATED, 1)


@pytest.mark.usefixtures("spring")
async def test_a_fix_takes_over_what_a_paused_rollout_has_not_begun(stage: Stage) -> None:
    await stage.post("/devices/release", devices=[QUARANTINED], reason="dry")
    before = await stage.running()
    await stage.release("fw-3", 3, MODEL)
    await stage.release("fw-4", 4, MODEL)
    now = datetime.now(UTC)
    hours = f"{(now.hour - 1) % 24:02}:00-{(now.hour + 2) % 24:02}:00"
    await stage.draft("slow", "fw-3", [{"devices": "rest"}], window={"open": [hours]})
    await stage.start("slow")
    await stage.until_states("slow", confirmed=4, pending=4)
    await stage.ota("rollout", "pause", "slow", "--reason", "a hole was found")
    assert await stage.running() == before | dict.fromkeys(BERLIN, 3)

    mends = {"advisories": ["CVE-2026-1234"], "fixes": {"below": 4}, "severity": "critical"}
    await stage.draft("mend", "fw-4", [{"devices": 4}, {"devices": "rest"}], urgency="security", **mends)
    exposed = json.loads(await stage.ota("fleet", "exposed", "mend", "-o", "json"))
    assert (exposed["fleet"], exposed["vulnerable"], exposed["unknown"]) == (12, 8, 0)
    assert {item["name"]: item["vulnerable"] for item in exposed["sites"]["named"]} == {"berlin": 4, "oslo": 4}
    await stage.start("mend")
    assert (await stage.until_done("mend"))["states"]["confirmed"] == 8
    await stage.until_states("slow", confirmed=4, superseded=4)
    text = await stage.ota("fleet", "exposed", "--advisory", "CVE-2026-1234")
    assert text.startswith("0 of 12 devices run a vulnerable version")
    assert await stage.ota("fleet", "exposed", "mend", "--export", "csv") == (
        "id,status,model,version,rel,site,groups,online,seen_at\n"
    )
    curve = json.loads(await stage.ota("rollout", "curve", "mend", "-o", "json"))
    assert (curve["offered"]["devices"], curve["confirmed"]["devices"]) == (8, 8)
    assert 0 <= curve["offered"]["t50_s"] <= curve["confirmed"]["t50_s"] <= curve["confirmed"]["t95_s"]
    assert (curve["points"][-1]["offered"], curve["points"][-1]["confirmed"]) == (8, 8)
    assert await stage.running() == dict.fromkeys(SIMULATED, 4)
