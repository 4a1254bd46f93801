"""What operators say of devices, stored: checked all at once, with what held before where that still counts.

Rules:
- A batch is stored as a whole or refused with every fault.
- While a fixed cohort is on its way, what held before is kept, so that nobody enters or leaves it by a change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from zoneinfo import available_timezones

from orchestrator.core import rollout as machine
from orchestrator.core.model import Device, Facts
from orchestrator.core.reason import counted
from orchestrator.core.targeting import facts, selector
from orchestrator.core.targeting.cohort import Sieve
from orchestrator.core.targeting.facts import Change
from orchestrator.core.trust.audit import names_hash
from orchestrator.engine.targeting.audience import CHUNK
from orchestrator.errors import ConfigError
from orchestrator.ports import Store, Tx

_zones = lru_cache(maxsize=1)(available_timezones)


def faults_of(change: Change) -> Iterator[str]:
    """Yield what is wrong with a change, whatever device it is made to."""
    yield from facts.faults_of(change)
    if change.time_zone and change.time_zone not in _zones():
        yield f"{change.time_zone[:80]!r} is no time zone; write a name such as Europe/Berlin"


def change(tx: Tx, changes: Mapping[str, Change], now: float, *, actor: str) -> list[Device]:
    """Change what is said of devices; returns those that are different now.

    Raises:
        ConfigError: a device is not registered, or a word is not allowed; every fault is listed.
    """
    before = {item.id: item for item in tx.devices_named(changes)}
    faults = [f"{name[:80]}: {text}" for name, item in changes.items() for text in faults_of(item)]
    faults += [f"{name[:80]}: there is no such device" for name in changes if name not in before]
    after = {name: facts.changed(item.facts, changes[name]) for name, item in before.items()}
    faults += [f"{name}: {text}" for name, item in after.items() if (text := facts.too_many(item))]
    if faults:
        raise ConfigError(faults)
    different = [item for name, item in before.items() if after[name] != item.facts]
    changed = [_with(item, after[item.id]) for item in different]
    keep(tx, different, now)
    tx.set_facts(changed, now)
    tx.free_holds([item.id for item in changed], timed=True)  # it may be in another time zone now
    if changed:
        said = {"count": len(changed), "sha256": names_hash([item.id for item in changed])}
        tx.audit(actor, "devices.changed", counted(len(changed), "device"), said, now)
    return changed


def keep(tx: Tx, before: Sequence[Device], now: float) -> None:
    """Keep what is said of devices that are about to change, if a fixed cohort is on its way."""
    if before and any(not rollout.plan.open_cohort for rollout in tx.rollouts(machine.BEGUN)):
        tx.keep_facts(before, now)


async def selected(store: Store, text: str, after: str, limit: int, *, quarantined: bool = False) -> list[Device]:
    """Return the next devices that a selector means, in the order of their identifiers, from after `after`.

    Args:
        store: where they are.
        text: the selector, "" for all.
        after: the identifier to continue after.
        limit: how many at most.
        quarantined: whether only those in quarantine are wanted.

    Raises:
        RequestError: the selector is not understood.
    """
    meant = selector.parse(text)
    sieve = Sieve(meant.words, quarantined=quarantined)
    found: list[Device] = []
    while len(found) < limit:
        start = after
        devices = await store.read(lambda tx, start=start: tx.devices(start, CHUNK, sieve))  # type: ignore[misc]
        found += [device for device in devices if meant.matches(device)]
        if len(devices) < CHUNK:
            break
        after = devices[-1].id
    return found[:limit]


def _with(device: Device, said: Facts) -> Device:
    return replace(device, **{name: getattr(said, name) for name in Facts.__dataclass_fields__})
