"""When a device that polls shall ask again.

Rules:
- Nobody waits longer than the configuration says; the spread takes something off, by a keyed hash of device and time.
- So devices that came together, after an outage or at a full hour, do not come together again.
"""

from __future__ import annotations

import hashlib
import math

SPREAD = 0.25
"""Part of the pause that the spread may take off."""


def pause(device_id: str, every_s: float, now: float) -> int:
    """Return the pause until a device shall ask again, in whole seconds.

    Args:
        device_id: who asks.
        every_s: longest pause.
        now: present time.
    """
    key = int(now // every_s).to_bytes(8, "big", signed=True)
    digest = hashlib.blake2b(device_id.encode(), digest_size=8, key=key).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return max(1, math.floor(every_s * (1 - SPREAD * share)))
