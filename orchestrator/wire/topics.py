"""Topic names of `ota/v1`, and the identifiers that may stand in them.

Rules:
- An identifier is `[a-z0-9][a-z0-9._-]{0,63}`: nothing in it can be a wildcard, a level or a path.
- The identity of a device is the topic segment, which the broker's access rules bind to its login.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from orchestrator.errors import PayloadError

PREFIX = "ota/v1"
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Channel(StrEnum):
    """What a device says, by the last level of its topic."""

    REPORT = "report"
    STATE = "state"
    HELLO = "hello"


_CHANNELS = {channel.value: channel for channel in Channel}
_UPLINK = re.compile(f"{PREFIX}/d/({_IDENTIFIER.pattern})/({'|'.join(_CHANNELS)})")
_RETAINED = re.compile(f"{PREFIX}/(keys/[1-9][0-9]{{0,15}}|g/{_IDENTIFIER.pattern}/beat)")
_COMMAND = re.compile(f"{PREFIX}/[dg]/{_IDENTIFIER.pattern}/cmd")


class DeviceTopic(NamedTuple):
    """A topic that a device writes to.

    Attributes:
        device: device identifier, the authenticated sender.
        channel: which of the device's topics.
    """

    device: str
    channel: Channel


def is_identifier(text: str) -> bool:
    """Say whether `text` may name a device, group, model, component or rollout."""
    return _IDENTIFIER.fullmatch(text) is not None


def command(device: str) -> str:
    """Return the topic on which `device` receives triggers and recalls."""
    return f"{PREFIX}/d/{device}/cmd"


KEYSETS = f"{PREFIX}/keys/+"
"""Where all keysets lie retained."""

BEAT = f"{PREFIX}/g/all/beat"
"""Where the present beat lies retained."""


EVENTS = f"{PREFIX}/events/#"
"""What operators' programs hear, and no device."""


EVERYTHING = f"{PREFIX}/#"
"""All topics of this format."""


def beat_of(group: str) -> str:
    """Return the topic on which a beat of a group lies retained."""
    return f"{PREFIX}/g/{group}/beat"


def group_command(group: str) -> str:
    """Return the topic on which a group would receive triggers; only the daemon may write it."""
    return f"{PREFIX}/g/{group}/cmd"


def event(kind: str) -> str:
    """Return the topic of a type of event, such as `rollout.halted`; no device may read it."""
    return f"{PREFIX}/events/{kind.replace('.', '/')}"


def may_lie_retained(topic: str) -> bool:
    """Say whether the daemon keeps messages on this topic; what lies retained elsewhere is foreign."""
    return _RETAINED.fullmatch(topic) is not None


def is_command(topic: str) -> bool:
    """Say whether this is a topic of triggers and recalls, on which only the daemon may write."""
    return _COMMAND.fullmatch(topic) is not None


def keyset(epoch: int) -> str:
    """Return the topic on which the keyset of an epoch lies retained."""
    return f"{PREFIX}/keys/{epoch}"


def uplink(device: str, channel: Channel) -> str:
    """Return the topic on which `device` says something."""
    return f"{PREFIX}/d/{device}/{channel}"


def uplink_filters() -> tuple[str, ...]:
    """Return the subscriptions that cover everything devices say."""
    return tuple(f"{PREFIX}/d/+/{channel}" for channel in Channel)


def parse_uplink(topic: str) -> DeviceTopic:
    """Take a device topic apart.

    Raises:
        PayloadError: the topic is not one that a device may write to.
    """
    match = _UPLINK.fullmatch(topic)
    if match is None:
        raise PayloadError(f"not a device topic: {topic[:120]!r}", code="bad_topic")
    device, channel = match.groups()
    return DeviceTopic(device, _CHANNELS[channel])
