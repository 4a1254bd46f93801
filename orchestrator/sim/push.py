"""The MQTT side of a simulated device: commands in, reports out, over a connection of its own.

Rules:
- A report leaves the outbox when the broker acknowledged it; after a lost link it is sent again.
- The last will says offline; a device that goes down by itself says so before.
- Reconnecting backs off, with a spread that differs by device, and takes the next address of those that it has.
- What was said before a move goes by the connection that is left; then the device says goodbye there.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import aiomqtt

from orchestrator.sim.agent import Agent, is_cancelled
from orchestrator.sim.draw import draw
from orchestrator.sim.events import Beat, Command, Event, NewKeys, Reached
from orchestrator.sim.flash import Way
from orchestrator.wire.endpoints import split
from orchestrator.wire.report import Hello, State, encode
from orchestrator.wire.topics import BEAT, KEYSETS, Channel, command, uplink

_LONGEST_PAUSE_S = 30.0
_TIMEOUT_S = 30.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the MQTT broker is; `tls` is None for plain TCP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """One connection: to which broker, by which addresses, and how often the device had come up when it was chosen."""

    broker: Broker
    way: Way
    ups: int

    def ends(self, agent: Agent) -> bool:
        """Say whether the device is to leave."""
        return not agent.powered or agent.ups != self.ups


async def push(agent: Agent, broker: Broker) -> None:
    """Keep a device connected whenever it has power, until cancelled.

    Args:
        agent: the device.
        broker: where it connects unless it was moved.
    """
    failures = 0
    while True:
        await agent.until(lambda: agent.powered and bool(_brokers(agent, broker)))
        brokers = _brokers(agent, broker)
        line = _Line(brokers[failures % len(brokers)], agent.unit.way, agent.ups)
        try:
            await _session(agent, line)
            failures = 0
        except aiomqtt.MqttError as error:
            if is_cancelled():
                # The broker went away while we were saying goodbye.
                raise asyncio.CancelledError from None
            failures += 1
            agent.observe("link_lost", code=_reason(error))
            spread = 0.5 + draw(failures, "reconnect", agent.device)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST_PAUSE_S, 0.25 * 2**failures) * spread):
                    await agent.until(partial(line.ends, agent))
                    failures = 0


def _brokers(agent: Agent, first: Broker) -> tuple[Broker, ...]:
    named = agent.choices("mqtt")
    if named is None:
        return (first,)
    found = [split(address) for address in named]
    return tuple(Broker(at.host, at.port, _tls(first) if at.scheme == "mqtts" else None) for at in found)


def _tls(first: Broker) -> ssl.SSLContext:
    """Return what other brokers are checked by: what the first one is, or the system's authorities."""
    return first.tls or _system_authorities()


@cache
def _system_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _session(agent: Agent, line: _Line) -> None:
    agent.connected = True
    try:
        async with _client(agent, line.broker) as client:
            await client.subscribe([(topic, 1) for topic in (KEYSETS, BEAT, command(agent.device))])
            await _serve(agent, client, line)
    finally:
        agent.connected = False
        agent.stir()


async def _serve(agent: Agent, client: aiomqtt.Client, line: _Line) -> None:
    agent.observe("connected")
    agent.feed(Reached(line.way.rel))
    listener = asyncio.create_task(_listen(agent, client, line.way))
    listener.add_done_callback(lambda _: agent.stir())
    try:
        await _talk(agent, client, line, listener)
    finally:
        agent.observe("disconnected")
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def _listen(agent: Agent, client: aiomqtt.Client, way: Way) -> None:
    async for message in client.messages:
        if isinstance(message.payload, bytes):
            agent.feed(_event(str(message.topic), message.payload, way))


def _event(topic: str, payload: bytes, way: Way) -> Event:
    if topic == BEAT:
        return Beat(payload, way.rel)
    return NewKeys(payload) if topic.startswith(KEYSETS.removesuffix("+")) else Command(payload)


async def _talk(agent: Agent, client: aiomqtt.Client, line: _Line, listener: asyncio.Task[None]) -> None:
    def over() -> bool:
        return line.ends(agent) or listener.done()

    await _publish(client, agent.device, State(v=1, dev=agent.device, online=True))
    if (hello := agent.greeting()) is not None:
        await _publish(client, agent.device, hello)
    agent.outbox.replay()
    while not over():
        await _empty_outbox(agent, client)
        await agent.until(lambda: over() or agent.outbox.head() is not None)
    if listener.done():
        listener.result()
    # What was said before an orderly reboot or a move still goes out; what power took away is not in the outbox.
    await _empty_outbox(agent, client)
    await _publish(client, agent.device, State(v=1, dev=agent.device, online=False))


async def _empty_outbox(agent: Agent, client: aiomqtt.Client) -> None:
    topic = uplink(agent.device, Channel.REPORT)
    while (parcel := agent.outbox.head()) is not None:
        await client.publish(topic, parcel.payload, qos=1, retain=parcel.retain)
        agent.outbox.done(parcel)
        agent.observe("sent", att=parcel.report.att, parcel=parcel)


async def _publish(client: aiomqtt.Client, device: str, message: State | Hello) -> None:
    channel = Channel.STATE if isinstance(message, State) else Channel.HELLO
    await client.publish(uplink(device, channel), encode(message), qos=1)


def _client(agent: Agent, broker: Broker) -> aiomqtt.Client:
    will = State(v=1, dev=agent.device, online=False)
    return aiomqtt.Client(
        broker.host,
        broker.port,
        identifier=agent.device,
        username=agent.device,
        password=agent.credential.mqtt_password,
        clean_session=agent.unit.profile.behaviour.clean_session,
        will=aiomqtt.Will(uplink(agent.device, Channel.STATE), encode(will), qos=1),
        tls_context=broker.tls,
        timeout=_TIMEOUT_S,
        logger=_LOG,
    )


def _reason(error: aiomqtt.MqttError) -> str:
    if isinstance(error, aiomqtt.exceptions.MqttConnectError):
        return "login_refused"
    return "broker_unreachable" if "refused" in str(error) else "broker_lost"
