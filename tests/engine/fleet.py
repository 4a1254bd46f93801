"""Devices without a wire: what each does with the bytes it gets, and what it says.

Rules:
- A device believes only the reference verifier; it plays a fixed part about each attempt it takes.
- What devices say lies in `mail` until the test delivers, repeats, reorders or loses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import verifier
from orchestrator.verifier import Refused
from orchestrator.wire.report import Kind, Report
from tests.support.factory import make_verifier

GOOD = (Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED)
ROLLS_BACK = (*GOOD[:3], Kind.ROLLED_BACK)
RELAPSES = (*GOOD, Kind.FAILED)
DIES = GOOD[:3]
HANGS = GOOD[:1]
REFUSES = (Kind.REFUSED,)
ABSENT: tuple[Kind, ...] = ()
Part = tuple[Kind, ...]


@dataclass
class Unit:
    """One device.

    Attributes:
        state: what its verifier keeps.
        part: what it says about an attempt, in order.
        mail: everything that it has said and that was not delivered yet.
        inbox: payloads that wait at the broker, with the time at which they expire.
        att: attempt that it works on, "" for none.
        rel: release counter of that attempt.
        said: how much of the part it has said.
        begun: attempts that it ever began.
    """

    state: verifier.Device
    part: Part
    mail: list[Report]
    inbox: list[tuple[bytes, float]] = field(default_factory=list)
    att: str = ""
    rel: int = 0
    said: int = 0
    last: Report | None = None
    numbers: int = 0
    begun: list[str] = field(default_factory=list)

    def hear(self, payload: bytes, now: float) -> None:
        """Judge a bundle and do what it says."""
        before = self.state.components["main"]
        try:
            verdict = verifier.verify(payload, self.state, int(now))
        except Refused as refusal:
            assert refusal.code in ("stale_seq", "expired", "downgrade", "other_image"), refusal
            return
        component = verdict.component
        if verdict.kind == "install":
            self.att, self.rel, self.said = verdict.claims["att"], verdict.claims["rel"], 0
            self.begun.append(self.att)
        elif verdict.kind == "refresh":
            self.mail += [self.last] if self.last else []
        elif Kind.INSTALLED in self.part[: self.said] and verdict.claims["att"] == self.att:
            component = replace(component, held=before.held, att=before.att)
            self._say(Kind.TOO_LATE, self.att, before.rel)
        else:
            if verdict.claims["att"] == self.att:
                self.att = ""
            self._say(Kind.RECALLED, verdict.claims["att"], before.rel)
        self.state = replace(self.state, components={"main": component})

    def act(self) -> bool:
        """Say the next thing, if there is one."""
        if not self.att or self.said >= len(self.part):
            return False
        kind = self.part[self.said]
        self.said += 1
        if kind is Kind.CONFIRMED:
            running = replace(self.state.components["main"], rel=self.rel)
            self.state = replace(self.state, components={"main": running})
        self._say(kind, self.att, self.rel)
        return True

    def _say(self, kind: Kind, att: str, rel: int) -> None:
        self.numbers += 1
        self.last = Report(v=1, dev=self.state.id, att=att, boot="b1", n=self.numbers, kind=kind, rel=rel)
        self.mail.append(self.last)


@dataclass
class Fleet:
    """All devices, by identifier, and the mail on its way from them."""

    units: dict[str, Unit] = field(default_factory=dict)
    mail: list[Report] = field(default_factory=list)

    def add(self, device_ids: Iterable[str], parts: Sequence[Part]) -> None:
        for device_id, part in zip(device_ids, parts, strict=True):
            self.units[device_id] = Unit(make_verifier(device_id), part, self.mail)

    def post(self, published: Iterable[tuple[str, bytes, int]], now: float) -> None:
        """Let the broker keep messages for the devices."""
        for topic, payload, expiry_s in published:
            self.units[topic.split("/")[3]].inbox.append((payload, now + expiry_s))

    def hear(self, device_ids: Iterable[str], now: float) -> bool:
        """Let devices take what waits for them and has not expired; says whether there was anything."""
        heard = False
        for device_id in device_ids:
            unit = self.units[device_id]
            waiting, unit.inbox = unit.inbox, []
            for payload, expires_at in waiting:
                if expires_at > now:
                    unit.hear(payload, now)
                    heard = True
        return heard
