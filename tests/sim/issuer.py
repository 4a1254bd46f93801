"""The other side for simulator tests: keys, statements, triggers and recalls, and a hand-driven device."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from orchestrator.core.trigger import beat_claims, keyset_claims, warrant_claims
from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.device import step
from orchestrator.sim.events import Chunk, Command, Effect, Event, Fetch, Note, Opened, PowerOn, Say, Tick
from orchestrator.sim.image import make_image
from orchestrator.sim.profile import Profile, Trust, cast
from orchestrator.sim.unit import Phase, Unit
from orchestrator.verifier import Keyset, PublicKey
from orchestrator.wire.endpoints import COMPONENT, Endpoints, encode_endpoints
from orchestrator.wire.report import Kind, Report
from orchestrator.wire.token import TokenType, assemble, assemble_further, bundle, further_input, hash_of, signing_input

NOW = 1_800_000_000.0
ORIGIN = "https://ota.example.net"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass
class Key:
    kid: str
    typ: TokenType
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    who: str = ""

    def sign(self, claims: dict[str, Any]) -> bytes:
        signed = signing_input(self.typ, self.kid, claims)
        return assemble(signed, self._raw(signed))

    def join(self, first_line: bytes) -> bytes:
        """Sign what the first line of a multi-signed token says, as one more line."""
        signed = further_input(self.typ, self.kid, first_line)
        return assemble_further(signed, self._raw(signed))

    def _raw(self, signed: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")

    @property
    def point(self) -> tuple[bytes, bytes]:
        numbers = self.private.public_key().public_numbers()
        return numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.kid, self.typ, *self.point, who=self.who)

    @property
    def entry(self) -> dict[str, str]:
        """The key as a keyset lists it."""
        x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in self.point)
        return {"kid": self.kid, "typ": str(self.typ), "x": x, "y": y} | ({"who": self.who} if self.who else {})


def sign_together(claims: dict[str, Any], *keys: Key) -> bytes:
    """Return a multi-signed token."""
    first = keys[0].sign(claims)
    return bundle([first, *(key.join(first) for key in keys[1:])])


@dataclass
class Build:
    """One image or document with all that a trigger says about it."""

    data: bytes
    version: str
    rel: int
    component: str = "main"

    @classmethod
    def make(cls, version: str, rel: int, *, bad: bool = False, size_bytes: int = 4096) -> Build:
        return cls(make_image(version, rel, size_bytes, bad=bad, seed=1), version, rel)

    @classmethod
    def move(cls, rel: int, **lists: tuple[str, ...]) -> Build:
        """Make a document of endpoints."""
        return cls(encode_endpoints(Endpoints("fleet", **lists)), f"move-{rel}", rel, COMPONENT)

    @property
    def sha256(self) -> str:
        return digest(self.data)

    @property
    def claims(self) -> dict[str, Any]:
        return {
            "name": "sensor",
            "ver": self.version,
            "rel": self.rel,
            "sec": 0,
            "comp": self.component,
            "hw": ["sim-a"],
            "from": 0,
            "size": len(self.data),
            "sha256": self.sha256,
            "fmt": "raw",
        }


class Issuer:
    """Signs what a daemon and a build server would."""

    def __init__(self) -> None:
        self.artifact_key = Key("artifact-1", TokenType.ARTIFACT)
        self.trigger_key = Key("trigger-1", TokenType.TRIGGER)
        self.beat_key = Key("beat-1", TokenType.BEAT)
        self.root_keys = [Key(f"root-{number}", TokenType.KEYS) for number in (1, 2, 3)]
        self.cosigners = [Key(f"cosign-{who}", TokenType.COSIGN, who=who) for who in ("ada", "bob", "cleo")]
        self.epoch = 1
        self._seq = count(1)

    @property
    def keys(self) -> tuple[Key, Key]:
        return self.artifact_key, self.trigger_key

    def trust(self, *origins: str, loopback: bool = False) -> Trust:
        members = (*self.keys, self.beat_key, *self.root_keys, *self.cosigners)
        keyset = Keyset("fleet", 1, {key.kid: key.public for key in members}, need_root=2, need_cosign=2)
        return Trust(keyset, origins or (ORIGIN,), loopback)

    def keyset(self, epoch: int, *signers: Key) -> bytes:
        """Return a keyset of the keys that we have now, signed by some root keys."""
        members = (*self.keys, self.beat_key, *self.root_keys, *self.cosigners)
        claims = keyset_claims(
            deployment="fleet",
            epoch=epoch,
            keys=[key.entry for key in members],
            need_root=2,
            need_cosign=2,
            issued_at=NOW,
        )
        return sign_together(claims, *signers)

    def warrant(self, build_statement: bytes, *signers: Key, **changes: Any) -> bytes:
        """Return a warrant for rollout `r1` and model `sim-a`."""
        claims = warrant_claims(
            deployment="fleet",
            epoch=self.epoch,
            rollout="r1",
            statement_hashes=[hash_of(build_statement)],
            audience=["m:sim-a"],
            most=1000,
            issued_at=NOW,
            expires_at=NOW + 86_400,
        )
        return sign_together(claims | changes, *signers)

    def beat(self, seq: int, floor: int, now: float = NOW) -> bytes:
        claims = beat_claims(
            deployment="fleet", epoch=self.epoch, seq=seq, floor=floor, issued_at=now, expires_at=now + 86_400
        )
        return self.beat_key.sign(claims)

    def document(self) -> dict[str, Any]:
        def text(raw: bytes) -> str:
            return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

        points = [(key, *key.point) for key in self.keys]
        keys = [{"kid": key.kid, "typ": str(key.typ), "x": text(x), "y": text(y)} for key, x, y in points]
        return {"v": 1, "iss": "fleet", "ep": 1, "keys": keys}

    def install(self, device: str, build: Build, att: str = "1.1", **changes: Any) -> bytes:
        now = changes.pop("now", NOW)
        statement = self.artifact_key.sign({"v": 1, **build.claims, "iat": int(now)})
        claims = {
            **self._common(device, att, "install", now),
            "wave": 0,
            **build.claims,
            "url": [f"{ORIGIN}/v1/dl/{build.sha256}"],
            "ast": hash_of(statement),
            "urg": 1,
            **changes,
        }
        return bundle([self.trigger_key.sign(claims), statement])

    def recall(self, device: str, offer: bytes, att: str = "1.1", now: float = NOW, component: str = "main") -> bytes:
        common = self._common(device, att, "cancel", now) | {"comp": component}
        return self.trigger_key.sign({**common, "tok": hash_of(offer.split(b"\n")[0])})

    def _common(self, device: str, att: str, act: str, now: float) -> dict[str, Any]:
        return {
            "v": 1,
            "iss": "fleet",
            "ep": self.epoch,
            "aud": [f"d:{device}"],
            "comp": "main",
            "cid": "r1",
            "act": act,
            "seq": next(self._seq),
            "jti": "AAAAAAAAAAAA",
            "att": att,
            "iat": int(now),
            "exp": int(now) + 86_400,
        }


def profile_with(issuer: Issuer, *faults: str, **changes: Any) -> Profile:
    """Return the profile of the one device of a fleet, with exactly these faults."""
    shares: dict[str, Any] = {f"{fault}_share": 1.0 for fault in faults}
    behaviour = Behaviour(devices=1, **shares, **changes)
    return cast(behaviour, {"sim-00000": None}, issuer.trust(), run="run")[0]


class Bench:
    """Drives one pure device: keeps the time, serves bytes, remembers all that it said."""

    def __init__(self, profile: Profile, build: Build | None = None) -> None:
        self.unit = Unit.born(profile)
        self.now = NOW
        self.build = build
        self.reports: list[Report] = []
        self.notes: list[Note] = []
        self.effects: list[Effect] = []
        self.feed(PowerOn())

    def feed(self, event: Event) -> tuple[Effect, ...]:
        self.unit, effects = step(self.unit, event, self.now)
        self.effects += effects
        self.reports += [effect.report for effect in effects if isinstance(effect, Say)]
        self.notes += [effect for effect in effects if isinstance(effect, Note)]
        return effects

    def command(self, payload: bytes) -> list[Report]:
        before = len(self.reports)
        self.feed(Command(payload))
        return self.reports[before:]

    def tick(self) -> tuple[Effect, ...]:
        """Move the clock to the moment the device waits for."""
        assert self.unit.wake_at is not None
        self.now = max(self.now, self.unit.wake_at)
        return self.feed(Tick())

    def serve(self, chunk_bytes: int = 1000) -> None:
        """Answer the last `Fetch` with the build's bytes until the device has had enough."""
        wish = [effect for effect in self.effects if isinstance(effect, Fetch)][-1]
        assert self.build is not None
        self.feed(Opened(wish.offset_bytes))
        for first in range(wish.offset_bytes, len(self.build.data), chunk_bytes):
            if self.unit.phase is not Phase.DOWNLOADING:
                return
            self.feed(Chunk(self.build.data[first : first + chunk_bytes]))

    def advance(self) -> bool:
        """Let the next thing happen by itself; False when nothing will."""
        if self.unit.phase is Phase.DOWNLOADING and self.build is not None:
            self.serve()
        elif self.unit.wake_at is not None:
            self.tick()
        else:
            return False
        return True

    def settle(self) -> None:
        for _ in range(200):
            if not self.advance():
                return
        raise AssertionError("the device never comes to rest")

    def until(self, phase: Phase) -> None:
        while self.unit.phase is not phase:
            assert self.advance(), f"never reaches {phase}"

    @property
    def kinds(self) -> list[Kind]:
        return [report.kind for report in self.reports]

    @property
    def events(self) -> list[str]:
        return [note.event for note in self.notes]
