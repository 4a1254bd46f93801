"""Stops that could not be stored: nothing goes out until they are.

Rules:
- A store that cannot be written refuses every act. Whoever pauses, halts or aborts is obeyed all the same, by this
  process: while a stop waits, the dispatcher sends nothing at all, and no poll gets a trigger of its rollout.
- Stops are stored in the order in which they were said, before anything else is sent or commanded.
- They are lost with the process, and who said one is told so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from orchestrator.core.rollout import Command
from orchestrator.errors import OrchestratorError, UnavailableError

STOPS = frozenset({Command.PAUSE, Command.HALT, Command.ABORT})
"""What can be obeyed without a store: it only takes away."""

_log = structlog.get_logger(__name__)


class Stop(NamedTuple):
    """What a person said.

    Attributes:
        rollout_id: number of the rollout.
        name: its name.
        command: what shall become of it.
        actor: who said it.
        reason: why.
    """

    rollout_id: int
    name: str
    command: Command
    actor: str
    reason: str


class Stops:
    """The stops that wait for the store.

    Args:
        carry_out: stores one.
    """

    def __init__(self, carry_out: Callable[[Stop], Awaitable[object]]) -> None:
        self._carry_out = carry_out
        self._waiting: deque[Stop] = deque()
        self._one_at_a_time = asyncio.Lock()

    @property
    def rollouts(self) -> dict[int, str]:
        """The rollouts that are stopped in this process alone, their names by their numbers."""
        return {stop.rollout_id: stop.name for stop in self._waiting}

    def add(self, stop: Stop) -> None:
        """Obey a stop, and keep it until it is stored; said again before that, it is the same stop."""
        if any((kept.rollout_id, kept.command) == (stop.rollout_id, stop.command) for kept in self._waiting):
            return
        self._waiting.append(stop)
        _log.error("rollout.stopped_here", rollout=stop.name, command=stop.command.value, actor=stop.actor)

    async def store(self) -> None:
        """Store what waits.

        Raises:
            UnavailableError: the store still cannot be written.
        """
        async with self._one_at_a_time:
            while self._waiting:
                try:
                    await self._carry_out(self._waiting[0])
                except UnavailableError:
                    raise
                except OrchestratorError as error:  # it moved meanwhile to where it needs no stop, or cannot have one
                    _log.warning("rollout.stop_void", rollout=self._waiting[0].name, error=error.message)
                self._waiting.popleft()
