"""A move to other addresses, as part of the pure device: the trial, its proof, and the way back.

Rules:
- The addresses that work are given up only for others that were proven, in one write.
- The proof is a beat that came by the new addresses and was signed after the switch; no connection proves anything.
- A trial is not in `Flash`: whatever ends it, a reboot too, ends on the old addresses.
- That it went back a device says where it went back to: what new addresses acknowledge may reach nobody.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.errors import PayloadError
from orchestrator.sim.events import Beat, Event, Reached, Up
from orchestrator.sim.flash import Way
from orchestrator.sim.profile import Profile
from orchestrator.sim.turn import Turn
from orchestrator.sim.unit import Phase
from orchestrator.verifier import Refused, take_beat
from orchestrator.wire.endpoints import Endpoints, decode_endpoints, split
from orchestrator.wire.report import Kind

UNREACHABLE = "endpoint_unreachable"


def begin(turn: Turn) -> str:
    """Go by the addresses that the update in progress brought, on trial; or return why they cannot be tried.

    Returns:
        "" if the trial began, else a code; then nothing was changed.
    """
    profile, attempt = turn.unit.profile, turn.attempt
    try:
        endpoints = decode_endpoints(turn.flash.writing.head, turn.flash.keyset.iss)
    except PayloadError as error:
        return error.code
    if code := _unusable(endpoints, profile):
        return code
    turn.keep(attempt=replace(attempt, installed=True))
    turn.note("trying", att=attempt.att)
    turn.say(Kind.INSTALLED)
    turn.unit = replace(turn.unit, trial=Way(attempt.rel, endpoints), began_at=turn.now)
    turn.enter(Phase.TRYING, profile.pace.trial_s)
    turn.effects.append(Up(turn.unit.hello(turn.now)))
    return ""


def arrive(turn: Turn, event: Reached) -> None:
    """Say over the first connection by the new addresses that it was made."""
    if event.way == turn.unit.way.rel and turn.flash.last[turn.attempt.component].kind is Kind.INSTALLED:
        turn.say(Kind.RUNNING)


def proves(turn: Turn, event: Beat) -> bool:
    """Say whether a beat proves that the daemon stands behind the addresses on trial."""
    if event.way != turn.unit.way.rel:
        return False
    try:
        # By itself: a newer one may have been heard elsewhere.
        heard = take_beat(event.token, replace(turn.unit.identity, beat_iat=0), int(turn.now))
    except Refused:
        return False
    return heard.beat_iat >= turn.unit.began_at


def keep(turn: Turn) -> None:
    """Go by the addresses of the update in progress for good: they are proven, or those that it goes by already."""
    attempt = turn.attempt
    turn.keep(way=replace(turn.unit.way, rel=attempt.rel))
    turn.hold(attempt.confirmed(turn.flash.endpoints))
    if turn.unit.trial is None:  # the same addresses under another number, which it has not said yet
        turn.effects.append(Up(turn.unit.hello(turn.now)))
    turn.note("moved", att=attempt.att)
    turn.say(Kind.CONFIRMED)
    turn.close()


def give_up(turn: Turn, _: Event | None = None) -> None:
    """Go back to the old addresses."""
    turn.unit = replace(turn.unit, trial=None)
    turn.enter(Phase.RETURNING)
    turn.effects.append(Up(turn.unit.hello(turn.now)))


def report_back(turn: Turn, event: Reached) -> None:
    """Say over the first connection by the old addresses that it went back to them."""
    if event.way != turn.unit.way.rel:
        return
    turn.note("moved_back", UNREACHABLE, turn.attempt.att)
    turn.say(Kind.ROLLED_BACK, code=UNREACHABLE)
    turn.close()


def _unusable(endpoints: Endpoints, profile: Profile) -> str:
    """Return why this device cannot go by such addresses, "" if it can."""
    needed = endpoints.http if profile.channel == "poll" else endpoints.mqtt
    if not needed:
        return "no_address"
    schemes = {split(address).scheme for address in endpoints.mqtt + endpoints.http}
    plain = bool(schemes & {"mqtt", "http"})
    return "url_scheme" if plain and not profile.trust.loopback else ""
