"""Who still runs a vulnerable version: counted in one answer, and listed in pages.

Rules:
- A question is one of three: what a rollout mends, what all rollouts with an advisory mend, or a release counter.
- A device that never said what it runs is counted apart: it is neither vulnerable nor safe.
- A page is one read; nobody holds the fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.core.model import Device, Rollout
from orchestrator.core.targeting.advisory import Vulnerable, is_advisory
from orchestrator.engine import named
from orchestrator.engine.rollouts.releases import by_model, release_of
from orchestrator.errors import NotFoundError, RequestError
from orchestrator.ports import Alike, Store, Tx

PAGE = 2000
MOST_NAMED = 100
"""Models, sites and groups that are named in a count, those with the most devices first; a list names all."""

_HOUR_S, _DAY_S = 3600.0, 86_400.0
_AGES = (("1h", _HOUR_S), ("1d", _DAY_S), ("7d", 7 * _DAY_S), ("30d", 30 * _DAY_S))

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """Who is asked for. Exactly one of them is given.

    Attributes:
        rollout: name of a rollout, "" if not given.
        advisory: number of an advisory, "" if not given.
        below_rel: release counter, None if not given.
    """

    rollout: str = ""
    advisory: str = ""
    below_rel: int | None = None


def vulnerable(tx: Tx, question: Question) -> Vulnerable:
    """Return which devices a question means.

    Raises:
        NotFoundError: there is no such rollout, or none with this advisory.
        RequestError: not exactly one of the three is given, or it is no advisory, or the rollout brings no firmware.
    """
    if [bool(question.rollout), bool(question.advisory), question.below_rel is not None].count(True) != 1:
        raise RequestError("name one of a rollout, an advisory and a release counter, and no two of them")
    if question.below_rel is not None:
        return Vulnerable(below_any=question.below_rel)
    if question.rollout:
        rollout = named.rollout(tx, question.rollout)
        if rollout.moves:
            raise RequestError(f"{question.rollout} moves endpoints, which mend no firmware; see `ota fleet endpoints`")
        return Vulnerable(_mended_by(tx, [rollout]))
    if not is_advisory(question.advisory):
        text = f"{question.advisory[:40]!r} is no advisory; write its number, such as CVE-2026-1234"
        raise RequestError(text)
    mending = [item for item in tx.rollouts() if question.advisory in item.plan.advisories]
    if not mending:
        raise NotFoundError(f"no rollout names {question.advisory} among its advisories")
    return Vulnerable(_mended_by(tx, mending))


def count(tx: Tx, question: Question, now: float) -> View:
    """Return how many devices are vulnerable, by model, site, group, and when they were last seen."""
    meant = vulnerable(tx, question)
    found = tx.count_exposed(meant, [now - age_s for _, age_s in _AGES])
    ages = [*(f"within {name}" for name, _ in _AGES), "longer ago, or never"]
    seen: Counter[int] = Counter()
    for item in found:
        seen[item.seen] += item.devices if item.known else 0
    return {
        "rollout": question.rollout or None,
        "advisory": question.advisory or None,
        "below_rel": meant.below_any,
        "below": dict(sorted(meant.below.items())),
        "fleet": tx.fleet_size(),
        "vulnerable": sum(item.devices for item in found if item.known),
        "unknown": sum(item.devices for item in found if not item.known),
        "models": _by(found, lambda item: (item.model,)),
        "sites": _by(found, lambda item: (item.site,)),
        "groups": _by(found, lambda item: item.groups or ("",)),
        "seen": [{"name": age, "devices": seen[place]} for place, age in enumerate(ages)],
    }


async def lines(store: Store, question: Question) -> AsyncIterator[list[View]]:
    """Yield these devices in pages, by their identifiers.

    Raises:
        NotFoundError: there is no such rollout, or none with this advisory.
        RequestError: the question is none.
    """
    meant = await store.read(partial(vulnerable, question=question))
    after = ""
    while page := await store.read(partial(_page, meant=meant, after=after)):
        yield [_line(device) for device in page]
        after = page[-1].id


def _page(tx: Tx, meant: Vulnerable, after: str) -> list[Device]:
    return tx.exposed(meant, after, PAGE)


def _line(device: Device) -> View:
    known = bool(device.version or device.rel)
    return {
        "id": device.id,
        "status": "vulnerable" if known else "unknown",
        "model": device.model,
        "version": device.version,
        "rel": device.rel,
        "site": device.site,
        "groups": list(device.groups),
        "online": device.online,
        "seen_at": device.seen_at,
    }


def _mended_by(tx: Tx, rollouts: list[Rollout]) -> dict[str, int]:
    """Return the release counter below which a device of each model is vulnerable."""
    found: dict[str, int] = {}
    for rollout in rollouts:
        release = release_of(tx, rollout)
        below = release.rel if rollout.plan.fixes_below is None else rollout.plan.fixes_below
        for model in by_model(tx, release):
            found[model] = max(found.get(model, 0), below)
    return found


def _by(found: list[Alike], names: Callable[[Alike], tuple[str, ...]]) -> View:
    """Return the counts by a name, with the most devices first; those that are not named are counted as others."""
    known: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for item in found:
        for name in names(item):
            (known if item.known else unknown)[name] += item.devices
    order = sorted(known.keys() | unknown.keys(), key=lambda name: (-known[name], -unknown[name], name))
    named = [{"name": name, "vulnerable": known[name], "unknown": unknown[name]} for name in order[:MOST_NAMED]]
    return {"named": named, "others": len(order) - len(named)}
