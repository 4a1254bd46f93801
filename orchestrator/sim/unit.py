"""One simulated device at one moment.

Rules:
- A unit is a value; only `device.step` makes the next one.
- What is not in its flash is forgotten when power fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.sim.flash import Flash, Way
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
    TRYING = "trying"
    RETURNING = "returning"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Unit:
    """One device at one moment.

    Attributes:
        profile: its character.
        flash: what survives a reboot.
        phase: what it is doing.
        boot: identifier of the present boot.
        booted_at: when that began, None without power.
        n: number of the next report in this boot.
        wake_at: when it wants a `Tick`, None for never.
        began_at: when the present download or trial of addresses began.
        tries: downloads that failed in this boot.
        trial: the addresses on trial, None if there are none.
    """

    profile: Profile
    flash: Flash
    phase: Phase = Phase.OFF
    boot: str = ""
    booted_at: float | None = None
    n: int = 0
    wake_at: float | None = None
    began_at: float = 0.0
    tries: int = 0
    trial: Way | None = None

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
    def way(self) -> Way:
        """The addresses that the device goes by now, if only on trial."""
        return self.trial or self.flash.way

    def release(self, component: str) -> int:
        """Return the release counter of what it runs, or goes by, of a component."""
        return self.way.rel if component == self.flash.endpoints.name else self.running.rel

    @property
    def identity(self) -> Device:
        """The device as its verifier sees it."""
        trust, flash = self.profile.trust, self.flash
        moved = flash.way.endpoints
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
            components=flash.components,
            allowed_origins=(moved and moved.origins) or trust.allowed_origins,
            loopback=trust.loopback,
        )

    @property
    def runs_bad(self) -> bool:
        """Whether the image that runs is a bad one."""
        return self.running.bad or self.running.version in self.profile.behaviour.bad_releases

    @property
    def metrics(self) -> dict[str, float]:
        """What it measures of itself; a bad image shifts that wherever it runs."""
        shifts = self.profile.behaviour.bad_metrics if self.runs_bad else {}
        return {name: round(value + shifts.get(name, 0.0), 3) for name, value in self.profile.metrics.items()}

    def facts(self, now: float) -> OwnFacts:
        """Return the true condition of the device, which is what it says of it."""
        profile = self.profile
        return OwnFacts(
            bat=profile.battery,
            charging=profile.has("charging"),
            free=profile.behaviour.free_bytes or None,
            slot=profile.behaviour.slot_bytes or None,
            link=profile.link,
            metered=profile.has("metered"),
            uptime=None if self.booted_at is None else max(0, int(now - self.booted_at)),
        )

    def hello(self, now: float) -> Hello:
        """Return what the device says of itself when it connects."""
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
            metrics=self.metrics,
            facts=self.facts(now),
            eps=self.way.rel,
        )
