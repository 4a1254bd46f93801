"""What devices say: reports, hellos and last wills, as JSON of at most 2 KiB.

Rules:
- `decode_*` either returns a whole valid value or raises `PayloadError`; it never guesses.
- Unknown members are ignored, so that newer devices keep talking to older daemons.
- A report is identified by (`att`, `boot`, `n`): a device that repeats itself repeats these three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec

from orchestrator.errors import PayloadError
from orchestrator.wire.topics import is_identifier

MAX_REPORT_BYTES = 2048
_ATTEMPT = re.compile(r"[1-9][0-9]{0,17}\.[1-9][0-9]{0,3}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,47}")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Short = Annotated[str, msgspec.Meta(max_length=64)]
"""A word on one line: `_decode` refuses control characters in it."""
Counter = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]

METRIC = r"^[a-z][a-z0-9_]{0,31}\Z"
MAX_METRICS = 16
Metrics = Annotated[dict[Annotated[str, msgspec.Meta(pattern=METRIC)], float], msgspec.Meta(max_length=MAX_METRICS)]
"""What a device measures of itself; numbers that do not fit a double are refused with the message."""


class Kind(StrEnum):
    """What one report says about one attempt."""

    ACCEPTED = "accepted"
    PROGRESS = "progress"
    DOWNLOADED = "downloaded"
    INSTALLED = "installed"
    RUNNING = "running"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    RECALLED = "recalled"
    TOO_LATE = "too_late"

    __hash__ = str.__hash__  # the enum's own is a Python function


class OwnFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device says of its present condition, and its user of the next update; all of it may be left out.

    Attributes:
        bat: battery in percent.
        charging: whether it is on external power.
        free: free bytes where a download is kept.
        slot: size in bytes of the smallest slot that an artifact is written to.
        link: how it is connected.
        metered: whether its traffic is paid for by volume.
        uptime: seconds since its boot.
        agreed: whether its user agrees to be updated.
        later: until when its user puts the update off, epoch seconds.
    """

    bat: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    charging: bool | None = None
    free: Counter | None = None
    slot: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] | None = None
    link: Literal["wifi", "ethernet", "cellular"] | None = None
    metered: bool | None = None
    uptime: Counter | None = None
    agreed: bool | None = None
    later: Counter | None = None


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One statement of a device about one attempt.

    Attributes:
        v: format version, 1.
        dev: device identifier; must equal the topic segment or the HTTP identity.
        att: attempt as in the trigger, `<update>.<attempt>`.
        boot: identifier of the device's present boot, chosen by the device.
        n: counter of reports within that boot, from 0.
        kind: what is said.
        ver: version that runs now, for display.
        rel: release counter that runs now; needed with `running` and `confirmed`.
        seq: `seq` of the trigger or recall that this answers.
        pct: progress in percent, with `progress`.
        code: stable reason code, with `failed`, `rolled_back`, `refused`.
        msg: short text for a person, never judged.
        boots: the device's boot counter.
        bat: battery in percent.
        sha: first characters of the running image's SHA-256 in base64url.
        metrics: what the device measures of itself, judged with `running` and `confirmed`.
        facts: its condition.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    dev: Short
    att: Short
    boot: Short
    n: Counter
    kind: Kind
    ver: Short = ""
    rel: Counter | None = None
    seq: Counter | None = None
    pct: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    code: Annotated[str, msgspec.Meta(max_length=48)] = ""
    msg: Annotated[str, msgspec.Meta(max_length=512)] = ""
    boots: Counter | None = None
    bat: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    sha: Short = ""
    metrics: Metrics = {}
    facts: OwnFacts | None = None

    def words(self) -> Iterable[str]:
        """Return what must be on one line."""
        return self.dev, self.att, self.boot, self.ver, self.sha

    @property
    def said(self) -> str:
        """What is kept for a person: the text, and what was measured."""
        measured = ", ".join(f"{name}={number:g}" for name, number in self.metrics.items())
        return "; ".join(part for part in (self.msg, measured) if part)

    @property
    def named(self) -> tuple[int, int]:
        """What `att` names: the update and the number of its attempt."""
        update_id, _, attempt = self.att.partition(".")
        return int(update_id), int(attempt)


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device says of itself when it connects, and whenever that changes.

    Attributes:
        v: format version, 1.
        dev: device identifier; must equal the topic segment or the HTTP identity.
        model: hardware model identifier.
        ver: version that runs now, for display.
        rel: release counter that runs now.
        boot: identifier of the present boot.
        boots: the device's boot counter.
        groups: groups the device believes to be in (display only, never a permission).
        bat: battery in percent.
        metrics: what the device measures of itself.
        facts: its condition.
        eps: release counter of the endpoints it goes by, 0 for those provisioned; None where they cannot be moved.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    dev: Short
    model: Short
    ver: Short = ""
    rel: Counter = 0
    boot: Short = ""
    boots: Counter | None = None
    groups: Annotated[tuple[Short, ...], msgspec.Meta(max_length=16)] = ()
    bat: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    metrics: Metrics = {}
    facts: OwnFacts | None = None
    eps: Counter | None = None

    def words(self) -> Iterable[str]:
        """Return what must be on one line."""
        return self.dev, self.model, self.ver, self.boot, *self.groups


class State(msgspec.Struct, frozen=True):
    """Connection state of a device; the broker publishes `online: false` as its last will.

    Attributes:
        v: format version, 1.
        dev: device identifier.
        online: whether the device is connected.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    dev: Short
    online: bool

    def words(self) -> Iterable[str]:
        """Return what must be on one line."""
        return (self.dev,)


_Message = TypeVar("_Message", Report, Hello, State)

_REPORT = msgspec.json.Decoder(Report)
_HELLO = msgspec.json.Decoder(Hello)
_STATE = msgspec.json.Decoder(State)
_ENCODER = msgspec.json.Encoder()


def encode(message: Report | Hello | State) -> bytes:
    """Return the JSON bytes of a message."""
    return _ENCODER.encode(message)


def decode_report(payload: bytes, device: str) -> Report:
    """Decode a report of the authenticated `device`.

    Raises:
        PayloadError: too large, not JSON, out of range, or about another device.
    """
    report = _decode(_REPORT, payload, device)
    if _ATTEMPT.fullmatch(report.att) is None:
        raise PayloadError("att must be <update>.<attempt>", code="bad_attempt")
    if report.code and _CODE.fullmatch(report.code) is None:
        raise PayloadError("code must be lower case words with underscores", code="bad_code")
    if report.rel is None and report.kind in (Kind.RUNNING, Kind.CONFIRMED):
        raise PayloadError(f"{report.kind} must carry rel", code="missing_rel")
    return report


def decode_hello(payload: bytes, device: str) -> Hello:
    """Decode a hello of the authenticated `device`.

    Raises:
        PayloadError: too large, not JSON, out of range, or about another device.
    """
    hello = _decode(_HELLO, payload, device)
    if not is_identifier(hello.model) or not all(map(is_identifier, hello.groups)):
        raise PayloadError("model and groups must be identifiers", code="bad_identifier")
    return hello


def decode_state(payload: bytes, device: str) -> State:
    """Decode a connection state of the authenticated `device`.

    Raises:
        PayloadError: too large, not JSON, or about another device.
    """
    return _decode(_STATE, payload, device)


def _decode(decoder: msgspec.json.Decoder[_Message], payload: bytes, device: str) -> _Message:
    if len(payload) > MAX_REPORT_BYTES:
        raise PayloadError(f"{len(payload)} bytes; at most {MAX_REPORT_BYTES} are allowed", code="oversize")
    try:
        message = decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PayloadError(f"not a valid message: {error}", code="malformed") from None
    # In JSON a control character is either escaped or DEL; a look at the bytes spares a look at each word.
    if (b"\\" in payload or b"\x7f" in payload) and any(map(_CONTROL.search, message.words())):
        raise PayloadError("not a valid message: control characters in a word", code="malformed")
    if message.dev != device:
        raise PayloadError("dev is not the sender", code="foreign_device")
    return message
