"""One rollout, three roads: a third of the devices is pushed to, a third speaks DDI, a third are Arduinos that ask.

Rules:
- Two scenes have the same 300 devices: the same identifiers, models, order and faults. In one all are pushed to.
- A device with the fault fails with each release in the way of its kind: it falls back, it closes with a failure after
  the reboot, or it asks again and runs what it ran. The plan of `worn` bears that, the one of `bad` does not.
- In the hybrid scene the daemon is killed in the middle of `worn`. That changes nothing of what is expected.
- Emulated devices ask in rounds, so no device asks twice before every other one has asked once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.judging.gate import e_value, least_failures_to_halt
from orchestrator.core.targeting.cohort import rank, secret_from_seed
from orchestrator.core.trigger import statement_claims
from orchestrator.core.update import FAILURES
from orchestrator.demo import bucket
from orchestrator.demo.scene import BUCKET, Scene, Wishes, scene
from orchestrator.sim.draw import chosen, dealt
from orchestrator.sim.image import make_image
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.support.emulators.ddi import Ddi
from tests.support.emulators.updater import Updater
from tests.support.factory import make_artifact
from tests.support.observer import Seen, observer
from tests.web.arduino_site import CORES, flashed, image_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DEVICES = 300
IDS = [f"dev-{at:03d}" for at in range(DEVICES)]
PUSHED, ASKING = IDS[0::3], sorted(IDS[1::3] + IDS[2::3])
CORE = {each: list(CORES)[at % len(CORES)] for at, each in enumerate(IDS[2::3])}
MODEL = dict.fromkeys(PUSHED, "motor") | dict.fromkeys(IDS[1::3], "door") | {each: CORE[each] for each in CORE}
FORMATS = {"motor": "raw", "door": "raw"} | {core: core for core in CORES}
BAD_SHARE = 0.1
FIRST = 10
HALTING = 3
CHANNELS = {"push": 0.9, "both": 0.1}
AT_ONCE = 64
ROUNDS = 400
MODELS = ("motor", "door", *CORES)
RELS = {"worn": 2, "bad": 3}

View = dict[str, Any]
IMAGES = {(core, rel): image_of(core, rel) for core in CORES for rel in RELS.values()}
ENDED = {"done", "halted", "inconclusive"}


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is what.

    Attributes:
        seed: from which all follows.
        faulty: devices that have the fault.
        first: devices of a first stage of ten.
        asleep: of these, one that speaks DDI and one Arduino, without the fault: they do not ask until the halt.
    """

    seed: int
    faulty: frozenset[str]
    first: tuple[str, ...]
    asleep: frozenset[str]


def cast(seed: int) -> Cast | None:
    """Return the cast of a seed if its first stage has one faulty device of each kind, and two that can sleep."""
    secret = secret_from_seed(seed)
    first = sorted(IDS, key=lambda each: rank(secret, each))[:FIRST]
    faulty = chosen(seed, "bad", IDS, BAD_SHARE)
    kinds = [(each in CORE, each in PUSHED) for each in first if each in faulty]
    speaks = [each for each in first if MODEL[each] == "door" and each not in faulty]
    asks = [each for each in first if each in CORE and each not in faulty]
    if not speaks or not asks or sorted(kinds) != [(False, False), (False, True), (True, False)]:
        return None
    return Cast(seed, faulty, tuple(first), frozenset({speaks[0], asks[0]}))


CAST = next(found for found in map(cast, count()) if found is not None)


def plan(name: str, stages: Iterable[Mapping[str, object]], **more: object) -> View:
    deadlines = {"accept": "60s", "download": "60s", "install": "6s", "confirm": "60s"}
    return {"name": name, "release": name, "seed": CAST.seed, "stages": [*stages], "deadlines": deadlines, **more}


TOLERANT: View = {"max_failure_bound": "100%"}
AGAIN: View = {"transient": {"attempts": 5, "wait": "500ms"}}
WORN = plan(
    "worn", [{"devices": FIRST} | TOLERANT, {"devices": "rest"} | TOLERANT], halt={"tolerated": "30%"}, retry=AGAIN
)
HALTED = plan("bad", [{"devices": FIRST}, {"devices": "rest"}])


@dataclass
class Emulated:
    """The devices that ask, two thirds of the fleet.

    Attributes:
        ddi: those that speak DDI.
        arduino: those that fetch as Arduinos do.
        threads: in which Arduinos ask.
        asleep: devices that do not ask.
        took: how often which Arduino installed which image.
        answered: how many devices were answered in this round.
    """

    ddi: dict[str, Ddi]
    arduino: dict[str, Updater]
    threads: ThreadPoolExecutor
    asleep: frozenset[str] = frozenset()
    took: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: int = 0

    async def round(self, at_once: int = AT_ONCE) -> None:
        """Let each device that is awake ask once; one whose server is away asks again in the next round."""
        self.answered, gate = 0, asyncio.Semaphore(at_once)
        awake = [each for each in (*self.ddi, *self.arduino) if each not in self.asleep]
        await asyncio.gather(*(self._ask(each, gate) for each in awake))

    async def _ask(self, device: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                if device in self.ddi:
                    await self.ddi[device].poll()
                else:
                    await asyncio.get_running_loop().run_in_executor(self.threads, self._fetch, device)
            except (httpx2.TransportError, OSError):
                return
            self.answered += 1

    def _fetch(self, device: str) -> None:
        """Let an Arduino ask, and ask again once it was given something, as it does when it has rebooted."""
        unit = self.arduino[device]
        brought = True
        while brought:
            unit.spoils = device in CAST.faulty  # each time: it may ask again before its download is on record
            poll = unit.poll()
            if not poll.status:
                raise ConnectionError("it was cut off")
            assert poll.status in (200, 304), poll
            brought = poll.status == 200
            if poll.took:
                [rel] = (rel for rel in RELS.values() if unit.runs(IMAGES[CORE[device], rel]))
                self.took[device, f"{rel}.0.0"] += 1

    def installs(self) -> Counter[tuple[str, str]]:
        """Return how often which device installed which version."""
        spoken = Counter((each, version) for each, unit in self.ddi.items() for version in unit.installs)
        return spoken + self.took


@dataclass
class House:
    """A running deployment with its fleet.

    Attributes:
        scene: the deployment.
        seen: what passed its broker.
        emulated: the devices that ask, None where all are pushed to.
        fullest: for each rollout, most slots that were taken beyond those that its stage had earned; never above 0.
    """

    scene: Scene
    seen: Seen
    emulated: Emulated | None
    fullest: dict[str, int] = field(default_factory=dict)

    async def release(self, name: str) -> None:
        """Sign, upload and import an image for each model, and make a release of them."""
        rel, signer = RELS[name], FileSigner.load(self.scene.directory / "keys" / "artifact.pem")
        simulated = make_image(f"{rel}.0.0", rel, 8192, bad=True, seed=CAST.seed)
        made = []
        for at, models in enumerate(
            [("motor",), ("door",), *((core,) for core in CORES)] if self.emulated else [MODELS]
        ):
            image = IMAGES.get((models[0], rel), simulated + bytes([at]))
            sha256, format_ = encode64(hashlib.sha256(image).digest()), FORMATS[models[0]]
            stated = make_artifact(rel, models, size_bytes=len(image), sha256=sha256, format=format_)
            signed = signing_input(TokenType.ARTIFACT, signer.kid, statement_claims(stated, issued_at=1_700_000_000))
            key = f"{name}-{at}.bin"
            await bucket.put(self.scene.endpoint, BUCKET, key, image)
            await bucket.put(self.scene.endpoint, BUCKET, f"{key}.statement", assemble(signed, signer.sign(signed)))
            imported = await self.scene.api("POST", "/artifacts", {"uri": f"s3://{BUCKET}/{key}"})
            made.append(imported["sha256"])
        await self.scene.api("POST", "/releases", {"name": name, "artifacts": made})

    async def start(self, described: View) -> None:
        """Make a release, and the rollout of the same name, and start that."""
        name = described["name"]
        await self.release(name)
        await self.scene.api("POST", "/rollouts", described)
        await self.scene.api("POST", f"/rollouts/{name}/start", {})

    async def until(self, name: str, meets: Callable[[View], bool]) -> View:
        """Let the fleet do what it does until a rollout is as it should be, and return it."""
        view: View = {}
        for _ in range(ROUNDS):
            view = await self.scene.api("GET", f"/rollouts/{name}")
            earned = max(10, *(stage["confirmed"] for stage in view["stages"]))
            self.fullest[name] = max(self.fullest.get(name, -DEVICES), view["in_flight"] - earned)
            if meets(view):
                return view
            if self.emulated is not None:
                await self.emulated.round()
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} is {view['phase']}: {view['standing']}, {view['states']}")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what stands in the database."""
        with closing(sqlite3.connect(self.scene.directory / "state.db")) as database:
            return database.execute(query, values).fetchall()

    def updates(self, name: str) -> dict[str, tuple[str, int, int]]:
        """Return state, stage and attempt of each device that a rollout took; two updates of one device are a fault."""
        found = self.rows(
            "SELECT device_id, updates.state, updates.stage, attempt FROM updates "
            "JOIN rollouts ON rollouts.id = rollout_id WHERE name = ?",
            name,
        )
        assert len({device for device, *_ in found}) == len(found)
        return {device: (state, stage, attempt) for device, state, stage, attempt in found}


@asynccontextmanager
async def house(folder: Path, *, hybrid: bool) -> AsyncIterator[House]:
    """Set up a deployment with the fleet; without `hybrid` all of it is pushed to."""
    pushed = PUSHED if hybrid else IDS
    behaviour = {"channels": CHANNELS if hybrid else {"push": 1.0}, "poll_s": 25}
    config: dict[str, dict[str, object]] = {
        "unsigned_clients": {"allow": True, "reason": "a test"},
        "conductor": {"link_grace": "500ms", "ceiling_floor": 10 * DEVICES},
        "devices": {"poll_interval": "1s"},
        "ddi": {"poll_interval": "1s"},
    }
    bad_share = len(CAST.faulty.intersection(pushed)) / len(pushed)
    wishes = Wishes(1, CAST.seed, bad_share, 50.0, guarded=False, behaviour=behaviour, config=config)
    async with scene(folder, wishes) as made, observer(made.broker.host, made.broker.port) as seen:
        tokens = await _enrol(made, hybrid=hybrid)
        lines = [{"device": each, "model": MODEL[each], "token": tokens[each]} for each in pushed]
        (folder / "credentials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        await made.start_fleet()
        for _ in range(ROUNDS):
            if sum(item["seen_at"] is not None for item in await made.api("GET", "/devices?limit=1000")) == len(pushed):
                break
            await asyncio.sleep(0.05)
        limits = httpx2.Limits(max_connections=DEVICES)
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=True, limits=limits, timeout=30) as http:
            with ThreadPoolExecutor(len(CORE)) as threads:
                yield House(made, seen, _emulated(made, tokens, http, threads) if hybrid else None)


async def _enrol(made: Scene, *, hybrid: bool) -> dict[str, str]:
    speaks = {"door": "ddi"} | {core: core for core in CORES} if hybrid else {}
    said = {"version": "1.0.0", "rel": 1}
    devices = [{"id": each, "model": MODEL[each], "dialect": speaks.get(MODEL[each], "otad"), **said} for each in IDS]
    tokens: dict[str, str] = (await made.api("POST", "/devices", {"devices": devices}))["tokens"]
    return tokens


def _emulated(made: Scene, tokens: View, http: httpx2.AsyncClient, threads: ThreadPoolExecutor) -> Emulated:
    bad = frozenset(f"{RELS[name]}.0.0" for name in RELS)
    ddi = {
        each: Ddi(made.server, each, tokens[each], http, bad if each in CAST.faulty else frozenset())
        for each in ASKING
        if each not in CORE
    }
    versions = {image: f"{rel}.0.0" for (_, rel), image in IMAGES.items()}
    arduino = {
        each: CORES[core](
            ("127.0.0.1", made.port),
            flashed(core),
            login=(each, tokens[each]),
            version="1.0.0" if core == "pico" else "",
            versions=versions,
        )
        for each, core in CORE.items()
    }
    return Emulated(ddi, arduino, threads)


@dataclass(frozen=True, slots=True)
class Halt:
    """A halt by evidence.

    Attributes:
        view: the rollout when nothing was in flight any more.
        text: why it halted.
        moved_at: when.
        installs: what devices that ask had installed until it was seen.
        triggers: triggers that had passed the broker until then.
    """

    view: View
    text: str
    moved_at: float
    installs: Counter[tuple[str, str]]
    triggers: int


@dataclass(frozen=True, slots=True)
class Story:
    """What happened in a house.

    Attributes:
        house: the house, still running.
        worn: the rollout `worn` as it ended.
        halt: the rollout `bad`.
        killed: the rollout `worn` just before the daemon was killed, None where it was not.
    """

    house: House
    worn: View
    halt: Halt
    killed: View | None = None


async def _told(home: House) -> Story:
    await home.start(WORN)
    killed = None if home.emulated is None else await _killed(home, home.emulated)
    worn = await home.until("worn", lambda view: view["phase"] in ENDED)
    return Story(home, worn, await _halt(home), killed)


async def _killed(home: House, emulated: Emulated) -> View:
    """Kill the daemon in the middle of a rollout, and of a round; then all who ask come at once."""
    before = await home.until("worn", lambda view: view["stages"][1]["confirmed"] >= 40 and view["in_flight"] >= 10)
    asking = asyncio.create_task(emulated.round())
    while emulated.answered < 40 and not asking.done():
        await asyncio.sleep(0.001)
    await home.scene.kill_daemon()
    await asking
    await home.scene.start_daemon()
    await emulated.round(at_once=len(ASKING))
    return before


async def _halt(home: House) -> Halt:
    emulated = home.emulated
    if emulated is not None:
        emulated.asleep = CAST.asleep
    await home.start(HALTED)
    seen = await home.until("bad", lambda view: view["phase"] in ENDED)
    installs = emulated.installs() if emulated is not None else Counter()
    triggers = len(home.seen.road)
    if emulated is not None:
        emulated.asleep = frozenset()
        await emulated.round()
        await emulated.round()
    view = await home.until("bad", lambda view: not view["in_flight"])
    return Halt(view, seen["reason"]["text"], seen["moved_at"], installs, triggers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Story, Story]]:
    async with (
        house(tmp_path_factory.mktemp("pushed"), hybrid=False) as one,
        house(tmp_path_factory.mktemp("hybrid"), hybrid=True) as other,
    ):
        async with asyncio.TaskGroup() as group:
            told = [group.create_task(_told(home)) for home in (one, other)]
        yield told[0].result(), told[1].result()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pushed(stories: tuple[Story, Story]) -> Story:
    return stories[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hybrid(stories: tuple[Story, Story]) -> Story:
    return stories[1]


async def test_a_rollout_completes_with_the_evidence_of_one_that_is_all_pushed(pushed: Story, hybrid: Story) -> None:
    """k, n and E are equal in total and in each model, and so are the bound and the counts of each stage."""
    one, other = pushed.worn, hybrid.worn
    assert (one["phase"], other["phase"]) == ("done", "done"), (one["reason"], other["reason"])
    total = one["evidence"][0]
    assert (total["k"], total["n"]) == (len(CAST.faulty), DEVICES)
    assert [line["stratum"] for line in one["evidence"]] == ["all", *sorted(set(MODEL.values()))]
    assert other["evidence"] == one["evidence"]
    assert other["bound"] == one["bound"]
    kept = ("opened", "confirmed", "failures", "in_flight", "unreached")
    assert [[stage[key] for key in kept] for stage in other["stages"]] == [
        [stage[key] for key in kept] for stage in one["stages"]
    ]
    healthy = [each for each in IDS if each not in CAST.faulty]
    for story in (pushed, hybrid):
        found = story.house.updates("worn")
        assert sorted(found) == IDS
        assert [each for each, (state, _, _) in sorted(found.items()) if state == "confirmed"] == healthy
        assert {each for each, (_, stage, _) in found.items() if stage == 0} == set(CAST.first)


async def test_a_rollout_halts_upon_the_evidence_of_one_that_is_all_pushed(pushed: Story, hybrid: Story) -> None:
    """The whole reason is equal, with k, n, E and its limit at the halt: all ten of the first stage are offered the
    release before one of them can fail, and E passes its limit with the last of the three that do, whichever it is."""
    texts = [story.halt.text for story in (pushed, hybrid)]
    assert texts[0] == texts[1]
    found = e_value(HALTING, FIRST, 0.01)
    limit = 2 / 0.05
    assert least_failures_to_halt(FIRST, 0.01, limit) == HALTING
    assert texts[0].startswith(f"{HALTING} failed of {FIRST} devices: ")
    assert texts[0].endswith(f" is {found:.3g}, the limit {limit:.3g}")
    for story in (pushed, hybrid):
        states = {each: state for each, (state, _, _) in story.house.updates("bad").items()}
        assert set(states) == set(CAST.first)
        failed = {each for each, state in states.items() if state in FAILURES}
        assert failed == CAST.faulty.intersection(CAST.first)
        assert story.halt.view["phase"] == "halted"


async def test_no_device_gets_anything_after_the_halt(hybrid: Story) -> None:
    home, halt = hybrid.house, hybrid.halt
    emulated = home.emulated
    assert emulated is not None
    assert emulated.installs() == halt.installs
    assert home.seen.faults == []
    late = [name for name, _ in home.seen.road[halt.triggers :] if name is not None]
    assert late == []
    healthy = {each for each in CAST.first if each not in CAST.faulty | CAST.asleep}
    took = {device for device, version in halt.installs if version == "3.0.0"}
    assert took - CAST.faulty == healthy.intersection(ASKING)
    assert took <= set(CAST.first) - CAST.asleep
    states = home.updates("bad")
    assert {states[each][0] for each in CAST.asleep} == {"recalled"}
    assert [len(emulated.ddi[each].stopped) for each in CAST.asleep if each in emulated.ddi] == [1]
    given = home.rows(
        "SELECT device_id, settled_at FROM deliveries JOIN rollouts ON rollouts.id = rollout_id "
        "WHERE name = 'bad' AND kind = 'install' AND deliveries.state IN ('claimed', 'sent', 'unknown')"
    )
    assert {device for device, _ in given} == set(CAST.first)
    assert all(settled_at is not None and settled_at <= halt.moved_at for _, settled_at in given)


async def test_a_device_that_is_pushed_to_and_asks_as_well_is_counted_once(hybrid: Story) -> None:
    home = hybrid.house
    channels = dealt(CAST.seed, "channel", PUSHED, CHANNELS)
    both = {each for each in PUSHED if channels[each] == "both"}
    assert len(both) == 10
    assert both <= set(home.updates("worn"))
    confirmed = Counter(
        device
        for (device,) in home.rows(
            "SELECT device_id FROM reports JOIN updates ON updates.id = update_id "
            "JOIN rollouts ON rollouts.id = rollout_id WHERE name = 'worn' AND kind = 'confirmed'"
        )
    )
    assert confirmed == Counter(each for each in IDS if each not in CAST.faulty)
    assert hybrid.worn["evidence"][0]["n"] == DEVICES
    assert max(home.fullest.values()) <= 0


async def test_a_restart_in_a_storm_of_polls_loses_and_doubles_nothing(hybrid: Story) -> None:
    home, before = hybrid.house, hybrid.killed
    assert home.emulated is not None
    assert before is not None
    assert 40 <= before["states"]["confirmed"] < DEVICES - len(CAST.faulty)
    assert before["in_flight"] >= 10
    updates = home.updates("worn")
    assert {updates[each][2] for each in ASKING} == {1}
    installs = Counter(device for device, version in home.emulated.installs().elements() if version == "2.0.0")
    assert installs == Counter(each for each in ASKING if each not in CAST.faulty or each not in CORE)
    twice = home.rows(
        "SELECT update_id, kind FROM reports WHERE kind IN ('accepted', 'installed', 'confirmed', 'rolled_back') "
        "GROUP BY update_id, attempt, kind HAVING count(*) > 1"
    )
    assert twice == []
