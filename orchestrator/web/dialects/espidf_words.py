"""What a device with `esp_https_ota` says of itself in a request, and the reports that this means.

Rules:
- It says nothing unless its application adds it: a version proves what runs, silence proves nothing.
- A version on trial is `running`, one that is kept is `confirmed`. Bytes that went out whole are `downloaded`.
- A word has a number, the same each time of one offer: so a repetition is known, and no client fills the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request

from orchestrator.core.model import Update
from orchestrator.errors import PayloadError
from orchestrator.web.logins import basic
from orchestrator.web.stated import stated
from orchestrator.wire.report import Kind, Report

WORDS = {b"x-esp-app-version": "version", b"x-esp-app-state": "state"}
"""Where a request may say what runs: headers, and the same words of its query."""

LATER_BOOT = "esp-idf-later"
"""Stands for whatever boot comes after a download."""

PEEK_BYTES = 1024
"""Who asks for no more than this, from the first byte on, reads the description of an image and has not begun."""

_NUMBERS = {Kind.ACCEPTED: 0, Kind.DOWNLOADED: 1, Kind.RUNNING: 2, Kind.CONFIRMED: 3, Kind.RECALLED: 4}
_MAX_LOGIN_CHARS = 512


class AppState(StrEnum):
    """State of the running partition, as `esp_ota_get_state_partition` names it."""

    NEW = "new"
    PENDING_VERIFY = "pending_verify"
    VALID = "valid"
    INVALID = "invalid"
    ABORTED = "aborted"
    UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says of its device.

    Attributes:
        version: version of the application that runs, "" if it is not said.
        on_trial: whether it still has to prove itself; the bootloader takes no other image meanwhile.
    """

    version: str = ""
    on_trial: bool = False


def said_in(request: Request) -> Said:
    """Return what a request says.

    Raises:
        PayloadError: it says something twice, or what cannot be.
    """
    said = stated(request, WORDS)
    state = said.get("state")
    if state is not None and state not in set(AppState):
        raise PayloadError(f"state {state!r} is not known; there are {', '.join(AppState)}", code="bad_state")
    return Said(said.get("version", ""), state == AppState.PENDING_VERIFY)


def login(authorization: str) -> tuple[str, str]:
    """Return name and token of a login; both are "" where there is none, the name also where none is said."""
    scheme, _, text = authorization.partition(" ")
    return ("", text.strip()) if scheme.lower() == "bearer" else basic(authorization, _MAX_LOGIN_CHARS)


def report_of(kind: Kind, update: Update, round_: int, *, version: str, rel: int | None) -> Report:
    """Return the report that says this.

    Args:
        kind: what is said.
        update: of which update.
        round_: by which trigger the device goes.
        version: what runs.
        rel: release counter that runs, None if it is not known.
    """
    attempt = f"{update.id}.{update.attempt}"
    boot = f"esp-idf-{round_}"
    return Report(v=1, dev=update.device_id, att=attempt, boot=boot, n=_NUMBERS[kind], kind=kind, ver=version, rel=rel)
