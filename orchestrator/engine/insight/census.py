"""What the whole fleet runs, who is connected, who is silent, who is left out: counted in one answer."""

from __future__ import annotations

from collections import Counter
from typing import Any

from orchestrator.ports import Kin, Tx

MOST_VERSIONS = 12
"""Versions that are named, those with the most devices first."""
SILENT_S = 86_400.0
_AGES_S = (3_600.0, SILENT_S, 7 * 86_400.0)
_SILENT_FROM = _AGES_S.index(SILENT_S) + 1

View = dict[str, Any]


def of_fleet(tx: Tx, now: float) -> View:
    """Return how many devices there are, by what they run, and how many are online, silent and quarantined."""
    found = tx.census([now - age_s for age_s in _AGES_S])
    versions: Counter[tuple[str, int]] = Counter()
    models: Counter[str] = Counter()
    for kin in found:
        versions[kin.version, kin.rel] += kin.devices
        models[kin.model] += kin.devices
    order = sorted(versions, key=lambda key: (-versions[key], -key[1], key[0]))
    return {
        "devices": sum(kin.devices for kin in found),
        "online": _count(found, online=True),
        "offline": _count(found, online=False),
        "unsaid": _count(found, online=None),
        "silent": sum(kin.devices for kin in found if kin.seen >= _SILENT_FROM),
        "quarantined": sum(kin.devices for kin in found if kin.quarantined),
        "versions": [
            {"version": version, "rel": rel, "devices": versions[version, rel], "models": _models(found, version, rel)}
            for version, rel in order[:MOST_VERSIONS]
        ],
        "other_versions": len(order[MOST_VERSIONS:]),
        "models": [{"model": model, "devices": count} for model, count in models.most_common()],
    }


def _count(found: list[Kin], *, online: bool | None) -> int:
    return sum(kin.devices for kin in found if kin.online is online)


def _models(found: list[Kin], version: str, rel: int) -> list[str]:
    return sorted({kin.model for kin in found if (kin.version, kin.rel) == (version, rel)})
