"""The page of keys and certificates: soonest end first, each with what is at stake."""

from __future__ import annotations

from typing import Any

from orchestrator.core.trust.expiry import DAY_S
from orchestrator.verifier import ARTIFACT, BEAT, COSIGN, KEYS, TRIGGER, Keyset, PublicKey
from orchestrator.web.pages import words

View = dict[str, Any]

_ROLES = {
    KEYS: ("root", "says which keys are good"),
    ARTIFACT: ("artifact", "says what an artifact is, at the build"),
    TRIGGER: ("trigger", "says who may install it until when"),
    BEAT: ("beat", "says that the daemon is behind us"),
    COSIGN: ("cosigner", "agrees to an emergency"),
}
_SOON_S, _NOW_S = 30 * DAY_S, 7 * DAY_S


def page(keyset: Keyset, expires: object, faults: list[str], taken_at: float, now: float) -> View:
    """Return what the template of the keys shows.

    Args:
        keyset: what devices hold.
        expires: `ExpiryWatch.view`; anything else for none.
        faults: what is wrong with the keys that sign.
        taken_at: when the last keyset was taken, 0 if none was.
        now: present time.
    """
    needs = ""
    if keyset.need_root or keyset.need_cosign:
        needs = f"{keyset.need_root} root keys replace keys; {keyset.need_cosign} cosigners warrant an emergency"
    known = [item for item in expires if "certificate" in item["name"]] if isinstance(expires, list) else []
    return {
        "deployment": keyset.iss,
        "epoch": keyset.ep,
        "taken_at": taken_at or None,
        "needs": needs,
        "faults": faults,
        "held": sorted((_key(key, now) for key in keyset.keys.values()), key=lambda item: float(item["order"])),
        "certificates": [_certificate(item, now) for item in known],
    }


def _key(key: PublicKey, now: float) -> View:
    name, text = _ROLES.get(key.typ, (key.typ, ""))
    ends = None if key.exp is None else float(key.exp)
    waits = now < key.nbf
    shown = {"kid": key.kid, "name": name, "text": text, "who": key.who, "expires_at": ends}
    shown |= {"nbf": float(key.nbf) if waits else None, "order": ends if ends is not None else float("inf")}
    return shown | ({"tone": "quiet", "word": "not yet"} if waits else _standing(ends, now))


def _certificate(item: View, now: float) -> View:
    if "error" in item:
        return {"name": item["name"], "expires_at": None, "tone": "warn", "word": "not known", "text": item["error"]}
    ends = float(item["expires_at"])
    return {"name": item["name"], "expires_at": ends, "text": ""} | _standing(ends, now)


def _standing(ends: float | None, now: float) -> View:
    if ends is None:
        return {"tone": "good", "word": "has no end"}
    left = ends - now
    if left <= 0:
        return {"tone": "bad", "word": "expired"}
    tone = "bad" if left < _NOW_S else "warn" if left < _SOON_S else "good"
    return {"tone": tone, "word": f"{words.span(left)} left"}
