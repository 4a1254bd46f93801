"""The message broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """One message from a device, not yet acknowledged.

    Attributes:
        topic: full topic.
        payload: raw bytes.
        retained: whether the broker replayed it from its retained store.
        receipt: the adapter's own handle; give it back to `Bus.ack`.
        tick: when it arrived, in seconds of a clock that never goes back (`time.monotonic`).
    """

    topic: str
    payload: bytes
    retained: bool
    receipt: int
    tick: float = 0.0


class Bus(Protocol):
    """The message broker, seen from the daemon."""

    @property
    def link(self) -> int:
        """Number of the present connection, rising with each; 0 while there is none."""
        ...

    async def run(self) -> None:
        """Connect, subscribe and stay connected until cancelled; reconnects by itself."""
        ...

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Message]:
        """Return at most `limit` messages, oldest first; waits for the first one unless `wait` is false."""
        ...

    def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledge messages whose effect is durable. Unknown or outdated receipts are ignored."""
        ...

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int, retain: bool = False) -> None:
        """Publish at QoS 1 and return once the broker has acknowledged; retain only what may come any number of times.

        Raises:
            UnavailableError: the connection broke before the acknowledgement.
        """
        ...
