"""A whole fleet in one process: switched on in a ramp, watched, and stopped together.

Rules:
- A device with the offline fault has an agent that is never switched on.
- The fleet ends when it is told to; what it saw comes back as a summary.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from orchestrator.sim.agent import Agent, Door, Links
from orchestrator.sim.credentials import Credential
from orchestrator.sim.poll import poll, post, prove
from orchestrator.sim.profile import Profile
from orchestrator.sim.push import Broker, push
from orchestrator.sim.tally import Tally
from orchestrator.sim.unit import Unit

_RAMP_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The network around a fleet, and how hard it may be used.

    Attributes:
        broker: the MQTT broker, or None where every device polls.
        server: origin of the HTTP side, or "".
        connects_per_s: how many devices are switched on per second.
        downloads: how many downloads run at once.
    """

    broker: Broker | None
    server: str
    connects_per_s: float = 200.0
    downloads: int = 64


class Fleet:
    """Simulated devices and what they share.

    Args:
        profiles: one per device.
        credentials: device -> what it logs in with; a device without one has no secrets.
        around: the network.
        tally: counts what happens.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        credentials: Mapping[str, Credential],
        around: Surroundings,
        tally: Tally,
    ) -> None:
        self._profiles = profiles
        self._credentials = credentials
        self._around = around
        self._tally = tally
        self._agents: list[Agent] = []

    async def run(self, stop: asyncio.Event, show: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Run until `stop` is set, and return the summary.

        Args:
            stop: ends the run.
            show: is given a line for a person once per second.
        """
        began_at = time.time()
        async with self._links() as links:
            self._agents = [self._agent(profile, links) for profile in self._profiles]
            living = asyncio.create_task(self._live())
            ending = asyncio.create_task(self._end(stop, show))
            await asyncio.wait((living, ending), return_when=asyncio.FIRST_COMPLETED)
            living.cancel()
            ending.cancel()
            # An error of ours in one device must not look like a quiet end.
            with suppress(asyncio.CancelledError):
                await living
        return self._summary(time.time() - began_at)

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            awake = [agent for agent in self._agents if not agent.unit.profile.has("offline")]
            batch = max(1, round(self._around.connects_per_s * _RAMP_STEP_S))
            for first in range(0, len(awake), batch):
                for agent in awake[first : first + batch]:
                    group.create_task(agent.run(*self._doors(agent)), name=agent.device)
                await asyncio.sleep(batch / self._around.connects_per_s)
            await asyncio.Event().wait()

    async def _end(self, stop: asyncio.Event, show: Callable[[str], None] | None) -> None:
        while not stop.is_set():
            if show is not None:
                show(self._tally.line())
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()

    def _doors(self, agent: Agent) -> list[Door]:
        doors: list[Door] = []
        if agent.unit.profile.channel != "poll" and self._around.broker is not None:
            doors.append(partial(push, broker=self._around.broker))
        if agent.unit.profile.channel != "push":
            doors.append(poll)
        if agent.unit.profile.channel == "poll":
            doors += [post, prove]
        return doors

    def _agent(self, profile: Profile, links: Links) -> Agent:
        credential = self._credentials.get(profile.device) or Credential(profile.device)
        return Agent(Unit.born(profile), credential, links)

    @asynccontextmanager
    async def _links(self) -> AsyncIterator[Links]:
        limits = httpx2.Limits(
            max_connections=4 * self._around.downloads, max_keepalive_connections=self._around.downloads
        )
        timeout = httpx2.Timeout(30.0, pool=None)
        async with httpx2.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as http:
            yield Links(
                server=self._around.server,
                http=http,
                permits=asyncio.Semaphore(self._around.downloads),
                observe=self._tally,
                clock=time.time,
            )

    def _summary(self, duration_s: float) -> dict[str, Any]:
        versions = Counter(agent.unit.running.version for agent in self._agents)
        moved = Counter(str(agent.unit.flash.way.rel) for agent in self._agents)
        return {
            "devices": len(self._agents),
            "offline": sum(profile.has("offline") for profile in self._profiles),
            "duration_s": round(duration_s, 1),
            **self._tally.summary(),
            "versions": dict(sorted(versions.items())),
            "endpoints": dict(sorted(moved.items())),
        }
