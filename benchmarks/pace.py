"""What the pace of devices costs: time for each message while nobody is over it, and memory of a large fleet."""

from __future__ import annotations

import time
import tracemalloc

from orchestrator.core.pace.rate import Buckets, Pace
from orchestrator.wire.topics import Channel, uplink

DEVICES = 100_000
MOST_US = 0.5


def run(rounds: int) -> None:
    """Print the figures."""
    spent = min(_spent_us(rounds))
    tracemalloc.start()
    buckets = Buckets(Pace())
    for sender in _senders():
        buckets.take(sender, 1.0)
    del sender
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"pace of devices {spent:.2f} us a message, {held_bytes / 1e6:.0f} MB for {len(buckets):,} devices; "
        f"at most {MOST_US} us: ratio {spent / MOST_US:.2f}"
    )


def _senders() -> list[str]:
    # Made anew each time, as the broker's client does: the hash of a new string has to be computed.
    return [uplink(f"dev-{number:06d}", Channel.REPORT) for number in range(DEVICES)]


def _spent_us(rounds: int) -> list[float]:
    buckets, spent = Buckets(Pace()), []
    for number in range(rounds):
        now, senders = 1000.0 + 60 * number, _senders()
        buckets.forget(now)
        started = time.perf_counter()
        refused = sum(not buckets.take(sender, now) for sender in senders)
        spent.append((time.perf_counter() - started) / len(senders) * 1e6)
        assert not refused
    return spent


if __name__ == "__main__":
    run(10)
