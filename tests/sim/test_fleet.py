from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.broker import BrokerInfo
from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.credentials import Credential
from orchestrator.wire.report import Kind, decode_hello
from tests.sim.issuer import Build, Issuer
from tests.sim.scene import FAST, ear, fleet, offer
from tests.sim.web import Answer, Asked, Web, artifact, web
from tests.support.broker import StartBroker

D = "sim-00000"
ROAD = [Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED]


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web() as site:
        yield site


async def end(pid: int) -> None:
    """End a process and wait until it is gone."""
    handle = os.pidfd_open(pid)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, gone.set)
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    await gone.wait()
    asyncio.get_running_loop().remove_reader(handle)
    os.close(handle)


def one(**changes: Any) -> Behaviour:
    return Behaviour(devices=1, speed=FAST, **changes)


async def test_a_device_takes_a_trigger_to_the_end(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(good)
    logins = {D: Credential(D, token="secret")}
    async with (
        ear(open_broker) as heard,
        fleet(one(), issuer, broker=open_broker, server=server, credentials=logins) as played,
    ):
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.CONFIRMED, [D])
        reports = heard.reports(D)
    assert [report.kind for report in reports if report.kind is not Kind.PROGRESS] == ROAD
    assert [report.boot for report in reports[-2:]] == ["t-2", "t-2"]
    hellos = [decode_hello(each.payload, D) for each in heard.of("hello")]
    assert [(hello.ver, hello.boots) for hello in hellos] == [("1.0.0", 1), ("1.1.0", 2)]
    assert server.asked[0].headers["authorization"] == "Bearer secret"
    assert played.summary["versions"] == {"1.1.0": 1}
    assert played.summary["confirmed"] == 1
    assert played.summary["reports_sent"]["confirmed"] == 1


async def test_state_follows_the_power(issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web) -> None:
    server.routes["/a"] = artifact(good)
    async with ear(open_broker) as heard:
        async with fleet(one(), issuer, broker=open_broker, server=server):
            await heard.until_online([D])
            await heard.send(D, offer(issuer, D, good, server))
            await heard.until_said(Kind.CONFIRMED, [D])
        states = [each.said["online"] for each in heard.of("state", D)]
    assert states == [True, False, True]


async def test_a_bad_release_on_a_mixed_fleet(issuer: Issuer, bad: Build, open_broker: BrokerInfo, server: Web) -> None:
    server.routes["/a"] = artifact(bad)
    behaviour = Behaviour(devices=20, speed=FAST, seed=3, bad_share=0.3, offline_share=0.1)
    async with ear(open_broker) as heard, fleet(behaviour, issuer, broker=open_broker, server=server) as played:
        await heard.wait_for(lambda: len(heard.of("hello")) == 18)
        awake = {each.device for each in heard.of("hello")}
        for device in awake:
            await heard.send(device, offer(issuer, device, bad, server))
        ends = (Kind.CONFIRMED, Kind.ROLLED_BACK)
        await heard.wait_for(lambda: all(set(ends) & set(heard.kinds(device)) for device in awake))
        last = Counter(heard.kinds(device)[-1] for device in awake)
    summary = played.summary
    assert (summary["devices"], summary["offline"], summary["triggered"]) == (20, 2, 18)
    assert summary["rolled_back"] == last[Kind.ROLLED_BACK] == summary["crashed"]
    assert summary["confirmed"] == last[Kind.CONFIRMED]
    assert summary["versions"] == {"1.0.0": 2 + last[Kind.ROLLED_BACK], "1.2.0": last[Kind.CONFIRMED]}
    assert 4 <= last[Kind.ROLLED_BACK] <= 6


async def test_power_lost_in_mid_download_resumes_by_range(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(good)
    async with (
        ear(open_broker) as heard,
        fleet(one(power_loss_share=1.0), issuer, broker=open_broker, server=server) as played,
    ):
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.CONFIRMED, [D])
    assert [asked.headers.get("range") for asked in server.requests("/a")] == [None, "bytes=2048-"]
    assert "if-range" in server.asked[1].headers
    assert [each.boots for each in heard.reports(D)][-1] == 3
    assert played.summary["power_cut"] == 1


async def test_a_download_that_breaks_is_resumed(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    def breaking(asked: Asked) -> Answer:
        whole = artifact(good)(asked)
        return whole if server.asked else Answer(200, whole.body, whole.headers, cut_after=1000)

    server.routes["/a"] = breaking
    async with ear(open_broker) as heard, fleet(one(), issuer, broker=open_broker, server=server):
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.CONFIRMED, [D])
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=1000-"]


async def test_tampered_bytes_are_reported_and_never_run(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(Build.make("6.6.6", 6))
    async with ear(open_broker) as heard, fleet(one(), issuer, broker=open_broker, server=server) as played:
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.FAILED, [D])
    assert heard.reports(D)[-1].code == "hash_mismatch"
    assert played.summary["failed"] == {"hash_mismatch": 1}
    assert played.summary["versions"] == {"1.0.0": 1}


async def test_a_redirect_to_a_foreign_origin_fails_without_a_request(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    async with web("localhost") as foreign:
        foreign.routes["/a"] = artifact(good)
        server.routes["/a"] = lambda asked: Answer(302, headers={"location": f"{foreign.origin}/a"})
        async with ear(open_broker) as heard:
            async with fleet(one(), issuer, broker=open_broker, server=server):
                await heard.until_online([D])
                await heard.send(D, offer(issuer, D, good, server))
                await heard.until_said(Kind.FAILED, [D])
            assert heard.reports(D)[-1].code == "url_origin"
            async with fleet(one(), issuer, broker=open_broker, server=server, origins=[foreign.origin]):
                await heard.send(D, offer(issuer, D, good, server))
                await heard.until_said(Kind.CONFIRMED, [D])
    assert len(foreign.asked) == 1


async def test_a_recall_stops_a_waiting_device(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    async with ear(open_broker) as heard, fleet(one(), issuer, broker=open_broker, server=server) as played:
        await heard.until_online([D])
        bundle = offer(issuer, D, good, server, pol={"jit": 30_000_000})
        await heard.send(D, bundle)
        await heard.until_said(Kind.ACCEPTED, [D])
        await heard.send(D, issuer.recall(D, bundle))
        await heard.until_said(Kind.RECALLED, [D])
    assert (played.summary["recalled"], server.asked) == (1, [])


async def test_a_recall_cuts_a_download_off(issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web) -> None:
    # The server promises more than it sends and keeps the connection: only the recall can end it.
    server.routes["/a"] = lambda asked: Answer(200, good.data[:100], {"content-length": "4096"})
    async with ear(open_broker) as heard, fleet(one(), issuer, broker=open_broker, server=server) as played:
        await heard.until_online([D])
        bundle = offer(issuer, D, good, server)
        await heard.send(D, bundle)
        await server.wait_for(lambda: bool(server.asked))
        await heard.send(D, issuer.recall(D, bundle))
        await heard.until_said(Kind.RECALLED, [D])
    assert "failed" not in played.events(D)


async def test_duplicates_are_the_same_report_twice(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(good)
    async with ear(open_broker) as heard, fleet(one(duplicate_share=1.0), issuer, broker=open_broker, server=server):
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.wait_for(lambda: heard.kinds(D).count(Kind.CONFIRMED) == 2)
    payloads = [each.payload for each in heard.of("report")]
    assert payloads[::2] == payloads[1::2]


async def test_a_replaying_device_leaves_retained_reports_behind(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(good)
    async with ear(open_broker) as heard, fleet(one(replay_share=1.0), issuer, broker=open_broker, server=server):
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.CONFIRMED, [D])
        await heard.wait_for(lambda: heard.kinds(D).count(Kind.ACCEPTED) == 2)
    async with ear(open_broker) as later:
        await later.wait_for(lambda: bool(later.of("report")))
    assert [each.retained for each in later.of("report")] == [True]


async def test_a_silent_device_disconnects_for_ever(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    server.routes["/a"] = artifact(good)
    async with ear(open_broker) as heard, fleet(one(silent_share=1.0), issuer, broker=open_broker, server=server) as p:
        await heard.until_online([D])
        await heard.send(D, offer(issuer, D, good, server))
        await heard.until_said(Kind.INSTALLED, [D])
        await p.until(D, "silent")
        await heard.wait_for(lambda: heard.of("state")[-1].said["online"] is False)
    assert p.summary["silent"] == 1
    assert heard.kinds(D)[-1] is Kind.INSTALLED
    assert p.events(D)[-1] == "silent"


async def test_a_broker_that_restarts_loses_no_command(
    issuer: Issuer, good: Build, start_broker: StartBroker, server: Web, tmp_path: Path
) -> None:
    server.routes["/a"] = artifact(good)
    first = await start_broker(directory=tmp_path / "broker")
    assert first.pid is not None
    async with fleet(one(), issuer, broker=first, server=server) as played:
        async with ear(first) as heard:
            await heard.until_online([D])
        await end(first.pid)
        again = await start_broker(directory=tmp_path / "broker", port=first.port)
        async with ear(again) as heard:
            await heard.send(D, offer(issuer, D, good, server))
            await heard.until_said(Kind.CONFIRMED, [D])
    assert "broker_lost" in played.summary["link_lost"]


async def test_a_wrong_password_is_counted(issuer: Issuer, start_broker: StartBroker) -> None:
    broker = await start_broker(users={D: "right"})
    logins = {D: Credential(D, mqtt_password="wrong")}
    async with fleet(one(), issuer, broker=broker, credentials=logins) as played:
        await played.until(D, "link_lost", "login_refused")
    assert "connected" not in played.events(D)


# -- polling -------------------------------------------------------------------------------------------


def api(server: Web, answers: list[Answer]) -> None:
    """Answer polls with these, the last one for ever; take reports and hellos."""
    server.routes["/api/v1/firmware/version"] = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
    server.routes["/api/v1/report"] = lambda asked: Answer(202)
    server.routes["/api/v1/hello"] = lambda asked: Answer(202)


def polling(**changes: Any) -> Behaviour:
    return one(channels={"poll": 1.0}, poll_s=200.0, **changes)


def posted(server: Web) -> list[str]:
    return [
        asked.body.decode().partition('"kind":"')[2].partition('"')[0] for asked in server.requests("/api/v1/report")
    ]


async def test_a_device_without_mqtt_polls_and_posts(issuer: Issuer, good: Build, server: Web) -> None:
    api(server, [Answer(204), Answer(200, offer(issuer, D, good, server)), Answer(204)])
    server.routes["/a"] = artifact(good)
    logins = {D: Credential(D, token="secret")}
    async with fleet(polling(), issuer, server=server, credentials=logins) as played:
        await server.wait_for(lambda: "confirmed" in posted(server))
    assert [kind for kind in posted(server) if kind != "progress"] == [str(kind) for kind in ROAD]
    polls = server.requests("/api/v1/firmware/version")
    assert polls[0].path == "/api/v1/firmware/version?current=1.0.0"
    hellos = server.requests("/api/v1/hello")
    assert [decode_hello(asked.body, D).rel for asked in hellos] == [1, 2]
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer secret"}
    assert played.summary["versions"] == {"1.1.0": 1}


async def test_one_update_by_both_ways_is_begun_once(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, server: Web
) -> None:
    bundle = offer(issuer, D, good, server)
    api(server, [Answer(200, bundle)])
    server.routes["/a"] = artifact(good)
    both = one(channels={"both": 1.0}, poll_s=200.0)
    async with ear(open_broker) as heard, fleet(both, issuer, broker=open_broker, server=server) as played:
        await heard.until_online([D])
        await heard.send(D, bundle)
        await heard.until_said(Kind.CONFIRMED, [D])
        polled = len(server.requests("/api/v1/firmware/version"))
        await server.wait_for(lambda: len(server.requests("/api/v1/firmware/version")) > polled + 1)
    assert played.summary["accepted"] == 1
    assert played.summary["refreshed"] >= 1
    assert len(server.requests("/a")) == 1
    assert server.requests("/api/v1/report") == []


async def test_a_report_is_repeated_until_it_is_taken(issuer: Issuer, good: Build, server: Web) -> None:
    api(server, [Answer(200, offer(issuer, D, good, server))])
    hellos = [Answer(503), Answer(202)]
    server.routes["/api/v1/hello"] = lambda asked: hellos.pop(0) if len(hellos) > 1 else hellos[0]
    answers = [Answer(503), Answer(202), Answer(400), Answer(202)]
    server.routes["/api/v1/report"] = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
    server.routes["/a"] = lambda asked: Answer(404)
    async with fleet(polling(), issuer, server=server) as played:
        await server.wait_for(lambda: posted(server).count("failed") >= 2)
    assert posted(server)[:3] == ["accepted", "accepted", "failed"]
    assert played.summary["report_refused"] == {"http_400": 1, "http_503": 2}


async def test_polls_that_are_refused_are_counted(issuer: Issuer, server: Web) -> None:
    api(server, [Answer(401), Answer(200, b"x" * 20_000), Answer(204)])
    async with fleet(polling(), issuer, server=server) as played:
        await server.wait_for(lambda: len(server.requests("/api/v1/firmware/version")) >= 4)
    assert played.summary["poll_refused"] == {"http_401": 1, "oversize": 1}
    assert played.summary["triggered"] == 0


async def test_a_server_that_is_away_is_asked_again(issuer: Issuer, server: Web) -> None:
    api(server, [Answer(204)])
    server.routes["/api/v1/hello"] = lambda asked: Answer(202, cut_after=0, headers={"content-length": "9"})
    async with fleet(polling(), issuer, server=server) as played:
        await played.until(D, "link_lost", "server_unreachable")
        server.routes["/api/v1/hello"] = lambda asked: Answer(202)
        await played.until(D, "connected")
