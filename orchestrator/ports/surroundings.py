"""What is known besides the reports of devices, and whom to ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.core.judging.outside import Answer, Outage
from orchestrator.wire.report import State


class Surroundings(Protocol):
    """The answers of services, and who is connected."""

    def gate_answer(self, rollout_id: int, stage: int) -> Answer | None:
        """Return what a service answered last for a stage, None if it was not asked yet."""
        ...

    def save_gate_answer(self, rollout_id: int, answer: Answer) -> None:
        """Store what a service answered, in place of what it answered before."""
        ...

    def note_connections(self, states: Iterable[State], now: float) -> None:
        """Note who goes and who comes back; must be called before `mark_online`. Who holds a slot may go unnoticed."""
        ...

    def connected(self) -> int:
        """Return how many devices are connected, by what they last said."""
        ...

    def gone_since(self, at: float) -> int:
        """Return how many devices went away since then, without holding a slot, and are not back."""
        ...

    def outage(self) -> Outage | None:
        """Return the outage that goes on, None while there is none."""
        ...

    def begin_outage(self, outage: Outage) -> None:
        """Store an outage."""
        ...

    def end_outage(self, now: float) -> None:
        """Store that the outage that goes on is over."""
        ...


class Asker(Protocol):
    """Asks services."""

    async def ask(self, url: str) -> bytes:
        """Return the body of the answer to a GET, within the size that a gate reads.

        Raises:
            OrchestratorError: it may not be asked, did not answer, or answered something else than success.
        """
        ...
