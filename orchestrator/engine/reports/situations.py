"""What devices say of themselves, kept with the time at which they said it.

Rules:
- It decides when a device is offered a release, never whether it belongs to a cohort.
- A fact replaces the same fact; what is not said stays as old as it is.
- Whoever says something is looked at again, if something held it that it could change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orchestrator.core.pace.hold import Situation
from orchestrator.core.pace.requirement import Link, Told, Wish
from orchestrator.ports import Tx
from orchestrator.wire.report import Hello, OwnFacts, Report


def learn(tx: Tx, said: Iterable[Hello | Report], now: float) -> set[int]:
    """Keep the facts in what devices said; returns the rollouts in which one of them is looked at again."""
    news: defaultdict[str, list[tuple[OwnFacts, int | None]]] = defaultdict(list)
    for item in said:
        if (facts := _facts(item)) is not None:
            news[item.dev].append((facts, item.rel))
    if not news:
        return set()
    known = tx.situations(news)
    after = dict(known)
    for name in known:
        for facts, rel in news[name]:
            after[name] = learned(after[name], facts, rel, now)
    tx.save_situations(after)
    return tx.free_holds(list(after))


def learned(before: Situation, facts: OwnFacts, rel: int | None, now: float) -> Situation:
    """Return the situation of a device after what it says now.

    Args:
        before: what it said before.
        facts: what it says.
        rel: release counter that it runs, None if it does not say.
        now: present time.
    """
    told: dict[str, Any] = {
        "battery_pct": facts.bat,
        "charging": facts.charging,
        "free_bytes": facts.free,
        "slot_bytes": facts.slot,
        "link": None if facts.link is None else Link(facts.link),
        "metered": facts.metered,
        "uptime_s": facts.uptime,
    }
    condition = replace(before.condition, **{name: Told(word, now) for name, word in told.items() if word is not None})
    after = replace(before, condition=condition)
    if facts.agreed is None and facts.later is None:
        return after
    wish_rel = before.wish_rel if rel is None else rel
    old = before.wish if before.wish_rel == wish_rel else Wish()
    wish = _wish(old, facts)
    deferred_at = before.deferred_at if wish.deferrals == old.deferrals else now
    return replace(after, wish=wish, wish_rel=wish_rel, deferred_at=deferred_at)


def _wish(before: Wish, facts: OwnFacts) -> Wish:
    agreed = before.agreed if facts.agreed is None else facts.agreed
    until = None if facts.later is None else float(facts.later)
    if until is None or until == before.deferred_until:
        return replace(before, agreed=agreed)  # said again, it is the same deferral
    return Wish(agreed, until, before.deferrals + 1)


def _facts(said: Hello | Report) -> OwnFacts | None:
    """Return the facts in a message; the charge in a hello of a device without facts is one."""
    if said.facts is None and isinstance(said, Hello) and said.bat is not None:
        return OwnFacts(bat=said.bat)
    return said.facts
