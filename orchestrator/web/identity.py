"""Which device a request comes from.

Rules:
- Every way in asks here, so that all of them answer from the same memory and note the contact.
- What is for devices of one dialect is for no others: theirs has rules of its own for what they may have.
- A token that could not be ours is refused before anything is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.model import Device
from orchestrator.engine.rollouts.operations import token_hash
from orchestrator.errors import ForbiddenError

if TYPE_CHECKING:
    from orchestrator.web.context import Context

MAX_TOKEN_CHARS = 128


async def device_of_token(context: Context, token: str) -> Device | None:
    """Return the device of a token, None for an unknown one."""
    if not token or len(token) > MAX_TOKEN_CHARS:
        return None
    return _noted(context, await context.known.of_token(token_hash(token)))


async def device_named(context: Context, device_id: str) -> Device | None:
    """Return a device that somebody else vouches for: a gateway, or a proxy that checked its certificate."""
    return _noted(context, await context.known.named(device_id))


def check_dialect(device: Device, dialect: str) -> None:
    """Check that a device speaks the dialect of the address at which it asks.

    Raises:
        ForbiddenError: operators say that it speaks something else.
    """
    if device.dialect != dialect:
        text = f"operators say that {device.id} speaks {device.dialect}; see `ota device set {device.id} --dialect`"
        raise ForbiddenError(text, code="other_dialect")


def _noted(context: Context, device: Device | None) -> Device | None:
    if device is not None:
        context.contacts.note(device.id, context.now())
    return device
