"""Every probe in turn, and what came of it.

Rules:
- The honest road is tried first: where that fails, the broker is not examined further.
- A probe that cannot prove its claim has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.doctor.party import Address, Login
from orchestrator.doctor.probes import LIMIT, NEGATIVE, POSITIVE, Probe, Scene, Seen
from orchestrator.errors import RequestError, UnavailableError


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one probe.

    Attributes:
        name: stable word for machines.
        claim: what must hold.
        passed: whether it holds.
        fault: what was wrong, empty if it holds.
        remedy: what to do about it, empty if it holds.
        note: what else is worth knowing.
    """

    name: str
    claim: str
    passed: bool
    fault: str = ""
    remedy: str = ""
    note: str = ""


def examine(address: Address, witness: Login, device: Login, other: Login) -> Iterator[Finding]:
    """Yield a finding for each probe, as it comes. Blocks.

    Args:
        address: where the broker is.
        witness: login that may read everything below `ota/v1` and write commands; not the daemon's, whose session
            it would take.
        device: login of the device that tries things.
        other: login of the device that it tries them on.

    Raises:
        RequestError: two of the logins are the same.
        UnavailableError: the broker cannot be reached, or the witness may not hear.
    """
    if len({witness.name, device.name, other.name}) < 3:
        raise RequestError("the witness and the two devices must be three logins", code="same_login")
    scene = Scene(address, witness, device, other)
    try:
        yield (first := _try(POSITIVE, scene))
        if first.passed:
            for probe in (*NEGATIVE, LIMIT):
                yield _try(probe, scene)
    finally:
        scene.close()


def _try(probe: Probe, scene: Scene) -> Finding:
    try:
        scene.recall_witness()
        seen = probe.run(scene)
    except UnavailableError as error:
        seen = Seen(f"not proven: {error.message}")
    remedy = probe.remedy if seen.fault else ""
    return Finding(probe.name, probe.claim, not seen.fault, seen.fault, remedy, seen.note)
