"""What a caller saw, as an `ETag`: it is another one as soon as somebody has decided something else.

Rules:
- A rollout's mark changes with its plan, its phase and its stage; reports that come in do not change it.
- A device's mark changes with what operators say of it; what it says of itself does not change it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from orchestrator.core.model import Device, Rollout


def rollout_mark(rollout: Rollout) -> str:
    """Return the mark of a rollout."""
    return f'"{rollout.id}.{rollout.version}.{rollout.plan_version}.{rollout.stage}"'


def device_mark(device: Device) -> str:
    """Return the mark of a device."""
    text = json.dumps([device.id, device.quarantine, asdict(device.facts)], sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
