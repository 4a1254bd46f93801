"""A move with real connections: two brokers, two HTTP servers, and what is said at which of them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.broker import BrokerInfo, free_port
from orchestrator.sim.behaviour import Behaviour
from orchestrator.wire.report import Kind
from orchestrator.wire.topics import BEAT
from tests.adapters.mqtt.certificates import Authority
from tests.sim.issuer import Build, Issuer
from tests.sim.scene import FAST, Ear, ear, fleet, offer
from tests.sim.web import Answer, Asked, Web, artifact, web
from tests.support.broker import StartBroker

D = "sim-00000"


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web() as site:
        yield site


@pytest.fixture
async def new_server() -> AsyncIterator[Web]:
    async with web() as site:
        yield site


def one(**changes: Any) -> Behaviour:
    return Behaviour(devices=1, speed=FAST, **changes)


@asynccontextmanager
async def beating(issuer: Issuer, heard: Ear) -> AsyncIterator[None]:
    """Say beats at a broker, as a daemon does while devices move."""

    async def beat() -> None:
        while True:
            await heard.client.publish(BEAT, issuer.beat(1, 0, time.time()), qos=1, retain=True)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def states(heard: Ear) -> list[bool]:
    return [each.said["online"] for each in heard.of("state", D)]


def served(server: Web, document: Build) -> None:
    server.routes["/a"] = artifact(document)


async def test_a_device_moves_to_another_broker(
    issuer: Issuer, open_broker: BrokerInfo, start_broker: StartBroker, server: Web
) -> None:
    new = await start_broker()
    document = Build.move(1, mqtt=(f"mqtt://127.0.0.1:{free_port()}", new.url))  # nobody is at the first of them
    served(server, document)
    async with (
        ear(open_broker) as old_ear,
        ear(new) as new_ear,
        beating(issuer, new_ear),
        fleet(one(trial_s=86_400), issuer, broker=open_broker, server=server) as played,
    ):
        await old_ear.until_online([D])
        await old_ear.send(D, offer(issuer, D, document, server))
        await new_ear.until_said(Kind.CONFIRMED, [D])
        await old_ear.wait_for(lambda: states(old_ear) == [True, False])
        assert [kind for kind in old_ear.kinds(D) if kind is not Kind.PROGRESS] == [
            Kind.ACCEPTED,
            Kind.DOWNLOADED,
            Kind.INSTALLED,
        ]
        assert new_ear.kinds(D) == [Kind.RUNNING, Kind.CONFIRMED]
        assert [(each.said["eps"], each.said["boots"]) for each in new_ear.of("hello", D)] == [(1, 1)]
    assert ("link_lost", "broker_unreachable") in [(event, code) for _, event, code in played.tally.seen]
    assert (played.summary["moved"], played.summary["endpoints"]) == (1, {"1": 1})


async def test_a_device_comes_back_from_a_broker_without_a_daemon(
    issuer: Issuer, open_broker: BrokerInfo, start_broker: StartBroker, server: Web
) -> None:
    new = await start_broker()
    served(server, document := Build.move(1, mqtt=(new.url,)))
    async with (
        ear(open_broker) as old_ear,
        ear(new) as new_ear,
        beating(issuer, old_ear),
        fleet(one(trial_s=5000), issuer, broker=open_broker, server=server) as played,
    ):
        await new_ear.client.publish(BEAT, issuer.beat(1, 0, time.time() - 60), qos=1, retain=True)
        await old_ear.until_online([D])
        await old_ear.send(D, offer(issuer, D, document, server))
        await old_ear.until_said(Kind.ROLLED_BACK, [D])
        assert old_ear.reports(D)[-1].code == "endpoint_unreachable"
        assert new_ear.kinds(D) == [Kind.RUNNING]
        await new_ear.wait_for(lambda: states(new_ear) == [True, False])
        assert [each.said["eps"] for each in old_ear.of("hello", D)] == [0, 0]
        assert states(old_ear) == [True, False, True]
    assert (played.summary["moved_back"], played.summary["endpoints"]) == (1, {"0": 1})


async def test_a_device_whose_network_does_not_reach_the_broker_comes_back(
    issuer: Issuer, open_broker: BrokerInfo, start_broker: StartBroker, server: Web
) -> None:
    new = await start_broker()
    served(server, document := Build.move(1, mqtt=(new.url,)))
    async with (
        ear(open_broker) as old_ear,
        ear(new) as new_ear,
        beating(issuer, new_ear),
        fleet(one(trial_s=200, unreachable_share=1.0), issuer, broker=open_broker, server=server),
    ):
        await old_ear.until_online([D])
        await old_ear.send(D, offer(issuer, D, document, server))
        await old_ear.until_said(Kind.ROLLED_BACK, [D])
        assert new_ear.heard == []


async def encrypted(start_broker: StartBroker, authority: Authority) -> tuple[BrokerInfo, int]:
    """Start a broker, and return it with the port on which it speaks TLS."""
    pair, port = authority.issue("broker", "localhost"), free_port()
    lines = (f"listener {port} 127.0.0.1", f"certfile {pair.cert}", f"keyfile {pair.key}", "")
    return await start_broker(conf_extra="\n".join(lines)), port


async def test_another_broker_is_checked_like_the_first_one(
    issuer: Issuer, start_broker: StartBroker, server: Web, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "ours")
    old, old_port = await encrypted(start_broker, authority)
    new, new_port = await encrypted(start_broker, authority)
    served(server, document := Build.move(1, mqtt=(f"mqtts://localhost:{new_port}",)))
    tls = ssl.create_default_context(cafile=authority.cert)
    async with (
        ear(old) as old_ear,
        ear(new) as new_ear,
        beating(issuer, new_ear),
        fleet(one(trial_s=86_400), issuer, broker=replace(old, port=old_port), server=server, tls=tls),
    ):
        await old_ear.until_online([D])
        await old_ear.send(D, offer(issuer, D, document, server))
        await new_ear.until_said(Kind.CONFIRMED, [D])


def api(site: Web, offered: bytes = b"") -> None:
    answers = [Answer(200, offered)] if offered else []
    site.routes["/api/v1/firmware/version"] = lambda asked: answers.pop() if answers else Answer(204)
    site.routes["/api/v1/report"] = site.routes["/api/v1/hello"] = lambda asked: Answer(202)


def posted(site: Web) -> list[str]:
    bodies = [asked.body.decode() for asked in site.requests("/api/v1/report")]
    kinds = [body.partition('"kind":"')[2].partition('"')[0] for body in bodies]
    return [kind for kind in kinds if kind != "progress"]


def polling(**changes: Any) -> Behaviour:
    return one(channels={"poll": 1.0}, poll_s=200.0, **changes)


async def test_a_device_that_polls_asks_for_the_beat(issuer: Issuer, server: Web, new_server: Web) -> None:
    served(server, document := Build.move(1, http=(new_server.origin,)))
    api(server, offer(issuer, D, document, server))
    api(new_server)
    begun_at = time.time()

    def beat(asked: Asked) -> Answer:
        count = len(new_server.requests("/api/v1/beat"))
        old, fresh = (issuer.beat(1, 0, at) for at in (begun_at - 60, time.time() + 1))
        return Answer(503) if count < 2 else Answer(200, old if count < 4 else fresh)

    new_server.routes["/api/v1/beat"] = beat
    async with fleet(polling(trial_s=86_400), issuer, server=server) as played:
        await new_server.wait_for(lambda: "confirmed" in posted(new_server))
        await new_server.wait_for(lambda: len(new_server.requests("/api/v1/firmware/version")) > 2)
    assert posted(server) == ["accepted", "downloaded", "installed"]
    assert posted(new_server) == ["running", "confirmed"]
    assert b'"eps":1' in new_server.requests("/api/v1/hello")[0].body
    assert len(new_server.requests("/api/v1/beat")) == 5
    assert server.requests("/api/v1/beat") == []
    assert (played.summary["moved"], played.summary["endpoints"]) == (1, {"1": 1})


async def test_a_device_that_polls_comes_back(issuer: Issuer, server: Web, new_server: Web) -> None:
    served(server, document := Build.move(1, http=(f"http://127.0.0.1:{free_port()}", new_server.origin)))
    api(server, offer(issuer, D, document, server))
    api(new_server)
    async with fleet(polling(trial_s=10_000), issuer, server=server) as played:
        await server.wait_for(lambda: "rolled_back" in posted(server))
    assert posted(server) == ["accepted", "downloaded", "installed", "rolled_back"]
    assert posted(new_server) == ["running"]
    assert [b'"eps":0' in asked.body for asked in server.requests("/api/v1/hello")] == [True, True]
    assert played.summary["endpoints"] == {"0": 1}
