"""What is asked of the whole registry, or of a whole rollout, and answered as counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from orchestrator.core.model import Device
from orchestrator.core.targeting.advisory import Vulnerable


class Milestone(StrEnum):
    """What is looked for in the life of an update."""

    OFFERED = "offered"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Alike:
    """Devices that are alike.

    Attributes:
        model: their hardware model.
        site: where they stand.
        groups: groups that they belong to.
        known: whether it is known what they run; if so, they are vulnerable.
        seen: place of the first time, of those asked for, since which they said anything; one more than there are
            for those that said nothing since any of them.
        devices: how many.
    """

    model: str
    site: str
    groups: tuple[str, ...]
    known: bool
    seen: int
    devices: int


@dataclass(frozen=True, slots=True)
class Kin:
    """Devices that stand alike.

    Attributes:
        model: their hardware model.
        version: version they last said they run.
        rel: release counter likewise.
        online: whether they are connected, None if they never said.
        quarantined: whether no rollout may take them in.
        seen: place of the first time, of those asked for, since which they said anything; see `Alike`.
        devices: how many.
    """

    model: str
    version: str
    rel: int
    online: bool | None
    quarantined: bool
    seen: int
    devices: int


class Ran(NamedTuple):
    """What some devices ran on a day.

    Attributes:
        day: days since the epoch.
        version: version that they said.
        rel: release counter likewise.
        devices: how many.
    """

    day: int
    version: str
    rel: int
    devices: int


class Sign(StrEnum):
    """What a device that counts as evidence has shown."""

    OFFERED = "offered"
    HEALTHY = "healthy"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Shown:
    """Devices of one stratum that showed the same in the same span of time.

    Attributes:
        stratum: hardware model, or what else the plan stratifies by.
        sign: what they showed.
        span: number of the span, from 0.
        devices: how many.
    """

    stratum: str
    sign: Sign
    span: int
    devices: int


class Insight(Protocol):
    """Counts over many devices."""

    def count_exposed(self, vulnerable: Vulnerable, since: Sequence[float]) -> list[Alike]:
        """Count devices that are vulnerable, or could be, by what they are and since when they were silent.

        Args:
            vulnerable: which devices are.
            since: times, at least one, latest first.
        """
        ...

    def exposed(self, vulnerable: Vulnerable, after: str, limit: int) -> list[Device]:
        """Return these devices in the order of their identifiers, from after `after`."""
        ...

    def count_endpoints(self) -> dict[int | None, int]:
        """Count devices by the release counter of the endpoints that they go by; None for those that do not say."""
        ...

    def milestones(self, rollout_id: int, what: Milestone, since: float, width_s: int) -> dict[int, int]:
        """Return how many devices of a rollout came to a milestone, by the number of the span of time after `since`."""
        ...

    def milestone_at(self, rollout_id: int, what: Milestone, place: int) -> float | None:
        """Return when the device came to a milestone that came there as the `place`th, from 1; None if none did."""
        ...

    def census(self, since: Sequence[float]) -> list[Kin]:
        """Count all devices by what they are, run, and since when they were silent.

        Args:
            since: times, at least one, latest first.
        """
        ...

    def keep_census(self, day: int, found: Sequence[Ran]) -> None:
        """Keep what the fleet ran on a day, in the place of what was counted earlier that day."""
        ...

    def past_censuses(self, since: int) -> list[Ran]:
        """Return what the fleet ran on each day from this one on, oldest day first."""
        ...

    def first_offer_at(self, rollout_id: int) -> float | None:
        """Return when the first device was offered the release of a rollout, None if none was."""
        ...

    def shown(self, rollout_id: int, epoch: int, since: float, width_s: float) -> list[Shown]:
        """Count what the devices that are evidence of an epoch have shown, by the span of time after `since`."""
        ...
