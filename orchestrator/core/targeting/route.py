"""The way from what a device runs to what it shall run: directly, or over stepping stones.

Rules:
- A release says from which one on it may be reached; a device jumps to a later release only, and never beyond its
  target. So no way has a circle.
- Every step goes as far as it can. Whatever may be reached from an earlier release may be reached from a later one
  too, or lies behind it: no other way is shorter, and where this one ends, all do.
- Where there is no way, the answer says which release is in the way and what would open it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from orchestrator.core.model import Artifact, Release
from orchestrator.core.reason import Reason


class Stone(NamedTuple):
    """A release as one hardware model can take it.

    Attributes:
        rel: release counter.
        min_from: lowest running `rel` that may jump to it.
        release: its name.
    """

    rel: int
    min_from: int
    release: str


class Way(NamedTuple):
    """What one hardware model may take on its way to a release.

    Attributes:
        target: the release.
        stones: earlier releases that are known.
    """

    target: Stone
    stones: tuple[Stone, ...]


def stone(release: Release, artifact: Artifact) -> Stone:
    """Return the stepping stone that a release is for the hardware models of one of its artifacts."""
    return Stone(release.rel, artifact.min_from, release.name)


def next_step(running: int | None, target: Stone, stones: Collection[Stone]) -> Stone | Reason:
    """Return the release that a device takes next on its way to the target, or why there is no way.

    Args:
        running: release counter that the device runs; None if it is not known.
        target: where it shall arrive.
        stones: releases that it may take on its way, in any order; the target may be among them.

    Returns:
        The target itself or a stone, or a reason with `release_unknown`, `newer`, `there` or `no_route`.
    """
    found = route(running, target, stones)
    return found if isinstance(found, Reason) else found[0]


def route(running: int | None, target: Stone, stones: Collection[Stone]) -> tuple[Stone, ...] | Reason:
    """Return all steps to the target, which is the last of them, or why there is no way.

    Args:
        running: release counter that the device runs; None if it is not known.
        target: where it shall arrive.
        stones: releases that it may take on its way.

    Returns:
        At least one step, or a reason as of `next_step`.
    """
    if running is None:
        return Reason("release_unknown", "it is not known which release it runs")
    if running > target.rel:
        return Reason("newer", f"it runs release counter {running}, which is above {target.rel}")
    if running == target.rel:
        return Reason("there", f"it runs release counter {target.rel} already")
    steps: list[Stone] = []
    at = running
    while at < target.rel:
        further = [
            stone
            for stone in (*stones, target)
            if at < stone.rel and stone.min_from <= at and (stone.rel < target.rel or stone == target)
        ]
        if not further:
            return _no_route(running, at, target)
        steps.append(max(further))
        at = steps[-1].rel
    return tuple(steps)


def too_low(running: int, way: Way) -> Reason:
    """Return why a device cannot jump to a release, in words that name the release that it takes before."""
    step = next_step(running, way.target, way.stones)
    if isinstance(step, Reason):
        return Reason("from_too_low", f"it runs release counter {running}; {step.text}")
    text = f"it runs release counter {running}, and the release takes {way.target.min_from} or later; {step.release} "
    return Reason("from_too_low", f"{text}is the next step on its way")


def _no_route(running: int, at: int, target: Stone) -> Reason:
    way = f"from {running} no release leads on" if at == running else f"from {running} it gets to {at}, and no further"
    text = f"{target.release} takes devices from release counter {target.min_from} on; {way}"
    return Reason("no_route", text)
