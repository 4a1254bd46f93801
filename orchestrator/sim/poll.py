"""The HTTP side of a simulated device: it asks for offers, and posts reports where it has no MQTT.

Rules:
- A poll brings the same bundle as MQTT would, and the device judges it the same way.
- A report leaves the outbox on a 2xx answer; one that the server refuses for good (4xx) is given up.
- The server is asked at the device's own pace, however fast it answers.
- What was said before a move goes to the server that was left, as far as that one still answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import httpx2

from orchestrator.sim.agent import Agent
from orchestrator.sim.draw import draw
from orchestrator.sim.events import Beat, Command, NewKeys, Reached
from orchestrator.sim.flash import Way
from orchestrator.sim.outbox import Parcel
from orchestrator.wire.report import encode

MAX_BUNDLE_BYTES = 16_384
EPOCH_HEADER = "Ota-Key-Epoch"
MAX_EPOCH_DIGITS = 16
_KEYS_PATH = "/api/v1/keys"
_BEAT_PATH = "/api/v1/beat"
_POLL_PATH = "/api/v1/firmware/version"
_REPORT_PATH = "/api/v1/report"
_HELLO_PATH = "/api/v1/hello"
_PAUSE_S = 1.0


async def poll(agent: Agent) -> None:
    """Ask for an offer once per interval whenever the device has power, until cancelled."""
    profile = agent.unit.profile
    await asyncio.sleep(profile.pace.poll_s * draw(profile.behaviour.seed, "poll", agent.device))
    while True:
        await agent.until(lambda: agent.powered and bool(agent.servers))
        try:
            await _ask(agent, agent.servers[0])
        except httpx2.HTTPError:
            agent.lose_server()
        await asyncio.sleep(profile.pace.poll_s)


async def post(agent: Agent) -> None:
    """Post a hello after each boot and move, and reports as they come, until cancelled."""
    greeted, way, server = 0, agent.unit.way, ""
    while True:
        await agent.until(partial(_has_news, agent, greeted, way))
        if way != agent.unit.way:
            way = agent.unit.way
            await _take_leave(agent, server)
            continue
        server = agent.servers[0]
        try:
            if _is_up_anew(agent, greeted):
                greeted = await _greet(agent, server, greeted)
            elif (parcel := agent.outbox.head()) is not None:
                await _report(agent, server, parcel)
        except httpx2.HTTPError:
            agent.lose_server()
            await asyncio.sleep(_PAUSE_S)


async def prove(agent: Agent) -> None:
    """Ask for a beat as long as addresses are on trial, until cancelled."""
    while True:
        await agent.until(lambda: agent.powered and agent.unit.trial is not None and bool(agent.servers))
        way = agent.unit.way
        try:
            answer = await _get(agent, agent.servers[0], _BEAT_PATH, {})
            if answer is not None:
                agent.feed(Beat(answer.body, way.rel))
        except httpx2.HTTPError:
            agent.lose_server()
        await asyncio.sleep(agent.unit.profile.pace.retry_s)


def _has_news(agent: Agent, greeted: int, way: Way) -> bool:
    if way != agent.unit.way:
        return True
    # Without power there is still news: what was said before an orderly reboot.
    return bool(agent.servers) and (agent.outbox.head() is not None or _is_up_anew(agent, greeted))


def _is_up_anew(agent: Agent, greeted: int) -> bool:
    return agent.powered and agent.ups != greeted


async def _take_leave(agent: Agent, server: str) -> None:
    with suppress(httpx2.HTTPError):
        while (parcel := agent.outbox.head()) is not None and await _report(agent, server, parcel):
            pass


async def _ask(agent: Agent, server: str) -> None:
    """Ask for an offer; before it is judged, take the keysets that the server has and we have not."""
    params = {"current": agent.unit.running.version}
    answer = await _get(agent, server, _POLL_PATH, params)
    if answer is None:
        return
    while (ours := agent.unit.flash.keyset.ep) < answer.epoch and agent.powered:
        keys = await _get(agent, server, f"{_KEYS_PATH}/{ours + 1}", {})
        if keys is None or not keys.body:
            break
        agent.feed(NewKeys(keys.body))
        if agent.unit.flash.keyset.ep == ours:
            break  # refused; asking again would bring the same
    if answer.body and agent.powered:
        agent.feed(Command(answer.body))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the server said: a bundle, or nothing, and the key epoch that it signs under."""

    body: bytes
    epoch: int


async def _get(agent: Agent, server: str, path: str, params: dict[str, str]) -> _Answer | None:
    body = bytearray()
    async with agent.links.http.stream("GET", server + path, params=params, headers=_headers(agent)) as response:
        if response.status_code not in (httpx2.codes.OK, httpx2.codes.NO_CONTENT):
            agent.observe("poll_refused", code=f"http_{response.status_code}")
            return None
        async for data in response.aiter_bytes():
            body += data
            if len(body) > MAX_BUNDLE_BYTES:
                agent.observe("poll_refused", code="oversize")
                return None
        epoch = response.headers.get(EPOCH_HEADER, "")
        return _Answer(bytes(body), int(epoch) if epoch.isdecimal() and len(epoch) <= MAX_EPOCH_DIGITS else 0)


async def _greet(agent: Agent, server: str, greeted: int) -> int:
    ups, way, hello = agent.ups, agent.unit.way, agent.greeting()
    assert hello is not None, "there is a hello to say"
    response = await _send(agent, server + _HELLO_PATH, encode(hello))
    if not response.is_success:
        await _refused(agent, response)
        return greeted
    agent.observe("connected")
    agent.outbox.replay()
    agent.feed(Reached(way.rel))
    return ups


async def _report(agent: Agent, server: str, parcel: Parcel) -> bool:
    """Send a report, and return whether the server took it."""
    response = await _send(agent, server + _REPORT_PATH, parcel.payload)
    if response.is_success:
        agent.outbox.done(parcel)
        agent.observe("sent", att=parcel.report.att, parcel=parcel)
        return True
    if response.is_client_error and response.status_code != httpx2.codes.TOO_MANY_REQUESTS:
        agent.outbox.done(parcel)
    await _refused(agent, response)
    return False


async def _refused(agent: Agent, response: httpx2.Response) -> None:
    agent.observe("report_refused", code=f"http_{response.status_code}")
    await asyncio.sleep(_PAUSE_S)


async def _send(agent: Agent, url: str, payload: bytes) -> httpx2.Response:
    headers = {**_headers(agent), "content-type": "application/json"}
    return await agent.links.http.post(url, content=payload, headers=headers)


def _headers(agent: Agent) -> dict[str, str]:
    token = agent.credential.token
    return {} if token is None else {"authorization": f"Bearer {token}"}
