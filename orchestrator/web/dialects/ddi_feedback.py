"""What DDI clients say of an action, and what that means for an update.

Rules:
- Unknown members are ignored, and text is only shown: clients send log lines of any kind, our own errors among them.
- Success before the reboot is progress. Which clients close an action only after it, the user agent tells; of all
  others another sign is awaited, such as the version in their attributes.
- A word has a number, the same each time of one offer: so a repetition is known, and no client fills the record.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec

from orchestrator.core.model import Artifact, Device, Update, UpdateState
from orchestrator.core.update import IN_FLIGHT
from orchestrator.errors import PayloadError
from orchestrator.web.dialects.ddi_clients import Client
from orchestrator.wire.report import Kind, Report

LATER_BOOT = "ddi-later"
"""Stands for whatever boot comes after a client said that it is done."""

CLOSED = 3
"""Number of the report that a client closed its action before the reboot."""

_NUMBERS = {
    Kind.ACCEPTED: 0,
    Kind.DOWNLOADED: 1,
    Kind.INSTALLED: 2,
    Kind.CONFIRMED: 4,
    Kind.FAILED: 5,
    Kind.ROLLED_BACK: 6,
    Kind.RECALLED: 7,
    Kind.TOO_LATE: 8,
    Kind.REFUSED: 9,
    Kind.PROGRESS: 10,
}
_RUNS_IT = (UpdateState.INSTALLED, UpdateState.RUNNING)
_AFTER_INSTALL = (*_RUNS_IT, UpdateState.LOST)
_MAX_TEXT = 512
_MAX_INITIATOR = 64
_BLANK = re.compile(r"[\x00-\x20\x7f]+")


class Execution(StrEnum):
    """How far an action is."""

    CLOSED = "closed"
    PROCEEDING = "proceeding"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"
    REJECTED = "rejected"
    RESUMED = "resumed"
    DOWNLOADED = "downloaded"
    DOWNLOAD = "download"


class Finished(StrEnum):
    """How it ended, if it did."""

    SUCCESS = "success"
    FAILURE = "failure"
    NONE = "none"


class _Result(msgspec.Struct, frozen=True):
    finished: Finished
    progress: Any = None


class _Status(msgspec.Struct, frozen=True):
    execution: Execution
    result: _Result
    details: Any = None


class _Body(msgspec.Struct, frozen=True):
    status: _Status


class Feedback(NamedTuple):
    """One feedback.

    Attributes:
        execution: how far the action is.
        finished: how it ended.
        percent: how much of it is done, None if it does not say.
        text: what it says to a person, on one line, at most 512 characters.
    """

    execution: Execution
    finished: Finished
    percent: int | None
    text: str


class Meaning(NamedTuple):
    """What a feedback means for an update.

    Attributes:
        kind: what is reported.
        code: why, where it went wrong.
        closed: whether the client will say nothing more of its own accord.
    """

    kind: Kind
    code: str = ""
    closed: bool = False


_BODY = msgspec.json.Decoder(_Body)


def decode_feedback(body: bytes) -> Feedback:
    """Decode a feedback.

    Raises:
        PayloadError: it is none.
    """
    try:
        status = _BODY.decode(body.decode("utf-8", "replace")).status
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise PayloadError(f"not a feedback: {error}", code="malformed") from None
    details = status.details if isinstance(status.details, list) else [status.details]
    text = " / ".join(line for line in details if isinstance(line, str) and line)
    return Feedback(status.execution, status.result.finished, _percent(status.result.progress), _line(text))


def of_deployment(said: Feedback, update: Update, client: Client, *, proven: bool) -> Meaning | None:
    """Return what a feedback on a deployment means, None if nothing that is not known, or counts no more.

    Args:
        said: the feedback.
        update: the update as it stands.
        client: who says it.
        proven: whether success after the reboot is believed (`may_be_healthy`).
    """
    if update.state is UpdateState.CONFIRMED:
        return None
    match said.execution:
        case Execution.CLOSED if not update.begun and (client.closes_late or said.finished is not Finished.FAILURE):
            return None  # SWUpdate that is always started with `-c 2` or `-c 3` says so of whatever it finds offered
        case Execution.CLOSED if not update.begun:
            return Meaning(Kind.REFUSED, "install_failed", closed=True)
        case Execution.CLOSED if said.finished is Finished.FAILURE:
            return Meaning(Kind.ROLLED_BACK if update.state in _RUNS_IT else Kind.FAILED, "install_failed", closed=True)
        case Execution.CLOSED if client.closes_late and proven:
            return Meaning(Kind.CONFIRMED, closed=True)
        case Execution.CLOSED:
            return Meaning(Kind.INSTALLED, closed=True)
        case Execution.CANCELED if update.state is UpdateState.RECALLING:
            return Meaning(Kind.RECALLED)
        case Execution.CANCELED:
            return Meaning(Kind.FAILED if update.begun else Kind.REFUSED, "canceled")
        case Execution.DOWNLOADED:
            return Meaning(Kind.DOWNLOADED)
        case Execution.REJECTED:
            return None
    if client.installed and client.installed in said.text:
        return Meaning(Kind.INSTALLED)
    if said.percent is not None and said.percent > update.progress:
        return Meaning(Kind.PROGRESS)
    return None if update.begun and update.state in IN_FLIGHT else Meaning(Kind.ACCEPTED)


def may_be_healthy(update: Update, artifact: Artifact, device: Device, was_known: bool) -> bool:
    """Say whether the version that a device says leaves room for its word that it is healthy on a release.

    Args:
        update: the update as it stands.
        artifact: what it brings.
        device: as it was known before that word.
        was_known: whether it was known what the device ran when it took the update.

    It does if the device said the version of the release since it took that, or if it said that it has installed it and
    no version since.
    """
    after_install = update.state in _AFTER_INSTALL
    if device.version == artifact.version:
        return after_install or device.rel == update.rel
    said_since = bool(update.code) or (device.version != "" and not was_known)
    return after_install and not said_since


def of_cancellation(said: Feedback) -> Meaning | None:
    """Return what a feedback on a recall means, None if the client has not decided."""
    match said.execution:
        case Execution.CLOSED if said.finished is not Finished.FAILURE:
            return Meaning(Kind.RECALLED)
        case Execution.CANCELED:
            return Meaning(Kind.RECALLED)
        case Execution.CLOSED | Execution.REJECTED:
            return Meaning(Kind.TOO_LATE)
    return None


def boot_of(round_: int) -> str:
    """Return what stands for the boot in reports of one round (`tasks.round_of`): these clients name none."""
    return f"ddi-{round_}"


def report_of(
    meaning: Meaning,
    update: Update,
    round_: int,
    *,
    runs: int | None,
    percent: int | None = None,
    version: str = "",
    text: str = "",
) -> Report:
    """Return the report that says this.

    Args:
        meaning: what is said.
        update: of which update.
        round_: by which trigger the device goes.
        runs: release counter that the device ran until now, None if it is not known.
        percent: with progress, how much is done.
        version: what it runs now, if it said so.
        text: for a person.
    """
    early = meaning.closed and meaning.kind is Kind.INSTALLED
    return Report(
        v=1,
        dev=update.device_id,
        att=f"{update.id}.{update.attempt}",
        boot=boot_of(round_),
        n=CLOSED if early else _NUMBERS[meaning.kind],
        kind=meaning.kind,
        ver=version,
        rel=update.rel if meaning.kind is Kind.CONFIRMED else runs,
        pct=percent if meaning.kind is Kind.PROGRESS else None,
        code=meaning.code,
        msg=text,
    )


def version_in(body: bytes, attribute: str) -> str:
    """Return the version that attributes of a device name, "" for none.

    Raises:
        PayloadError: they are no attributes.
    """
    try:
        said = _ATTRIBUTES.decode(body.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise PayloadError(f"not attributes: {error}", code="malformed") from None
    found = said.data.get(attribute)
    return _line(found)[:64] if isinstance(found, str) and said.mode != "remove" else ""


def installed_in(body: bytes) -> str:
    """Return the version that a device says it has installed.

    Raises:
        PayloadError: it says none.
    """
    try:
        return _line(_HAS.decode(body.decode("utf-8", "replace")).version)[:64]
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise PayloadError(f"not what is installed: {error}", code="malformed") from None


def decode_confirmation(body: bytes) -> bool:
    """Return whether the user of a device agrees.

    Raises:
        PayloadError: it does not say.
    """
    try:
        return _CONFIRMATION.decode(body.decode("utf-8", "replace")).confirmation is _Word.CONFIRMED
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise PayloadError(f"not an answer of a user: {error}", code="malformed") from None


def decode_standing(body: bytes) -> Said:
    """Return who agrees to every update, and the remark; a body is not needed.

    Raises:
        PayloadError: there is one, and it is something else.
    """
    try:
        said = _STANDING.decode(body.decode("utf-8", "replace") or "{}")
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise PayloadError(f"not an agreement: {error}", code="malformed") from None
    return Said(_line(said.initiator or "")[:_MAX_INITIATOR], _line(said.remark or ""))


class Said(NamedTuple):
    """Who agrees to every update.

    Attributes:
        initiator: who, at most 64 characters on one line.
        remark: what the device adds, at most 512.
    """

    initiator: str
    remark: str


class _Word(StrEnum):
    CONFIRMED = "confirmed"
    DENIED = "denied"


class _Confirmation(msgspec.Struct, frozen=True):
    confirmation: _Word


class _Standing(msgspec.Struct, frozen=True):
    initiator: str | None = None
    remark: str | None = None


class _Attributes(msgspec.Struct, frozen=True):
    data: dict[str, Any]
    mode: Any = None


class _Has(msgspec.Struct, frozen=True):
    version: Annotated[str, msgspec.Meta(max_length=1024)]


_ATTRIBUTES = msgspec.json.Decoder(_Attributes)
_HAS = msgspec.json.Decoder(_Has)
_CONFIRMATION = msgspec.json.Decoder(_Confirmation)
_STANDING = msgspec.json.Decoder(_Standing)


def _line(text: str) -> str:
    return _BLANK.sub(" ", text).strip()[:_MAX_TEXT]


def _percent(progress: Any) -> int | None:
    """Return the percentage that a client names; `cnt` and `of` count chunks or steps, which are no share of work."""
    found = progress.get("percentage") if isinstance(progress, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return int(found) if 0 <= found <= 100 else None
