"""One simulated device as a pure machine: events in, effects out, time as an argument.

Rules:
- No I/O, no clock, no chance: equal units, events and times give equal answers.
- What happens is a table, `(phase, event) -> handler`; a pair that is not in it changes nothing.
- After a boot everything is derived from `Flash`, so power may fail between any two events.
- Only bytes whose size and hash a verified trigger names are ever put into a slot.
- An attempt already held is never begun again; its last report is repeated, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from orchestrator.sim import condition, moving
from orchestrator.sim.draw import draw
from orchestrator.sim.events import (
    Beat,
    Chunk,
    Command,
    Down,
    Effect,
    Event,
    Fetch,
    FetchFailed,
    NewKeys,
    Opened,
    PowerCut,
    PowerOn,
    Reached,
    StopFetch,
    Tick,
    Up,
)
from orchestrator.sim.flash import Attempt, Writing
from orchestrator.sim.slots import SlotState
from orchestrator.sim.turn import Turn
from orchestrator.sim.unit import Phase, Unit
from orchestrator.verifier import Keyset, Refused, Verdict, take_beat, take_keyset, verify
from orchestrator.wire.endpoints import COMPONENT as ENDPOINTS
from orchestrator.wire.endpoints import MAX_DOCUMENT_BYTES
from orchestrator.wire.report import Kind

MAX_TRIES = 50
LONGEST_PAUSE = 3  # the pause between two tries doubles so many times

_NOT_BEGUN = (Phase.WAITING, Phase.DOWNLOADING, Phase.DOWNLOADED)
_BUSY = (Phase.INSTALLING, Phase.TESTING, Phase.TRYING, Phase.RETURNING)
_POWERED = (Phase.IDLE, *_NOT_BEGUN, *_BUSY)


def step(unit: Unit, event: Event, now: float) -> tuple[Unit, tuple[Effect, ...]]:
    """Let one event happen to a device.

    Args:
        unit: the device before.
        event: what happens.
        now: epoch seconds.

    Returns:
        The device after, and what it wants done, in order.
    """
    handler = _TABLE.get((unit.phase, type(event)))
    early = isinstance(event, Tick) and (unit.wake_at is None or now < unit.wake_at)
    if handler is None or early:
        return unit, ()
    turn = Turn(unit, now)
    handler(turn, event)
    return turn.unit, tuple(turn.effects)


def _boot(turn: Turn, _: Event) -> None:
    flash = replace(turn.flash, slots=turn.flash.slots.boot(), boots=turn.flash.boots + 1)
    profile = turn.unit.profile
    turn.unit = Unit(profile, flash, Phase.IDLE, boot=f"{profile.run}-{flash.boots}", booted_at=turn.now)
    installed = flash.attempt is not None and flash.attempt.installed
    if installed and turn.attempt.moves:
        moving.give_up(turn)
        return
    if installed and profile.has("silent"):
        turn.note("silent", att=turn.attempt.att)
        turn.enter(Phase.SILENT)
        return
    turn.effects.append(Up(turn.unit.hello(turn.now)))
    if installed and flash.slots.running.state is SlotState.PENDING_VERIFY:
        turn.say(Kind.RUNNING)
        turn.enter(Phase.TESTING, profile.pace.selftest_s)
    elif installed:
        _rolled_back(turn)
    elif flash.attempt is not None:
        turn.say(Kind.PROGRESS, pct=_percent(turn))
        _fetch(turn)


def _rolled_back(turn: Turn) -> None:
    attempt = turn.attempt
    turn.note("rolled_back", turn.flash.reset, attempt.att)
    if turn.unit.profile.has("lie"):
        turn.note("lied", att=attempt.att)
        turn.say(Kind.CONFIRMED, ver=attempt.version, rel=attempt.rel)
    else:
        turn.say(Kind.ROLLED_BACK, code=turn.flash.reset)
    turn.close()


def _cut(turn: Turn, _: Event) -> None:
    turn.note("power_cut")
    _go_down(turn, "power_lost", sudden=True)


def _go_down(turn: Turn, reset: str, *, sudden: bool) -> None:
    if turn.unit.phase is Phase.DOWNLOADING:
        turn.effects.append(StopFetch())
    turn.effects.append(Down(sudden))
    turn.unit = Unit(turn.unit.profile, replace(turn.flash, reset=reset))
    turn.enter(Phase.OFF, turn.unit.profile.pace.reboot_s)


def _command(turn: Turn, event: Command) -> None:
    try:
        verdict = verify(event.bundle, turn.unit.identity, int(turn.now))
    except Refused as refusal:
        _refuse(turn, refusal.code, refusal.claims)
        return
    if verdict.kind == "recall":
        _recall(turn, verdict)
    elif verdict.kind == "refresh":
        turn.hold(verdict.component)
        turn.note("refreshed", att=verdict.claims["att"])
        turn.repeat(verdict.claims["att"])
    elif turn.unit.phase in _BUSY:
        _refuse(turn, "busy", verdict.claims)
    elif code := _unfit(turn, verdict.claims):
        _refuse(turn, code, verdict.claims)
    else:
        _accept(turn, verdict)


def _take_keys(turn: Turn, event: NewKeys) -> None:
    try:
        after = take_keyset(event.bundle, turn.unit.identity, int(turn.now))
    except Refused as refusal:
        if refusal.code != "wrong_version":  # all keysets lie retained; each comes again with each connection
            turn.note("keys_refused", refusal.code)
        return
    if turn.flash.attempt is not None and turn.unit.phase in _NOT_BEGUN:
        _give_up(turn, code="new_keys")  # whoever signed it may be the one who was revoked
    keyset = Keyset(after.iss, after.ep, dict(after.keys), after.need_root, after.need_cosign)
    turn.keep(keyset=keyset)
    for component in after.components.values():
        turn.hold(component)
    turn.keep(floor=after.floor, beat_iat=after.beat_iat)
    turn.note("rekeyed")


def _hear_beat(turn: Turn, event: Beat) -> None:
    with suppress(Refused):
        after = take_beat(event.token, turn.unit.identity, int(turn.now))
        turn.keep(floor=after.floor, beat_iat=after.beat_iat)


def _refuse(turn: Turn, code: str, claims: Mapping[str, Any]) -> None:
    # Without claims the bytes were not authentic, or not for us: nothing in them may name an attempt.
    turn.note("refused", code, claims.get("att", ""))
    if claims:
        said = {"code": code, "facts": turn.unit.facts(turn.now), "rel": turn.unit.release(claims["comp"])}
        turn.report(Kind.REFUSED, claims["att"], claims["seq"], **said)


def _unfit(turn: Turn, claims: Mapping[str, Any]) -> str:
    """Return why the device cannot begin now, whatever it told the daemon before; "" if it can."""
    if claims["comp"] == ENDPOINTS and claims["size"] > MAX_DOCUMENT_BYTES:
        return "too_large"
    least_pct = turn.unit.profile.behaviour.least_battery_pct
    return condition.unfit(turn.unit.facts(turn.now), claims.get("pol", {}), claims["size"], least_pct)


def _accept(turn: Turn, verdict: Verdict) -> None:
    if turn.flash.attempt is not None:
        turn.note("superseded", att=turn.attempt.att)
        _give_up(turn, code="superseded")
    turn.hold(verdict.component)
    turn.keep(attempt=Attempt.of(verdict.claims, turn.now))
    turn.note("accepted", att=turn.attempt.att)
    turn.say(Kind.ACCEPTED)
    if turn.attempt.sha256 == verdict.component.sha256:
        _confirmed(turn)
        return
    profile = turn.unit.profile
    jitter_s = verdict.claims.get("pol", {}).get("jit", 0) / profile.pace.speed
    turn.enter(Phase.WAITING, jitter_s * draw(profile.behaviour.seed, turn.attempt.att, profile.device))


def _give_up(turn: Turn, **fields: Any) -> None:
    if turn.unit.phase is Phase.DOWNLOADING:
        turn.effects.append(StopFetch())
    turn.say(Kind.RECALLED, **fields)
    turn.close()


def _recall(turn: Turn, verdict: Verdict) -> None:
    att, seq = verdict.claims["att"], verdict.claims["seq"]
    component = turn.flash.components[verdict.component.name]
    open_att = turn.flash.attempt.att if turn.flash.attempt is not None else ""
    rel = turn.unit.release(component.name)
    if att == open_att and turn.unit.phase in _NOT_BEGUN:
        turn.hold(verdict.component)
        turn.note("recalled", att=att)
        _give_up(turn)
        return
    if att != component.att:
        turn.hold(verdict.component)
        turn.note("recalled", att=att)
        turn.report(Kind.RECALLED, att, seq, rel=rel)
        return
    # It was begun: the mark rises, but the attempt stays held, so that it is never begun again.
    turn.hold(replace(component, seq=verdict.component.seq, recall=verdict.component.recall))
    if att == open_att or turn.flash.last[component.name].kind is Kind.CONFIRMED:
        turn.note("too_late", att=att)
        turn.report(Kind.TOO_LATE, att, seq, rel=rel)
    else:
        turn.repeat(att)


def _fetch(turn: Turn, _: Event | None = None) -> None:
    attempt, received = turn.attempt, turn.flash.writing.received_bytes
    if attempt.deadline_at is not None and turn.now >= attempt.deadline_at:
        _fail(turn, "download_timeout")
        return
    if not attempt.moves:
        turn.keep(slots=turn.flash.slots.erase())
    turn.unit = replace(turn.unit, began_at=turn.now)
    if received == attempt.size_bytes:
        _check(turn)
        return
    turn.enter(Phase.DOWNLOADING)
    turn.unit = replace(turn.unit, wake_at=attempt.deadline_at)
    turn.effects.append(Fetch(attempt.urls, received, attempt.size_bytes))


def _overdue(turn: Turn, _: Event) -> None:
    turn.effects.append(StopFetch())
    _fail(turn, "download_timeout")


def _opened(turn: Turn, event: Opened) -> None:
    if event.offset_bytes == 0:
        turn.keep(writing=Writing())
    elif event.offset_bytes != turn.flash.writing.received_bytes:
        turn.effects.append(StopFetch())
        _again(turn, "bad_range", final=False)


def _chunk(turn: Turn, event: Chunk) -> None:
    attempt, before = turn.attempt, turn.flash.writing
    half = attempt.size_bytes // 2
    if before.received_bytes + len(event.data) > attempt.size_bytes:
        turn.effects.append(StopFetch())
        _fail(turn, "size_mismatch")
        return
    if _loses_power(turn) and before.received_bytes + len(event.data) >= half:
        turn.keep(writing=before.write(event.data[: max(0, half - before.received_bytes)]), cut=attempt.att)
        _cut(turn, event)
        return
    turn.keep(writing=before.write(event.data))
    if turn.flash.writing.received_bytes == attempt.size_bytes:
        _check(turn)
    elif before.received_bytes < half <= turn.flash.writing.received_bytes:
        turn.say(Kind.PROGRESS, pct=_percent(turn))


def _loses_power(turn: Turn) -> bool:
    return turn.unit.profile.has("power_loss") and turn.flash.cut != turn.attempt.att


def _percent(turn: Turn) -> int:
    return 100 * turn.flash.writing.received_bytes // turn.attempt.size_bytes


def _check(turn: Turn) -> None:
    if not turn.flash.writing.holds(turn.attempt):
        turn.keep(writing=Writing())
        _again(turn, "hash_mismatch", final=False)
        return
    rest_s = turn.unit.began_at + turn.unit.profile.pace.download_s - turn.now
    turn.enter(Phase.DOWNLOADED, max(0.0, rest_s))


def _fetch_failed(turn: Turn, event: FetchFailed) -> None:
    _again(turn, event.code, final=event.final)


def _again(turn: Turn, code: str, *, final: bool) -> None:
    turn.unit = replace(turn.unit, tries=turn.unit.tries + 1)
    if final or turn.unit.tries >= MAX_TRIES:
        _fail(turn, code)
    else:
        turn.enter(Phase.WAITING, turn.unit.profile.pace.retry_s * 2 ** min(turn.unit.tries, LONGEST_PAUSE))


def _fail(turn: Turn, code: str) -> None:
    turn.note("failed", code, turn.attempt.att)
    turn.say(Kind.FAILED, code=code)
    turn.close()


def _install(turn: Turn, _: Event) -> None:
    turn.say(Kind.DOWNLOADED)
    turn.enter(Phase.INSTALLING, turn.unit.profile.pace.install_s)


def _begin_trial(turn: Turn, _: Event) -> None:
    if not turn.attempt.moves:
        _reboot(turn)
    elif code := moving.begin(turn):
        _fail(turn, code)


def _reboot(turn: Turn) -> None:
    image = turn.flash.writing.image(turn.attempt)
    turn.keep(slots=turn.flash.slots.install(image), attempt=replace(turn.attempt, installed=True), writing=Writing())
    turn.note("installed", att=turn.attempt.att)
    turn.say(Kind.INSTALLED)
    _go_down(turn, "reboot", sudden=False)


def _tested(turn: Turn, _: Event) -> None:
    if turn.unit.profile.has("bad") and turn.unit.runs_bad:
        turn.note("crashed", att=turn.attempt.att)
        _go_down(turn, "self_test_crash", sudden=True)
        return
    turn.keep(slots=turn.flash.slots.confirm())
    _confirmed(turn)


def _confirmed(turn: Turn) -> None:
    attempt = turn.attempt
    if attempt.moves:
        moving.keep(turn)
        return
    turn.hold(attempt.confirmed(turn.flash.component))
    turn.note("confirmed", att=attempt.att)
    turn.say(Kind.CONFIRMED)
    turn.close()


def _prove(turn: Turn, event: Beat) -> None:
    _hear_beat(turn, event)
    if moving.proves(turn, event):
        moving.keep(turn)


_Handler = Callable[[Turn, Any], None]

_TABLE: dict[tuple[Phase, type[Event]], _Handler] = {
    (Phase.OFF, PowerOn): _boot,
    (Phase.OFF, Tick): _boot,
    (Phase.WAITING, Tick): _fetch,
    (Phase.DOWNLOADING, Tick): _overdue,
    (Phase.DOWNLOADING, Opened): _opened,
    (Phase.DOWNLOADING, Chunk): _chunk,
    (Phase.DOWNLOADING, FetchFailed): _fetch_failed,
    (Phase.DOWNLOADED, Tick): _install,
    (Phase.INSTALLING, Tick): _begin_trial,
    (Phase.TESTING, Tick): _tested,
    (Phase.TRYING, Tick): moving.give_up,
    (Phase.TRYING, Reached): moving.arrive,
    (Phase.RETURNING, Reached): moving.report_back,
    **{(phase, Command): _command for phase in _POWERED},
    **{(phase, NewKeys): _take_keys for phase in _POWERED},
    **{(phase, Beat): _hear_beat for phase in _POWERED},
    **{(phase, PowerCut): _cut for phase in _POWERED},
    (Phase.TRYING, Beat): _prove,
}
