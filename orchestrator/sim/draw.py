"""Chance without a generator: keyed hashes of (seed, word, device).

Rules:
- The same seed, word and device give the same answer for ever, whatever else was drawn and when.
- A share of a fleet is met exactly (`round(share * count)`), not on average.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

Dealt = TypeVar("Dealt", bound=str)


def draw(seed: int, word: str, device: str) -> float:
    """Return a number in [0, 1) that belongs to this seed, word and device."""
    return int.from_bytes(_digest(seed, word, device)[:6], "big") / 2**48


def within(bounds: tuple[float, float], fraction: float) -> float:
    """Return the point that lies at `fraction` between two bounds."""
    low, high = bounds
    return low + (high - low) * fraction


def chosen(seed: int, word: str, devices: Sequence[str], share: float) -> frozenset[str]:
    """Return exactly `round(share * count)` of the devices."""
    return frozenset(_ranked(seed, word, devices)[: round(share * len(devices))])


def dealt(seed: int, word: str, devices: Sequence[str], shares: Mapping[Dealt, float]) -> dict[str, Dealt]:
    """Deal one of several values to each device.

    Args:
        seed: seed of the fleet.
        word: what is dealt.
        devices: device identifiers.
        shares: value -> its part of the whole; the parts need not sum to one.

    Returns:
        device -> value; each value's count is its part, rounded so that all devices have one.
    """
    ranked = _ranked(seed, word, devices)
    whole = sum(shares.values())
    result: dict[str, Dealt] = {}
    passed = 0.0
    for value, part in shares.items():
        passed += part
        for device in ranked[len(result) : round(passed / whole * len(ranked))]:
            result[device] = value
    return result


def _ranked(seed: int, word: str, devices: Sequence[str]) -> list[str]:
    return sorted(devices, key=lambda device: _digest(seed, word, device))


def _digest(seed: int, word: str, device: str) -> bytes:
    return hashlib.blake2b(f"{word}\0{device}".encode(), key=str(seed).encode(), digest_size=16).digest()
