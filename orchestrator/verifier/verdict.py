"""The verdict on a bundle: is it for this device, is it new, does it fit, may it be fetched.

Rules:
- State and time are arguments; the new state is returned, to be stored before anything is begun.
- The order of the checks is part of the protocol: the first reason found is the one reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.verifier.claims import ARTIFACT, MAX_INTEGER, SHARED, TRIGGER
from orchestrator.verifier.envelope import PublicKey, open_token, token_hash
from orchestrator.verifier.reasons import Refused

MAX_URL_BYTES = 4096
MAX_SEQ_JUMP = 1_000_000

_URL = re.compile(r"([a-z]+)://([!$-.:;=?-Z\[\]_a-z~0-9]*)/[!$-;=?-Z\[\]_a-z~]*")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?")
_ADDRESS = re.compile(r"\[.*|(.*\.)?(0x[0-9a-f]*|[0-9]+)(:[0-9]*)?")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:[1-9][0-9]{0,4})?")


@dataclass(frozen=True, slots=True)
class Component:
    """Durable state of one component; `seq`, `held`, `att` and `recall` come from verdicts.

    Attributes:
        name: component identifier.
        rel: running release. The agent raises `rel`, `sec` and `sha256` when it confirms a new one.
        sec: security epoch reached.
        seq: highest sequence number accepted.
        held: token hash of the trigger held, "" if none.
        att: attempt held, "" if none.
        sha256: hash of the running image in base64url, "" if unknown.
        recall: token hash of the last recall, "" once a trigger was accepted after it.
    """

    name: str
    rel: int
    sec: int
    seq: int
    held: str = ""
    att: str = ""
    sha256: str = ""
    recall: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """Who the device is and what it was provisioned to trust.

    Attributes:
        id: device identifier.
        groups: groups it was provisioned into.
        model: hardware model.
        iss: deployment it belongs to.
        ep: key epoch.
        keys: public keys by `kid`.
        components: components by name.
        allowed_origins: `scheme://host[:port]` it may fetch from, compared exactly.
        loopback: whether plain http to loopback is allowed, for rehearsals.
    """

    id: str
    groups: tuple[str, ...]
    model: str
    iss: str
    ep: int
    keys: Mapping[str, PublicKey]
    components: Mapping[str, Component]
    allowed_origins: tuple[str, ...]
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an accepted bundle means.

    Attributes:
        kind: `install` (begin), `refresh` (attempt held already: repeat the last report, keep the claims
            accepted first) or `recall` (give the attempt up if it is held and has not begun).
        claims: claims of the trigger or recall.
        statement: claims of the artifact statement, None for a recall.
        token_hash: token hash of the trigger or recall.
        component: state to store before acting. An agent that answers a recall with `too_late`
            stores `seq` and `recall` only, and keeps `held` and `att`.
    """

    kind: str
    claims: Mapping[str, Any]
    statement: Mapping[str, Any] | None
    token_hash: str
    component: Component


def verify(bundle: bytes, device: Device, now: int | None) -> Verdict:
    """Judge a bundle as it came, by MQTT or HTTP.

    Args:
        bundle: trigger and statement, or a recall; one token per line.
        device: identity, trust and state of this device.
        now: epoch seconds, or None without a clock (then expiry is not judged).

    Raises:
        Refused: with the first reason found.
    """
    lines = bundle.split(b"\n")
    claims = open_token(lines[0], TRIGGER, device.keys)
    _check_target(claims, device)
    try:
        return _judge(lines, claims, device, now)
    except Refused as refusal:
        refusal.claims = claims
        raise


def check_url(url: str, device: Device) -> None:
    """Check a download URL, and every URL that a redirect leads to before following it.

    Raises:
        Refused: with a code that begins with `url_`.
    """
    match = _URL.fullmatch(url)
    if match is None or len(url) > MAX_URL_BYTES:
        raise Refused("url_malformed", ascii(url[:80]))
    scheme, authority = match.groups()
    if "@" in authority:
        raise Refused("url_userinfo", authority)
    if scheme == "http" and device.loopback and _LOOPBACK.fullmatch(authority):
        pass
    elif scheme != "https":
        raise Refused("url_scheme", scheme)
    elif _ADDRESS.fullmatch(authority):
        raise Refused("url_ip_literal", authority)
    elif not _HOST.fullmatch(authority):
        raise Refused("url_malformed", authority)
    if f"{scheme}://{authority}" not in device.allowed_origins:
        raise Refused("url_origin", authority)


def _check_target(claims: dict[str, Any], device: Device) -> None:
    if claims["iss"] != device.iss:
        raise Refused("wrong_issuer", claims["iss"])
    if claims["ep"] != device.ep:
        raise Refused("wrong_epoch", str(claims["ep"]))
    mine = [f"d:{device.id}", f"m:{device.model}", *(f"g:{group}" for group in device.groups)]
    if not any(name in mine for name in claims["aud"]):
        raise Refused("not_addressed", " ".join(claims["aud"]))
    if claims["comp"] not in device.components:
        raise Refused("unknown_component", claims["comp"])


def _judge(lines: list[bytes], claims: dict[str, Any], device: Device, now: int | None) -> Verdict:
    component = device.components[claims["comp"]]
    mark = token_hash(lines[0])
    repeated = mark in (component.held, component.recall)
    same_attempt = claims["att"] == component.att
    if not repeated:
        _check_order(claims, component, now)
    if claims["act"] == "cancel":
        if len(lines) > 1:
            raise Refused("bad_bundle", "a recall stands alone")
        if not repeated:
            component = replace(component, seq=claims["seq"], recall=mark)
        if same_attempt and not repeated:
            component = replace(component, held="", att="")
        return Verdict("recall", claims, None, mark, component)
    refresh = repeated or same_attempt
    if not refresh:
        _check_fit(claims, device.model, component)
    statement = _open_statement(lines, claims, device.keys)
    if not refresh:
        _check_permission(claims, statement, device, now)
    if claims["urg"] > 2:
        raise Refused("cosign_required", "urgency is emergency")
    for url in claims["url"]:
        check_url(url, device)
    if not repeated:
        component = replace(component, seq=claims["seq"], held=mark, att=claims["att"], recall="")
    return Verdict("refresh" if refresh else "install", claims, statement, mark, component)


def _check_order(claims: dict[str, Any], component: Component, now: int | None) -> None:
    if claims["seq"] <= component.seq:
        raise Refused("stale_seq", f"{claims['seq']} is not above {component.seq}")
    if claims["seq"] - component.seq > MAX_SEQ_JUMP:
        raise Refused("seq_jump", f"from {component.seq} to {claims['seq']}")
    if now is not None and now >= claims["exp"]:
        raise Refused("expired", f"at {claims['exp']}, now {now}")


def _check_fit(claims: dict[str, Any], model: str, component: Component) -> None:
    if model not in claims["hw"]:
        raise Refused("wrong_hardware", model)
    if component.rel < claims["from"]:
        raise Refused("from_too_low", f"runs {component.rel}, needs {claims['from']}")
    if claims["sec"] < component.sec:
        raise Refused("security_epoch", f"{claims['sec']} is below {component.sec}")
    if claims["rel"] < component.rel and claims["act"] == "install":
        raise Refused("downgrade", f"{claims['rel']} is below {component.rel}")
    if claims["rel"] == component.rel and claims["sha256"] != component.sha256:
        raise Refused("other_image", f"release {component.rel}")


def _open_statement(lines: list[bytes], claims: dict[str, Any], keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    if len(lines) == 1:
        raise Refused("statement_missing", "one line only")
    if len(lines) > 2:
        raise Refused("bad_bundle", f"{len(lines)} lines")
    statement = open_token(lines[1], ARTIFACT, keys)
    if token_hash(lines[1]) != claims["ast"]:
        raise Refused("statement_hash", token_hash(lines[1]))
    for name in SHARED:
        if claims.get(name) != statement.get(name):
            raise Refused("statement_field", name)
    return statement


def _check_permission(claims: dict[str, Any], statement: dict[str, Any], device: Device, now: int | None) -> None:
    running = device.components[claims["comp"]].rel
    if now is not None and now >= statement.get("exp", MAX_INTEGER):
        raise Refused("statement_expired", f"at {statement['exp']}, now {now}")
    if claims["act"] == "rollback" and running not in statement.get("dn", []):
        raise Refused("downgrade_not_allowed", f"from {running}")
    for need in statement.get("req", []):
        if need["comp"] not in device.components or device.components[need["comp"]].rel < need["rel"]:
            raise Refused("requirement_unmet", f"{need['comp']} must be at {need['rel']}")
