"""One simulated device at one moment.

Rules:
- A unit is a value; only `device.step` makes the next one.
- What is not in its flash is forgotten when power fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.sim.flash import Flash
from orchestrator.sim.profile import Profile
from orchestrator.sim.slots import Image, Slots
from orchestrator.verifier import Component, Device
from orchestrator.wire.report import Hello, OwnFacts


class Phase(StrEnum):
    """What a device is doing; forgotten when power fails."""

    OFF = "off"
    IDLE = "idle"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    INSTALLING = "installing"
    TESTING = "testing"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Unit:
    """One device at one moment.

    Attributes:
        profile: its character.
        flash: what survives a reboot.
        phase: what it is doing.
        boot: identifier of the present boot.
        n: number of the next report in this boot.
        wake_at: when it wants a `Tick`, None for never.
        began_at: when the present download began.
        tries: downloads that failed in this boot.
    """

    profile: Profile
    flash: Flash
    phase: Phase = Phase.OFF
    boot: str = ""
    n: int = 0
    wake_at: float | None = None
    began_at: float = 0.0
    tries: int = 0

    @classmethod
    def born(cls, profile: Profile) -> Unit:
        """Return a device as it leaves the factory, switched off."""
        behaviour = profile.behaviour
        slots = Slots.born(Image(behaviour.version, behaviour.rel))
        component = Component(name=behaviour.component, rel=behaviour.rel, sec=0, seq=0)
        return cls(profile, Flash(slots, component, profile.trust.keyset))

    @property
    def running(self) -> Image:
        """The image that runs now."""
        return self.flash.slots.running.image

    @property
    def identity(self) -> Device:
        """The device as its verifier sees it."""
        trust, flash = self.profile.trust, self.flash
        return Device(
            id=self.profile.device,
            groups=self.profile.behaviour.groups,
            model=self.profile.model,
            iss=flash.keyset.iss,
            ep=flash.keyset.ep,
            keys=flash.keyset.keys,
            need_root=flash.keyset.need_root,
            need_cosign=flash.keyset.need_cosign,
            floor=flash.floor,
            beat_iat=flash.beat_iat,
            components={flash.component.name: flash.component},
            allowed_origins=trust.allowed_origins,
            loopback=trust.loopback,
        )

    @property
    def facts(self) -> OwnFacts:
        """What the device says of its condition."""
        profile = self.profile
        return OwnFacts(bat=profile.battery, charging=False, slot=profile.behaviour.slot_bytes or None, link="wifi")

    @property
    def hello(self) -> Hello:
        """What the device says of itself when it connects."""
        return Hello(
            v=1,
            dev=self.profile.device,
            model=self.profile.model,
            ver=self.running.version,
            rel=self.running.rel,
            boot=self.boot,
            boots=self.flash.boots,
            groups=self.profile.behaviour.groups,
            bat=self.profile.battery,
            facts=self.facts,
        )
