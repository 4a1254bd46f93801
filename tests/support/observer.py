"""Watches everything that passes the broker, in the broker's order."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

_ENDS = ("confirmed", "failed", "rolled_back", "refused", "recalled")


def claims_of(bundle: bytes) -> dict[str, Any]:
    """Return the claims of a trigger or recall, unverified."""
    payload = bundle.split(b"\n")[0].split(b".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return claims


@dataclass(slots=True)
class Seen:
    """What passed the broker.

    Attributes:
        by_seq: token bytes by sequence number, in order of first sight.
        installs: distinct install tokens by attempt.
        repeats: identical tokens seen again.
        reports: keys of all reports but progress, (att, boot, n).
        road: every first trigger (rollout, attempt) and every end (None, attempt), in the broker's order.
        faults: what must not happen.
    """

    by_seq: dict[int, bytes] = field(default_factory=dict)
    installs: dict[str, set[bytes]] = field(default_factory=dict)
    repeats: int = 0
    reports: set[tuple[str, str, int]] = field(default_factory=set)
    road: list[tuple[str | None, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def command(self, bundle: bytes) -> None:
        """Take a message to a device."""
        claims = claims_of(bundle)
        seq = claims["seq"]
        if seq in self.by_seq:
            self.repeats += 1
            if self.by_seq[seq] != bundle:
                self.faults.append(f"seq {seq} carries two tokens")
            return
        if self.by_seq and seq < max(self.by_seq):
            self.faults.append(f"seq {seq} after {max(self.by_seq)}")
        self.by_seq[seq] = bundle
        if claims["act"] == "install":
            self.installs.setdefault(claims["att"], set()).add(bundle)
            self.road.append((claims["cid"], claims["att"]))

    def report(self, payload: bytes) -> None:
        """Take a report."""
        report = json.loads(payload)
        if report["kind"] != "progress":
            self.reports.add((report["att"], report["boot"], report["n"]))
        if report["kind"] in _ENDS:
            self.road.append((None, report["att"]))

    def most_in_flight(self) -> int:
        """Return the most devices that were between trigger and end at once, of those that report over MQTT."""
        audible = {att for rollout, att in self.road if rollout is None}
        flying: set[str] = set()
        most = 0
        for rollout, att in self.road:
            if rollout is None:
                flying.discard(att)
            elif att in audible:
                flying.add(att)
            most = max(most, len(flying))
        return most


@asynccontextmanager
async def observer(host: str, port: int) -> AsyncIterator[Seen]:
    """Watch a broker that lets everybody read."""
    seen = Seen()
    async with aiomqtt.Client(host, port, identifier="observer") as client:
        await client.subscribe("ota/v1/d/+/cmd", qos=1)
        await client.subscribe("ota/v1/d/+/report", qos=1)

        async def watch() -> None:
            async for message in client.messages:
                payload = bytes(message.payload)
                if message.topic.value.endswith("/cmd"):
                    seen.command(payload)
                else:
                    seen.report(payload)

        task = asyncio.create_task(watch())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
