"""By which endpoints devices go: counted in one answer, so that an operator sees when the old ones are not needed.

Rules:
- It is what devices said last; one that did not say cannot be moved, and is counted apart.
"""

from __future__ import annotations

from typing import Any

from orchestrator.ports import Tx

View = dict[str, Any]


def count(tx: Tx) -> View:
    """Return how many devices go by the endpoints of which release counter, and those of whom nobody knows."""
    found = tx.count_endpoints()
    unknown = found.pop(None, 0)
    lines = [{"rel": rel, "devices": devices} for rel, devices in sorted(found.items(), key=lambda item: item[0] or 0)]
    return {"fleet": tx.fleet_size(), "endpoints": lines, "unknown": unknown}
