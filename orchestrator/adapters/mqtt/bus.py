"""The bus over MQTT: links that come and go, one inbox, acknowledgements after the commit. Implements `ports.Bus`.

Rules:
- The session is persistent: what devices publish while we are away waits at the broker.
- A receipt is good for the link that brought it; the broker repeats what an older link left open.
- The inbox holds what was not taken yet; when it is full we stop reading, we never discard.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import paho.mqtt.client as paho
import structlog

from orchestrator.adapters.mqtt.link import Link, MqttSettings
from orchestrator.errors import UnavailableError
from orchestrator.ports import Message

__all__ = ["MqttBus", "MqttSettings"]

_log = structlog.get_logger(__name__)
_MID_BITS = 16
STEADY_S = 30.0
"""A link that lived this long resets the back-off."""


class MqttBus:
    """The broker, seen from the daemon.

    Args:
        settings: how to reach it.
        topics: what to subscribe to.
    """

    def __init__(self, settings: MqttSettings, topics: Sequence[str]) -> None:
        self._settings = settings
        self._topics = topics
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost = asyncio.Event()
        self._link: Link | None = None
        self._ready = False
        self._generation = 0

    @property
    def link(self) -> int:
        """See `ports.Bus.link`."""
        return self._generation if self._ready else 0

    async def run(self) -> None:
        """See `ports.Bus.run`."""
        pause_s = self._settings.reconnect_min_s
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._stay_connected()
            except UnavailableError as error:
                _log.warning("broker.unavailable", code=error.code, error=error.message)
            if loop.time() - started > STEADY_S:
                pause_s = self._settings.reconnect_min_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._settings.reconnect_max_s)

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Message]:
        """See `ports.Bus.receive`."""
        while wait and not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]
        if self._link is not None and len(self._inbox) < self._settings.receive_maximum:
            self._link.pause_reading(False)
        return taken

    def ack(self, messages: Sequence[Message]) -> None:
        """See `ports.Bus.ack`."""
        if self._link is None:
            return
        mine = self._generation << _MID_BITS
        mask = (1 << _MID_BITS) - 1
        mids = [message.receipt & mask for message in messages if message.receipt & ~mask == mine]
        self._link.ack([mid for mid in mids if mid])

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int, retain: bool = False) -> None:
        """See `ports.Bus.publish`."""
        if self._link is None or not self._ready:
            raise UnavailableError("not connected to the broker", code="link_broken")
        await self._link.publish(topic, payload, expiry_s, retain=retain)

    async def _stay_connected(self) -> None:
        self._generation += 1
        self._lost.clear()
        # What waited for us comes before the subscription is answered, and must be acknowledged even then.
        link = self._link = Link(self._settings, self._take, self._note_lost)
        try:
            await link.open(self._topics)
            self._ready = True
            _log.info("broker.connected", host=self._settings.host, port=self._settings.port)
            while not self._lost.is_set():
                link.tick()
                try:
                    async with asyncio.timeout(1.0):
                        await self._lost.wait()
                except TimeoutError:
                    continue
        finally:
            self._ready = False
            self._link = None
            link.close()

    def _take(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no device topic; refused by whoever reads it
        receipt = (self._generation << _MID_BITS) | (message.mid if message.qos else 0)
        self._inbox.append(Message(topic, bytes(message.payload), bool(message.retain), receipt))
        self._arrived.set()
        if self._link is not None and len(self._inbox) >= 2 * self._settings.receive_maximum:
            self._link.pause_reading(True)

    def _note_lost(self, why: str) -> None:
        if self._ready:
            _log.warning("broker.lost", why=why)
        self._ready = False
        self._link = None
        # What was not taken yet comes again on the next link; keeping it would only double the work.
        self._inbox.clear()
        self._lost.set()
