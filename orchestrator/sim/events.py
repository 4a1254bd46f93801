"""What can happen to a simulated device, and what it wants done.

Rules:
- Both vocabularies are closed: the device knows no other event, the agent performs no other effect.
- Nothing here acts; events and effects are plain values.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.wire.report import Hello, Report


@dataclass(frozen=True, slots=True)
class PowerOn:
    """The device is switched on for the first time."""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Power fails this moment, and comes back after the reboot time."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The moment `wake_at` has come."""


@dataclass(frozen=True, slots=True)
class Command:
    """A bundle arrived, by MQTT or as the answer to a poll."""

    bundle: bytes


@dataclass(frozen=True, slots=True)
class NewKeys:
    """A keyset arrived, by MQTT or as an answer of the server."""

    bundle: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    """A beat arrived.

    Attributes:
        token: the signed beat.
        way: release counter of the addresses by which it came.
    """

    token: bytes
    way: int = 0


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection was made.

    Attributes:
        way: release counter of the addresses by which it was made.
    """

    way: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The server began to send the artifact from `offset_bytes` on."""

    offset_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of the artifact, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The download stopped early.

    Attributes:
        code: stable reason code.
        final: whether trying again cannot help.
    """

    code: str
    final: bool


Event = PowerOn | PowerCut | Tick | Command | NewKeys | Beat | Reached | Opened | Chunk | FetchFailed


@dataclass(frozen=True, slots=True)
class Say:
    """Send a report."""

    report: Report


@dataclass(frozen=True, slots=True)
class Up:
    """The device has booted, or goes by other addresses: connect and say hello."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Down:
    """Power is gone: drop every connection.

    Attributes:
        sudden: whether unsent reports are lost too.
    """

    sudden: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download an artifact from `offset_bytes` on, trying the URLs in order."""

    urls: tuple[str, ...]
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StopFetch:
    """The download is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Note:
    """What truly happened, for counters and the journal; a server never sees it.

    Attributes:
        event: `accepted`, `refused`, `refreshed`, `recalled`, `too_late`, `superseded`, `failed`, `installed`,
            `crashed`, `rolled_back`, `confirmed`, `lied`, `silent`, `power_cut`, `rekeyed`, `keys_refused`, `trying`,
            `moved` or `moved_back`.
        code: reason code where there is one.
        att: attempt it is about, "" if none.
    """

    event: str
    code: str = ""
    att: str = ""


Effect = Say | Up | Down | Fetch | StopFetch | Note
