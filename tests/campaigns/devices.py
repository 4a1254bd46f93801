"""Devices of a campaign: what each does with the triggers that it gets, and what it says.

Rules:
- Signatures are no matter here: a device reads the claims, and judges number, expiry and attempt as the verifier does.
- What a device says lies in `mail` until the campaign delivers, repeats, reorders or loses it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orchestrator.wire.report import Hello, Kind, OwnFacts, Report, State

GOOD = (Kind.ACCEPTED, Kind.PROGRESS, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED)
Part = tuple[tuple[Kind, str], ...]
_MEASURED = (Kind.RUNNING, Kind.CONFIRMED)


def _part(*kinds: Kind, code: str = "") -> Part:
    return tuple((kind, code) for kind in kinds)


HONEST, LATE, LIAR, FLAPPING, SLOW, SILENT = "honest", "late", "liar", "flapping", "slow", "silent"
SICK, DIES = "sick", "dies"
TEMPERATURE = "temperature"
"""What every device measures of itself."""

HOT, WARM = 95.0, 50.0
"""What sick devices measure, and what the others do."""

FULL, EMPTY = 90, 10
"""Charges of a battery in percent."""

CHARACTERS: dict[str, tuple[Part, ...]] = {
    HONEST: (_part(*GOOD),),
    LATE: (_part(*GOOD),),
    SLOW: (_part(*GOOD),),
    FLAPPING: (_part(*GOOD),),
    LIAR: (_part(*GOOD[:3], Kind.CONFIRMED),),
    SICK: (_part(*GOOD),),
    SILENT: ((),),
    DIES: (_part(*GOOD[:4]),),
    "hangs": (_part(*GOOD[:1]),),
    "rolls_back": (_part(*GOOD[:4], Kind.ROLLED_BACK, code="self_test_failed"),),
    "relapses": (_part(*GOOD, Kind.FAILED, code="self_test_crash"),),
    "refuses": (_part(Kind.REFUSED, code="wrong_hardware"),),
    "tired": (_part(Kind.REFUSED, code="expired"), _part(*GOOD)),
    "weak": (_part(*GOOD[:2], Kind.FAILED, code="power_lost"), _part(*GOOD)),
    "worn": (_part(*GOOD[:2], Kind.FAILED, code="power_lost"),),
    "crashes": (_part(*GOOD[:4], Kind.FAILED, code="self_test_crash"), _part(*GOOD)),
}
"""What each says about its attempts, in order; the last part stands for all further attempts."""


@dataclass
class Device:
    """One device.

    Attributes:
        id: identifier.
        character: what it plays.
        model: hardware model.
        appeared: whether it was ever there.
        rel: release counter that it runs.
        mark: highest sequence number that it has seen.
        att: attempt that it holds, "" for none.
        inbox: payloads that wait at the broker, with the time at which they expire.
        mail: what it has said and nobody has heard.
        has_agreed: whether its user has ever said yes.
        most_battery: largest charge that it has ever said.
        has_lied: whether it has said what it has no right to say.
    """

    id: str
    character: str
    model: str
    appeared: bool = True
    rel: int = 1
    mark: int = 0
    att: str = ""
    inbox: list[tuple[bytes, float]] = field(default_factory=list)
    mail: list[Report | Hello | State] = field(default_factory=list)
    has_agreed: bool = False
    most_battery: int = 0
    has_lied: bool = False
    _greetings: int = 0
    _was: int = 0
    _part: Part = ()
    _said: int = 0
    _shall: int = 0
    _token: bytes = b""
    _last: Report | None = None
    _recall: bytes = b""
    _answer: Report | None = None
    _attempts: int = 0
    _boots: int = 1
    _numbers: int = 0

    def hear(self, payload: bytes, now: float) -> None:
        """Take a trigger or a recall."""
        claims = claims_of(payload)
        if payload == self._token or (claims["act"] != "cancel" and claims["att"] == self.att):
            self.mark = max(self.mark, claims["seq"])
            self.mail += [self._last] if self._last else []
            return
        if claims["seq"] <= self.mark:
            self.mail += [self._answer] if self._answer and payload == self._recall else []
            return
        if claims["act"] == "cancel":
            self._give_up(claims)
            self._recall, self._answer = payload, self._last
        elif claims["exp"] <= now:
            self._say(Kind.REFUSED, claims["att"], "expired")
        elif claims["act"] == "install" and claims["rel"] <= self.rel:
            self._say(Kind.REFUSED, claims["att"], "downgrade")
        elif self.character != SILENT:
            self._begin(claims, payload)

    def act(self) -> bool:
        """Say the next thing, if there is one."""
        if not self.att or self._said >= len(self._part):
            return False
        kind, code = self._part[self._said]
        self._said += 1
        if kind is Kind.RUNNING:
            self._boots += 1
        if kind in (Kind.RUNNING, Kind.CONFIRMED) and self.character != LIAR:
            self.rel = self._shall
        if kind in (Kind.FAILED, Kind.ROLLED_BACK):
            self.rel = self._was
        self._say(kind, self.att, code)
        return True

    def lie(self, chance: Random, updates: int) -> None:
        """Say something about an attempt that may not be its own, may not exist, or may be over."""
        self.has_lied = True
        att = chance.choice((f"{chance.randint(1, updates + 1)}.{chance.randint(1, 3)}", self.att or "1.1"))
        kind = chance.choice(tuple(Kind))
        rel = chance.randint(1, 4)
        self._numbers += chance.randint(0, 1)  # and sometimes under a number that it used before
        self.mail.append(
            Report(1, self.id, att, f"b{self._boots}", self._numbers, kind, rel=rel, code=chance.choice(_LIES))
        )

    def greet(self) -> None:
        """Say hello."""
        self.appeared = True
        self._greetings += 1
        at = int(self.id[1:])
        agreed = at % 5 < min(2 + self._greetings, 4)  # some at once, some at last, some never
        battery = EMPTY if at % 6 > 3 + self._greetings else FULL
        self.has_agreed |= agreed
        self.most_battery = max(self.most_battery, battery)
        facts = OwnFacts(bat=battery, agreed=agreed)
        self.mail.append(Hello(1, self.id, self.model, f"{self.rel}.0.0", self.rel, facts=facts))
        self.connect()

    def connect(self) -> None:
        """Say that it is there."""
        self.mail.append(State(1, self.id, online=True))

    def vanish(self) -> None:
        """Leave the last will, and start anew when it is back."""
        self._boots += 1
        self._numbers = 0
        self.mail.append(State(1, self.id, online=False))

    def _begin(self, claims: dict[str, Any], payload: bytes) -> None:
        parts = CHARACTERS[self.character]
        self.mark, self.att, self._shall, self._token = claims["seq"], claims["att"], claims["rel"], payload
        self._part = parts[min(self._attempts, len(parts) - 1)]
        self._attempts += 1
        self._said, self._last, self._was = 0, None, self.rel

    def _give_up(self, claims: dict[str, Any]) -> None:
        self.mark = claims["seq"]
        mine = claims["att"] == self.att
        if mine and any(kind is Kind.INSTALLED for kind, _ in self._part[: self._said]):
            self._say(Kind.TOO_LATE, self.att, "")
            return
        if mine:
            self.att, self._token = "", b""
        self._say(Kind.RECALLED, claims["att"], "")

    def _say(self, kind: Kind, att: str, code: str) -> None:
        self._numbers += 1
        pct = 50 if kind is Kind.PROGRESS else None
        measured = {TEMPERATURE: HOT if self.character == SICK else WARM} if kind in _MEASURED else {}
        self._last = Report(
            1, self.id, att, f"b{self._boots}", self._numbers, kind, rel=self.rel, pct=pct, code=code, metrics=measured
        )
        self.mail.append(self._last)


_LIES = ("", "power_lost", "bad_signature", "expired", "new_keys", "no_such_code")


def claims_of(bundle: bytes) -> dict[str, Any]:
    """Return the claims of a bundle's first token."""
    payload = bundle.split(b".", 2)[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return claims
