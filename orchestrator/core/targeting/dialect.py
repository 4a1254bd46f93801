"""Devices that speak something older than otad/1: what they may be offered although they verify no trigger.

Rules:
- Such a device installs whatever answers it. So it is offered only an image with a native signature that it enforces by
  itself, as operators say; anything else only where the configuration allows it, with a reason.
- What a device enforces is an operator's word, never the device's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from orchestrator.core.model import OTAD, Device, Reason

DIALECTS = (OTAD, "ddi", "esp8266", "esp32", "pico", "esp-idf")
"""What a device may speak."""

SIGNATURES = (
    "swupdate",
    "rauc",
    "esp32-secure-boot-v2",
    "esp32-arduino",
    "esp8266",
    "esp8266-legacy",
    "pico",
    "mcuboot",
)
"""Native signatures: what an artifact may carry, and what a device may enforce."""

CODE = "unsigned_client"


@dataclass(frozen=True, slots=True)
class SigningRule:
    """What keeps images from devices that verify no trigger.

    Attributes:
        signatures: native signature of what each hardware model gets, "" for none.
        allowed: why such devices may be offered images without one that they enforce, "" if they may not.
    """

    signatures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    allowed: str = ""

    def left_out(self, device: Device) -> Reason | None:
        """Return why a device may not be offered what its model gets, None if it may."""
        if self.allowed or self.covers(device):
            return None
        signature = self.signatures.get(device.model, "")
        what = f"carries the signature {signature}" if signature else "carries no native signature that is known"
        own = f"it enforces {', '.join(device.enforces)}" if device.enforces else "it is not known to enforce any"
        text = f"it speaks {device.dialect} and verifies no trigger; the image {what}, and {own}"
        return Reason(CODE, text)

    def covers(self, device: Device) -> bool:
        """Say whether a device verifies by itself that what its model gets is genuine."""
        return device.dialect == OTAD or self.signatures.get(device.model, "") in device.enforces


STRICT = SigningRule()
"""Nothing is known of any image, and nothing allowed."""
