from __future__ import annotations

import pytest

from orchestrator.sim.outbox import Outbox
from orchestrator.wire.report import Kind, Report, decode_report
from tests.sim.issuer import Issuer, profile_with

D = "sim-00000"
ROAD = [Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED]


def filled(issuer: Issuer, *faults: str) -> Outbox:
    outbox = Outbox(profile_with(issuer, *faults))
    for n, kind in enumerate(ROAD):
        outbox.put(Report(v=1, dev=D, att="1.1", boot="b", n=n, kind=kind, rel=1))
    return outbox


def drained(outbox: Outbox) -> list[int]:
    numbers = []
    while (parcel := outbox.head()) is not None:
        assert decode_report(parcel.payload, D) == parcel.report
        numbers.append(parcel.report.n)
        outbox.done(parcel)
    return numbers


@pytest.mark.parametrize(
    ("faults", "numbers"),
    [
        ((), [0, 1, 2, 3, 4]),
        (("duplicate",), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (("reorder",), [1, 0, 3, 2, 4]),
        (("duplicate", "reorder"), [1, 1, 0, 0, 3, 3, 2, 2, 4, 4]),
    ],
)
def test_faults_change_order_and_number_only(issuer: Issuer, faults: tuple[str, ...], numbers: list[int]) -> None:
    assert drained(filled(issuer, *faults)) == numbers


def test_nothing_stays_held_behind_the_last_report(issuer: Issuer) -> None:
    outbox = Outbox(profile_with(issuer, "reorder"))
    outbox.put(Report(v=1, dev=D, att="1.1", boot="b", n=0, kind=Kind.ACCEPTED))
    assert outbox.head() is None
    outbox.put(Report(v=1, dev=D, att="1.1", boot="b", n=1, kind=Kind.FAILED))
    assert drained(outbox) == [1, 0]


def test_a_replaying_device_says_its_first_report_again_retained(issuer: Issuer) -> None:
    outbox = filled(issuer, "replay")
    head = outbox.head()
    assert head is not None
    assert head.retain
    drained(outbox)
    outbox.replay()
    assert drained(outbox) == [0]


def test_others_do_not_replay(issuer: Issuer) -> None:
    outbox = filled(issuer)
    drained(outbox)
    outbox.replay()
    assert outbox.head() is None


def test_power_loss_loses_what_was_not_sent(issuer: Issuer) -> None:
    outbox = filled(issuer, "reorder")
    sending = outbox.head()
    assert sending is not None
    outbox.lose()
    outbox.put(Report(v=1, dev=D, att="1.1", boot="c", n=0, kind=Kind.FAILED))
    # The acknowledgement of a report that power took away must not remove another one.
    outbox.done(sending)
    assert drained(outbox) == [0]
