"""Two slots and the boot loader's rule about them, as in ESP-IDF's rollback.

Rules:
- At every moment at least one slot is valid: nothing here can brick a device.
- A new image gets one boot to prove itself; any reset before it is confirmed gives it up.
- An invalid slot is never booted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class SlotState(StrEnum):
    """What the boot loader knows of one slot."""

    NEW = "new"
    PENDING_VERIFY = "pending_verify"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Image:
    """What lies in a slot.

    Attributes:
        version: version for display.
        rel: release counter.
        sha256: hash of the bytes in base64url, or "" for what the device was born with.
        bad: whether the bytes were made to crash.
    """

    version: str
    rel: int
    sha256: str = ""
    bad: bool = False


EMPTY = Image("", 0)


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the two places an image can be in."""

    state: SlotState
    image: Image


@dataclass(frozen=True, slots=True)
class Slots:
    """Both slots and which of them runs.

    Attributes:
        pair: slot A and slot B.
        active: index of the slot that runs since the last boot.
    """

    pair: tuple[Slot, Slot]
    active: int = 0

    @classmethod
    def born(cls, image: Image) -> Slots:
        """Return the slots of a device fresh from the factory."""
        return cls((Slot(SlotState.VALID, image), Slot(SlotState.INVALID, EMPTY)))

    @property
    def running(self) -> Slot:
        """The slot that runs now."""
        return self.pair[self.active]

    @property
    def spare(self) -> Slot:
        """The slot that an image can be written to."""
        return self.pair[1 - self.active]

    def erase(self) -> Slots:
        """Give up what is in the spare slot, to write there."""
        return self._with(1 - self.active, Slot(SlotState.INVALID, EMPTY))

    def install(self, image: Image) -> Slots:
        """Put a whole, checked image into the spare slot and choose it for the next boot."""
        return self._with(1 - self.active, Slot(SlotState.NEW, image))

    def confirm(self) -> Slots:
        """Keep the running image for good."""
        return self._with(self.active, replace(self.running, state=SlotState.VALID))

    def boot(self) -> Slots:
        """Apply the boot loader's rule: give up the unproven, try the new, else run the valid."""
        settled = self
        if self.running.state is SlotState.PENDING_VERIFY:
            settled = self._with(self.active, replace(self.running, state=SlotState.INVALID))
        if settled.spare.state is SlotState.NEW:
            trial = settled._with(1 - self.active, replace(settled.spare, state=SlotState.PENDING_VERIFY))
            return replace(trial, active=1 - self.active)
        if settled.running.state is SlotState.INVALID:
            return replace(settled, active=1 - self.active)
        return settled

    def _with(self, index: int, slot: Slot) -> Slots:
        pair = (slot, self.pair[1]) if index == 0 else (self.pair[0], slot)
        return replace(self, pair=pair)
