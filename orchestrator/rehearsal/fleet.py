"""What virtual devices do with a trigger: whether it reaches them, how long they take, how it ends, and what they say.

Rules:
- All that will ever be drawn for a device is drawn at once, when it is taken into a stage, and always in the same
  number of draws: the same seed gives the same devices to every plan.
- A device fails independently of all others, as the arithmetic of the gate assumes.
- A liar says that it is healthy, whatever happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from orchestrator.core.update import FactKind

F = FactKind

_BEGINS = (F.ACCEPTED, F.DOWNLOADED, F.INSTALLED)
HEALTHY: tuple[FactKind, ...] = (*_BEGINS, F.RUNNING, F.CONFIRMED)
ROLLS_BACK: tuple[FactKind, ...] = (*_BEGINS, F.RUNNING, F.ROLLED_BACK)
DIES: tuple[FactKind, ...] = _BEGINS
ABSENT: tuple[FactKind, ...] = ()


GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of this are spread evenly over the whole, in step with no other share."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A duration that differs from device to device: log-normal, so that a few take much longer.

    Attributes:
        median_s: half of the devices take less.
        sigma: standard deviation of its logarithm; 0 for all alike.
    """

    median_s: float
    sigma: float = 0.5

    def at(self, deviate: float) -> float:
        """Return the duration at a standard normal deviate."""
        return self.median_s * math.exp(self.sigma * deviate)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices of a rehearsal, all of them in the cohort.

    Attributes:
        devices: how many.
        strata: hardware models, of equal size.
        bad_share: share of devices on which the build fails.
        lost_share: share of those that are never heard again after the reboot; the others roll back and say so.
        liars: share of devices that say they are healthy whatever happened.
        offline: share of devices that never connect.
        grouped: share of devices of each model that is in the groups with a stage of their own.
        late: share of devices that registered when the run began.
        poll_s: time between two polls, where the plan delivers by poll.
        push: from the trigger to the acceptance, where it is pushed.
        download: from the acceptance to the verified download.
        install: from the download to the reboot.
        boot: from the reboot to the first word of the new release.
        selftest: from there to the verdict of the device.
    """

    devices: int
    strata: int = 1
    bad_share: float = 0.0
    lost_share: float = 0.0
    liars: float = 0.0
    offline: float = 0.0
    grouped: float = 0.1
    late: float = 0.0
    poll_s: float = 3_600.0
    push: Spread = Spread(2.0, 1.0)
    download: Spread = Spread(120.0, 0.7)
    install: Spread = Spread(60.0, 0.4)
    boot: Spread = Spread(20.0, 0.4)
    selftest: Spread = Spread(60.0, 0.4)

    @property
    def models(self) -> tuple[str, ...]:
        """The hardware models."""
        return tuple(f"model-{number}" for number in range(1, self.strata + 1))

    def is_grouped(self, place: int) -> bool:
        """Say whether a device is in the groups, by its place among those of its model."""
        return math.floor((place + 1) * self.grouped) > math.floor(place * self.grouped)

    def is_late(self, place: int) -> bool:
        """Say whether a device registered late, by its place among those of its model; groups and strata are mixed."""
        return math.fmod((place + 1) * GOLDEN, 1.0) < self.late


class Character(NamedTuple):
    """What one device will do.

    Attributes:
        part: what it says about an attempt, in order; nothing if no trigger ever reaches it.
        pauses_s: how long it takes before each of these words, from the one before.
        poll_at: where between two polls a trigger finds it, from 0 to 1.
        broken: whether the build fails on it.
    """

    part: tuple[FactKind, ...]
    pauses_s: tuple[float, ...]
    poll_at: float
    broken: bool


def draw(fleet: Fleet, chance: Random) -> Character:
    """Draw the next device."""
    offline, broken, lost, lies, poll_at = (chance.random() for _ in range(5))
    pauses_s = tuple(
        spread.at(chance.gauss(0.0, 1.0))
        for spread in (fleet.push, fleet.download, fleet.install, fleet.boot, fleet.selftest)
    )
    is_broken = broken < fleet.bad_share
    part = HEALTHY
    if offline < fleet.offline:
        part = ABSENT
    elif is_broken and lies >= fleet.liars:
        part = DIES if lost < fleet.lost_share else ROLLS_BACK
    return Character(part, pauses_s, poll_at, is_broken)
