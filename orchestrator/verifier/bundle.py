"""What a device may believe: bundles, keysets and beats against the state that it keeps.

Rules:
- Checks come in the order of `docs/protocol.md`, and the first reason found is the answer.
- What was accepted once is neither stale nor expired: it begins nothing when it comes again.
- An emergency needs persons besides the daemon: without a warrant of theirs it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.verifier.device import Component, Device, check_url
from orchestrator.verifier.fields import ARTIFACT, BEAT, COSIGN, MAX_INTEGER, SHARED, TRIGGER, decode64, read_claims
from orchestrator.verifier.keyset import Keyset, adopt
from orchestrator.verifier.reasons import Refused, require
from orchestrator.verifier.token import check_line, open_token, read_lines, token_hash

MAX_SEQ_JUMP = 2**40
EMERGENCY = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an accepted bundle means."""

    kind: str  # "install" (begin), "refresh" (repeat the last report, keep the claims accepted first) or "recall"
    claims: Mapping[str, Any]  # of the trigger or recall
    statement: Mapping[str, Any] | None  # claims of the artifact statement, None for a recall
    token_hash: str  # of the trigger or recall
    component: Component  # to store before acting; if the answer to a recall is `too_late`, only `seq` and `recall`


def verify(bundle: bytes, device: Device, now: int | None) -> Verdict:
    """Judge a bundle at `now` (epoch seconds, None without a clock), or raise `Refused` with the first reason found."""
    lines = bundle.split(b"\n")  # a trigger, its statement, in an emergency a warrant; or a recall
    claims = open_token(lines[0], TRIGGER, device.keys, now)
    require("wrong_issuer", claims["iss"] == device.iss, claims["iss"])
    require("wrong_epoch", claims["ep"] == device.ep, claims["ep"])
    require("not_addressed", _names(device) & set(claims["aud"]), claims["aud"])
    require("unknown_component", claims["comp"] in device.components, claims["comp"])
    try:
        return _judge(lines, claims, device, now)
    except Refused as refusal:
        refusal.claims = claims
        raise


def _judge(lines: list[bytes], claims: dict[str, Any], device: Device, now: int | None) -> Verdict:
    running, mark, seq = device.components[claims["comp"]], token_hash(lines[0]), claims["seq"]
    repeated, same_attempt = mark in (running.held, running.recall), claims["att"] == running.att
    if not repeated:  # what was accepted once is neither stale nor expired
        require("stale_seq", seq > running.seq, f"{seq} is not above {running.seq}")
        require("seq_jump", seq - running.seq <= MAX_SEQ_JUMP, f"from {running.seq} to {seq}")
        good = seq >= device.floor or claims["act"] == "cancel"  # taking back is always safe
        require("below_floor", good, f"{seq} is below {device.floor}")
        require("expired", now is None or now < claims["exp"], f"at {claims['exp']}, now {now}")
    if claims["act"] == "cancel":
        require("bad_bundle", len(lines) == 1, "a recall stands alone")
        held, att = ("", "") if same_attempt else (running.held, running.att)
        after = running if repeated else replace(running, seq=seq, recall=mark, held=held, att=att)
        return Verdict("recall", claims, None, mark, after)
    refresh = repeated or same_attempt  # begins nothing, so it need not fit what runs by now
    if not refresh:
        rel, sec = claims["rel"], claims["sec"]
        require("wrong_hardware", device.model in claims["hw"], device.model)
        require("from_too_low", running.rel >= claims["from"], f"runs {running.rel}, needs {claims['from']}")
        require("security_epoch", sec >= running.sec, f"{sec} is below {running.sec}")
        require("downgrade", rel >= running.rel or claims["act"] == "rollback", f"{rel} is below {running.rel}")
        require("other_image", rel != running.rel or claims["sha256"] == running.sha256, f"release {rel}")
    begun_at = None if refresh else now  # when what stands behind the trigger must be good
    statement = _open_statement(lines, claims, device, begun_at)
    if not refresh:
        ends_at, leaves = statement.get("exp", MAX_INTEGER), statement.get("dn", [])
        require("statement_expired", now is None or now < ends_at, f"at {ends_at}, now {now}")
        require("downgrade_not_allowed", running.rel in leaves or claims["act"] == "install", f"from {running.rel}")
        for need in statement.get("req", []):
            other = device.components.get(need["comp"])
            require("requirement_unmet", other and other.rel >= need["rel"], f"{need['comp']} below {need['rel']}")
    if claims["urg"] == EMERGENCY:
        require("cosign_required", _has_cosigners(device), "urgency is emergency")
        _check_warrant(lines[2:], claims, device, begun_at)
    for url in claims["url"]:
        check_url(url, device)
    after = running if repeated else replace(running, seq=seq, held=mark, att=claims["att"], recall="")
    return Verdict("refresh" if refresh else "install", claims, statement, mark, after)


def _open_statement(lines: list[bytes], claims: dict[str, Any], device: Device, now: int | None) -> dict[str, Any]:
    require("statement_missing", len(lines) > 1, "one line only")
    warranted = claims["urg"] == EMERGENCY and _has_cosigners(device)  # else a third line is one that nobody checks
    require("bad_bundle", len(lines) == 2 or warranted, f"{len(lines)} lines")
    statement = open_token(lines[1], ARTIFACT, device.keys, now)
    require("statement_hash", token_hash(lines[1]) == claims["ast"], token_hash(lines[1]))
    for name in SHARED.replace("?", "").split():
        require("statement_field", claims.get(name) == statement.get(name), name)
    return statement


def _check_warrant(lines: list[bytes], claims: dict[str, Any], device: Device, now: int | None) -> None:
    require("warrant_missing", lines, "two lines only")
    signed = read_lines(lines, COSIGN)
    persons = {check_line(line, device.keys, now).who for line in signed}
    require("too_few_signers", len(persons) >= device.need_cosign, f"{len(persons)} of {device.need_cosign} persons")
    warrant = read_claims(decode64(signed[0].payload), COSIGN)
    for name in ("iss", "ep", "cid"):
        require("warrant_field", warrant[name] == claims[name], name)
    require("warrant_field", claims["ast"] in warrant["asts"], "asts")
    require("warrant_field", _names(device) & set(warrant["aud"]), "aud")
    require("warrant_expired", now is None or now < warrant["exp"], f"at {warrant['exp']}, now {now}")


def _has_cosigners(device: Device) -> bool:
    return device.need_cosign > 0 and any(key.typ == COSIGN for key in device.keys.values())


def _names(device: Device) -> set[str]:
    return {f"d:{device.id}", f"m:{device.model}", *(f"g:{group}" for group in device.groups)}


def take_keyset(bundle: bytes, device: Device, now: int | None) -> Device:
    """Judge a keyset and return the device that trusts it alone, with its marks empty; raises `Refused`."""
    new = adopt(bundle, Keyset(device.iss, device.ep, dict(device.keys), device.need_root, device.need_cosign), now)
    parts = {name: replace(part, seq=0, held="", att="", recall="") for name, part in device.components.items()}
    marks: dict[str, Any] = {"need_root": new.need_root, "need_cosign": new.need_cosign, "floor": 0, "beat_iat": 0}
    return replace(device, ep=new.ep, keys=new.keys, components=parts, **marks)


def take_beat(token: bytes, device: Device, now: int | None) -> Device:
    """Judge a beat and return the device with its floor raised; an older beat changes nothing. Raises `Refused`."""
    claims = open_token(token, BEAT, device.keys, now)
    require("wrong_issuer", claims["iss"] == device.iss, claims["iss"])
    require("wrong_epoch", claims["ep"] == device.ep, claims["ep"])
    require("beat_expired", now is None or now < claims["exp"], f"at {claims['exp']}, now {now}")
    if claims["iat"] < device.beat_iat:
        return device
    return replace(device, floor=max(device.floor, claims["floor"]), beat_iat=claims["iat"])
