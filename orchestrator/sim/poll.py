"""The HTTP side of a simulated device: it asks for offers, and posts reports where it has no MQTT.

Rules:
- A poll brings the same bundle as MQTT would, and the device judges it the same way.
- A report leaves the outbox on a 2xx answer; one that the server refuses for good (4xx) is given up.
- The server is asked at the device's own pace, however fast it answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import httpx2

from orchestrator.sim.agent import Agent
from orchestrator.sim.draw import draw
from orchestrator.sim.events import Command, NewKeys
from orchestrator.sim.outbox import Parcel
from orchestrator.wire.report import encode

MAX_BUNDLE_BYTES = 16_384
EPOCH_HEADER = "Ota-Key-Epoch"
MAX_EPOCH_DIGITS = 16
_KEYS_PATH = "/api/v1/keys"
_POLL_PATH = "/api/v1/firmware/version"
_REPORT_PATH = "/api/v1/report"
_HELLO_PATH = "/api/v1/hello"
_PAUSE_S = 1.0


async def poll(agent: Agent) -> None:
    """Ask for an offer once per interval whenever the device has power, until cancelled."""
    profile = agent.unit.profile
    await asyncio.sleep(profile.pace.poll_s * draw(profile.behaviour.seed, "poll", agent.device))
    while True:
        await agent.until(lambda: agent.powered)
        try:
            await _ask(agent)
        except httpx2.HTTPError:
            agent.observe("link_lost", code="server_unreachable")
        await asyncio.sleep(profile.pace.poll_s)


async def post(agent: Agent) -> None:
    """Post a hello after each boot, and reports as they come, until cancelled."""
    greeted = ""
    while True:
        await agent.until(partial(_has_news, agent, greeted))
        try:
            if _is_new(agent, greeted):
                greeted = await _greet(agent, greeted)
            elif (parcel := agent.outbox.head()) is not None:
                await _report(agent, parcel)
        except httpx2.HTTPError:
            agent.observe("link_lost", code="server_unreachable")
            await asyncio.sleep(_PAUSE_S)


def _has_news(agent: Agent, greeted: str) -> bool:
    # Without power there is still news: what was said before an orderly reboot.
    return agent.outbox.head() is not None or (agent.powered and _is_new(agent, greeted))


def _is_new(agent: Agent, greeted: str) -> bool:
    return agent.hello is not None and agent.hello.boot != greeted


async def _ask(agent: Agent) -> None:
    """Ask for an offer; before it is judged, take the keysets that the server has and we have not."""
    params = {"current": agent.unit.running.version}
    answer = await _get(agent, _POLL_PATH, params)
    if answer is None:
        return
    while (ours := agent.unit.flash.keyset.ep) < answer.epoch and agent.powered:
        keys = await _get(agent, f"{_KEYS_PATH}/{ours + 1}", {})
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


async def _get(agent: Agent, path: str, params: dict[str, str]) -> _Answer | None:
    body = bytearray()
    async with agent.links.http.stream(
        "GET", agent.links.server + path, params=params, headers=_headers(agent)
    ) as response:
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


async def _greet(agent: Agent, greeted: str) -> str:
    hello = agent.hello
    assert hello is not None, "there is a hello to say"
    response = await _send(agent, _HELLO_PATH, encode(hello))
    if not response.is_success:
        await _refused(agent, response)
        return greeted
    agent.observe("connected")
    agent.outbox.replay()
    return hello.boot


async def _report(agent: Agent, parcel: Parcel) -> None:
    response = await _send(agent, _REPORT_PATH, parcel.payload)
    if response.is_success:
        agent.outbox.done(parcel)
        agent.observe("sent", att=parcel.report.att, parcel=parcel)
        return
    if response.is_client_error and response.status_code != httpx2.codes.TOO_MANY_REQUESTS:
        agent.outbox.done(parcel)
    await _refused(agent, response)


async def _refused(agent: Agent, response: httpx2.Response) -> None:
    agent.observe("report_refused", code=f"http_{response.status_code}")
    await asyncio.sleep(_PAUSE_S)


async def _send(agent: Agent, path: str, payload: bytes) -> httpx2.Response:
    headers = {**_headers(agent), "content-type": "application/json"}
    return await agent.links.http.post(agent.links.server + path, content=payload, headers=headers)


def _headers(agent: Agent) -> dict[str, str]:
    token = agent.credential.token
    return {} if token is None else {"authorization": f"Bearer {token}"}
