"""Warrants: what cosigners sign so that devices take an emergency, and what the daemon makes sure of before it starts.

Rules:
- A draft is made here and signed elsewhere; no cosigner key ever comes near the daemon.
- A warrant is judged as devices judge it when it is submitted, and again in the transaction that starts the rollout.
- Only the daemon can count: it starts nothing that reaches more devices than the warrant allows, and takes no later
  warrant for fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core.model import Artifact, Rollout, Urgency
from orchestrator.core.reason import counted
from orchestrator.core.trigger import warrant_claims
from orchestrator.engine import named
from orchestrator.engine.rollouts import effects
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.releases import artifacts_of, release_of
from orchestrator.errors import ConflictError, RequestError, TrustError
from orchestrator.ports import Lane, Store, Tx
from orchestrator.verifier import COSIGN, Keyset, Refused
from orchestrator.verifier.fields import decode64, read_claims
from orchestrator.verifier.token import check_line, read_lines
from orchestrator.wire.token import hash_of

MAX_NAMES = 8
DAY_S = 86_400.0

_ANEW = "draft it anew with `ota warrant draft`, and let cosigners sign that"
_REMEDIES = {
    "unknown_key": "only cosigner keys of the present keyset count; `ota keys list` shows them",
    "wrong_role": "it was signed with a key of another role; let cosigners sign it with `ota warrant sign`",
    "key_expired": "let another cosigner sign it, or replace that key with `ota keys rotate --role cosign:NAME`",
    "key_not_yet": "wait until that key may be used, or let another cosigner sign it",
    "bad_signature": "a line was changed or cut off on its way; copy the file once more, or sign it again",
    "signed_twice": "one person signed it twice; let another one sign the draft",
    "wrong_type": "this is another kind of file; submit the .jws that `ota warrant sign` wrote",
    "not_detached": "this is more than one warrant; submit the .jws that `ota warrant sign` wrote",
}
"""What to do about a warrant that devices would refuse, by the reason."""


async def draft(
    conductor: Conductor, store: Store, keyset: Keyset, name: str, days: int, now: float
) -> dict[str, object]:
    """Return the claims that cosigners must sign for a rollout: for its cohort, or for what it would take now.

    Raises:
        NotFoundError: there is no such rollout.
        RequestError: it is no emergency, devices know no cosigners, or it names more than a warrant can hold.
    """
    rollout = await store.read(lambda tx: _emergency(tx, name, keyset))
    most = await conductor.audience(name) if rollout.cohort_size is None else rollout.cohort_size
    return await store.read(lambda tx: _claims(tx, rollout, keyset, most, days, now))


async def submit(
    store: Store, keyset: Keyset, name: str, lines: bytes, actor: str, now: Callable[[], float]
) -> dict[str, Any]:
    """Store the warrant of a rollout and return its claims.

    Raises:
        NotFoundError: there is no such rollout.
        RequestError: it is no emergency, or devices know no cosigners.
        TrustError: devices would not take the warrant, or it does not cover the rollout.
        ConflictError: it allows fewer devices than the rollout has taken in already.
    """

    def work(tx: Tx) -> dict[str, Any]:
        rollout, at = _emergency(tx, name, keyset), now()
        claims = judge(tx, rollout, lines, keyset, at)
        _check_reach(name, rollout.cohort_size or 0, claims["most"])
        tx.set_warrant(rollout.id, lines, at)
        said = {"most": claims["most"], "exp": claims["exp"], "token": hash_of(lines.split(b"\n")[0])}
        tx.audit(actor, "warrant.stored", name, said, at)
        effects.make_anew(tx, rollout, at)  # what was given out says the old one
        return claims

    return await store.transact(Lane.OPERATOR, work)


def require_for_start(tx: Tx, rollout: Rollout, keyset: Keyset, audience: int | None, now: float) -> None:
    """Make sure that an emergency that is started has a warrant for what it will reach.

    Raises:
        ConflictError: it has none, or one for fewer devices.
        TrustError: its warrant is not good any more.
    """
    name, lines = rollout.plan.name, tx.warrant(rollout.id)
    if lines is None:
        text = f"an emergency needs a warrant: `ota warrant draft {name}`, let cosigners sign it, and submit it"
        raise ConflictError(text, code="warrant_needed")
    most = judge(tx, rollout, lines, keyset, now)["most"]
    _check_reach(name, tx.fleet_size() if audience is None else audience, most)


def judge(tx: Tx, rollout: Rollout, lines: bytes, keyset: Keyset, now: float) -> dict[str, Any]:
    """Return the claims of a warrant that devices will take for every artifact and device of a rollout.

    Raises:
        TrustError: it is not one; the text says why.
    """
    try:
        signed = read_lines(lines.split(b"\n"), COSIGN)
        persons = {check_line(line, keyset.keys, int(now)).who for line in signed}
        claims = read_claims(decode64(signed[0].payload), COSIGN)
    except Refused as refusal:
        text = f"devices would not take this warrant: {refusal}; {_REMEDIES.get(refusal.code, _ANEW)}"
        raise TrustError(text, code=refusal.code) from None
    if len(persons) < keyset.need_cosign:
        text = f"{len(persons)} of {keyset.need_cosign} persons signed this warrant; `ota warrant sign` adds a line"
        raise TrustError(text, code="too_few_signers")
    if now >= claims["exp"]:
        raise TrustError("this warrant has expired; draft another one", code="warrant_expired")
    wanted = _claims(tx, rollout, keyset, claims["most"], 1, now)
    wrong = [name for name in ("iss", "ep", "cid") if claims[name] != wanted[name]]
    wrong += [name for name in ("asts", "aud") if not set(wanted[name]) <= set(claims[name])]
    if wrong:
        text = f"this warrant is for something else than {rollout.plan.name}: {', '.join(wrong)}; draft another one"
        raise TrustError(text, code="warrant_field")
    return claims


def _check_reach(name: str, reached: int, most: int) -> None:
    if reached > most:
        raise ConflictError(
            f"{name} reaches {counted(reached, 'device')}, and its warrant allows {most}", code="warrant_exceeded"
        )


def _emergency(tx: Tx, name: str, keyset: Keyset) -> Rollout:
    rollout = named.rollout(tx, name)
    if rollout.plan.urgency is not Urgency.EMERGENCY:
        raise RequestError(f"{name} is no emergency and needs no warrant", code="no_emergency")
    if keyset.need_cosign < 1:
        raise RequestError("devices know no cosigners; a keyset with cosigner keys comes first", code="no_cosigners")
    return rollout


def _claims(tx: Tx, rollout: Rollout, keyset: Keyset, most: int, days: int, now: float) -> dict[str, Any]:
    artifacts = artifacts_of(tx, release_of(tx, rollout))
    return warrant_claims(
        deployment=keyset.iss,
        epoch=keyset.ep,
        rollout=str(rollout.id),
        statement_hashes=sorted(hash_of(item.statement.encode()) for item in artifacts),
        audience=_names(rollout, artifacts),
        most=most,
        issued_at=now,
        expires_at=now + days * DAY_S,
    )


def _names(rollout: Rollout, artifacts: list[Artifact]) -> list[str]:
    """Return names of which every device of the rollout has one."""
    hardware = {model for item in artifacts for model in item.hardware}
    names = [f"g:{group}" for group in rollout.plan.groups] or [
        f"m:{model}" for model in rollout.plan.models or hardware
    ]
    if len(names) > MAX_NAMES or len(artifacts) > MAX_NAMES:
        text = f"a warrant holds at most {MAX_NAMES} groups or models, and as many artifacts; split the rollout"
        raise RequestError(text, code="warrant_too_large")
    return sorted(names)
