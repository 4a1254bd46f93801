from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.sim.slots import Image, Slots, SlotState

BORN = Image("1.0.0", 1)
NEXT = Image("1.1.0", 2, "h")


def states(slots: Slots) -> list[str]:
    return [str(slot.state) for slot in slots.pair]


def test_a_new_image_gets_one_boot_and_is_kept_if_confirmed() -> None:
    slots = Slots.born(BORN).install(NEXT)
    assert (states(slots), slots.active) == (["valid", "new"], 0)
    slots = slots.boot()
    assert (states(slots), slots.active) == (["valid", "pending_verify"], 1)
    slots = slots.confirm()
    assert (states(slots), slots.active) == (["valid", "valid"], 1)
    assert slots.boot() == slots


def test_a_reset_before_confirmation_goes_back_to_the_old_image() -> None:
    slots = Slots.born(BORN).install(NEXT).boot().boot()
    assert (states(slots), slots.active) == (["valid", "invalid"], 0)
    assert slots.running.image == BORN
    assert slots.boot() == slots


def test_erasing_touches_the_spare_slot_only() -> None:
    slots = Slots.born(BORN).install(NEXT).boot().confirm().erase()
    assert (states(slots), slots.running.image) == (["invalid", "valid"], NEXT)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, a valid slot remains and no invalid one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots.born(BORN)

    @rule()
    def boot(self) -> None:
        self.slots = self.slots.boot()

    @precondition(lambda self: self.slots.running.state is SlotState.VALID)
    @rule()
    def erase(self) -> None:
        self.slots = self.slots.erase()

    @precondition(lambda self: self.slots.running.state is SlotState.VALID)
    @rule()
    def install(self) -> None:
        self.slots = self.slots.install(NEXT)

    @rule()
    def confirm(self) -> None:
        self.slots = self.slots.confirm()

    @invariant()
    def cannot_brick(self) -> None:
        assert SlotState.VALID in [slot.state for slot in self.slots.pair]
        assert self.slots.running.state in (SlotState.VALID, SlotState.PENDING_VERIFY)


TestAnyOrder = AnyOrder.TestCase
