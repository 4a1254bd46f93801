"""A message broker in memory: implements `ports.Bus` with a session that survives a lost link.

Rules:
- What is not acknowledged comes again with the next link, under a new receipt; old receipts are dead.
- A publish is on record before it is acknowledged, as at a broker: `lose_acks_after` breaks the link in between.
- The test is the other side: `deliver` is a device speaking, `published` is what devices would get.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from orchestrator.errors import UnavailableError
from orchestrator.ports import Message


class MemoryBus:
    """One broker and the daemon's link to it, up from the start.

    Attributes:
        acked: messages that were acknowledged, in order.
        published: topic, payload and expiry in seconds of everything that reached the broker, in order.
        refused: topics that the broker refuses while they stand here.
        lose_acks_after: publishes until the link breaks before the acknowledgement, None for never.
        on_publish: called before a publish reaches the broker.
    """

    def __init__(self) -> None:
        self.acked: list[Message] = []
        self.published: list[tuple[str, bytes, int]] = []
        self.refused: set[str] = set()
        self.retained: dict[str, bytes] = {}
        self.lose_acks_after: int | None = None
        self.on_publish: Callable[[str, bytes], None] | None = None
        self._link = 1
        self._links = itertools.count(2)
        self._receipts = itertools.count(1)
        self._inbox: list[Message] = []
        self._unacked: dict[int, Message] = {}
        self._filled = asyncio.Event()

    @property
    def link(self) -> int:
        return self._link

    @property
    def waiting(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._inbox) + len(self._unacked)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Message]:
        while wait and not (self._link and self._inbox):
            self._filled.clear()
            await self._filled.wait()
        if not self._link:
            return []
        taken, self._inbox = self._inbox[:limit], self._inbox[limit:]
        self._unacked |= {message.receipt: message for message in taken}
        return taken

    def ack(self, messages: Sequence[Message]) -> None:
        self.acked += [message for message in messages if self._unacked.pop(message.receipt, None) is not None]

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int, retain: bool = False) -> None:
        if self.on_publish is not None:
            self.on_publish(topic, payload)
        if not self._link:
            raise UnavailableError("the link to the broker is down")
        if topic in self.refused:
            raise UnavailableError("the broker refused it", code="publish_refused")
        self.published.append((topic, payload, expiry_s))
        if retain:
            self.retained[topic] = payload
        if self.lose_acks_after is not None:
            self.lose_acks_after -= 1
            if self.lose_acks_after < 0:
                self.lose_acks_after = None
                self.go_down()
                raise UnavailableError("the link broke before the acknowledgement")
        await asyncio.sleep(0)

    def deliver(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """Put a message into the inbox."""
        self._inbox.append(Message(topic, payload, retained, next(self._receipts)))
        self._filled.set()

    def go_down(self) -> None:
        """Break the link; nothing is acknowledged or published until it is back."""
        self._link = 0
        again = [message._replace(receipt=next(self._receipts)) for message in self._unacked.values()]
        self._inbox = [*again, *self._inbox]
        self._unacked = {}

    def come_up(self) -> None:
        """Make a new link; what was not acknowledged comes again."""
        self._link = next(self._links)
        self._filled.set()
