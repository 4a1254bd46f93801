"""What a person asks for by its name, or a clear error that there is none of it."""

from __future__ import annotations

from orchestrator.core.model import Device, Rollout
from orchestrator.errors import NotFoundError
from orchestrator.ports import Tx


def rollout(tx: Tx, name: str) -> Rollout:
    """Return a rollout. Raises NotFoundError if there is none of this name."""
    found = tx.rollout_named(name)
    if found is None:
        raise NotFoundError(f"there is no rollout named {name[:80]!r}")
    return found


def device(tx: Tx, device_id: str) -> Device:
    """Return a device. Raises NotFoundError if it is not registered."""
    found = tx.device(device_id)
    if found is None:
        raise NotFoundError(f"there is no device {device_id[:80]!r}")
    return found
