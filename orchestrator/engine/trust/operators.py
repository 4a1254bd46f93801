"""Accounts and tokens of operators: added, issued, revoked, removed, and recognised.

Rules:
- A token is shown once; only its SHA-256 is stored. It is 256 random bits, so no salt is needed.
- Nothing about a token is remembered between two requests: revoked means revoked from the next one on.
- Once two persons may approve, who may act is itself a matter of two persons. Whoever makes an account or a token holds
  it first: alone they could propose as somebody whom they invented, and approve that as themselves. So each account
  that does more than read is added and given a token with an approval, and one that may approve or manage is removed
  with one. Revoking a token never needs one.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from orchestrator.core.model import DAEMON
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import ENOUGH_PERSONS, Matter, Need, Proposal
from orchestrator.core.trust.roles import Act, Caller, Role, may, only_reads
from orchestrator.engine.rollouts.operations import HELLO, token_hash
from orchestrator.engine.trust.approvals import Ask, Rules, Wish, admit, approvers
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Operator, Token, Tx
from orchestrator.wire.topics import is_identifier

TOKEN_PREFIX = "otad_op_"
SHARED_NAME = "operator"
"""The account of the token file; no other may have its name."""
RESERVED = frozenset({SHARED_NAME, DAEMON, HELLO})
"""Names that stand on the record for somebody else: the shared account, and what the daemon decides by itself."""
DAY_S = 86_400.0
MAX_DAYS = 365
USED_EVERY_S = 3_600.0
"""A token's last use is stored to this precision, so that a question is not a write."""
_ID_BYTES = 8
_SECRET_BYTES = 32
_SPEAKS = Need(1, "whoever holds its token speaks for that person")
_DECIDES = Need(1, "it changes who may approve")


@dataclass(frozen=True, slots=True)
class NewOperator:
    """An account to add.

    Attributes:
        name: unique identifier.
        person: the person behind it, an identifier.
        roles: at least one.
        days: how long its first token works.
    """

    name: str
    person: str
    roles: tuple[Role, ...]
    days: int


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made; the only place where it stands in full.

    Attributes:
        kept: what is stored of it.
        text: the token.
    """

    kept: Token
    text: str


def add(tx: Tx, new: NewOperator, wish: Wish, rules: Rules, now: float) -> Issued | Proposal:
    """Add an account with its first token, or propose it.

    Raises:
        RequestError: an identifier, the roles or the days are not possible.
        ConflictError: the name is taken.
    """
    for word in (new.name, new.person):
        if not is_identifier(word):
            raise RequestError(f"{word[:80]!r} is not an identifier (lower case letters, digits, . _ -, at most 64)")
    if not new.roles:
        raise RequestError(f"an operator needs a role: {', '.join(Role)}")
    _check_days(new.days)
    if new.name in RESERVED or tx.operator(new.name) is not None:
        raise ConflictError(f"an operator named {new.name!r} exists; choose another name")
    roles = tuple(role for role in Role if role in new.roles)
    text = f"adding the operator {new.name} of {new.person} as {', '.join(roles)}, with a token of {new.days} days"
    bound = approval.digest(new.name, new.person, roles, new.days)
    if not only_reads(roles):
        waits = _admit(tx, Ask(Matter.OPERATOR, new.name, _SPEAKS, bound, text), wish, rules, now)
        if waits is not None:
            return waits
    tx.add_operator(Operator(new.name, new.person, roles, now))
    said = {"person": new.person, "roles": list(roles)}
    tx.audit(wish.caller.name, "operator.added", new.name, said, now)
    return _issue(tx, new.name, new.days, wish.caller, now)


def issue(tx: Tx, name: str, days: int, wish: Wish, rules: Rules, now: float) -> Issued | Proposal:
    """Issue one more token to an account, or propose it.

    Raises:
        NotFoundError: there is no such account.
        RequestError: the days are not possible.
    """
    _check_days(days)
    found = _operator(tx, name)
    text = f"a token of {days} days for the operator {name} of {found.person}"
    bound = approval.digest(name, found.person, found.roles, found.added_at, days)
    if not only_reads(found.roles):
        waits = _admit(tx, Ask(Matter.TOKEN, name, _SPEAKS, bound, text), wish, rules, now)
        if waits is not None:
            return waits
    return _issue(tx, name, days, wish.caller, now)


def revoke(tx: Tx, token_id: str, who: Caller, now: float) -> Token:
    """End a token.

    Raises:
        NotFoundError: there is no such token.
    """
    tx.revoke_token(token_id, now)
    found = tx.token(token_id)
    if found is None:
        raise NotFoundError(f"there is no token {token_id[:80]!r}; see `ota operator list`")
    tx.audit(who.name, "operator.token_revoked", found.operator, {"token": token_id}, now)
    return found


def remove(tx: Tx, name: str, wish: Wish, rules: Rules, now: float) -> Proposal | None:
    """Remove an account with all its tokens, or propose it.

    Raises:
        NotFoundError: there is no such account.
    """
    found = _operator(tx, name)
    text = f"removing the operator {name} of {found.person}"
    bound = approval.digest(name, found.person, found.roles, found.added_at)
    if may(found.roles, Act.APPROVE) or may(found.roles, Act.MANAGE):
        waits = _admit(tx, Ask(Matter.REMOVAL, name, _DECIDES, bound, text), wish, rules, now)
        if waits is not None:
            return waits
    tx.remove_operator(name)
    tx.audit(wish.caller.name, "operator.removed", name, {"person": found.person}, now)
    return None


def recognise(tx: Tx, text: str, now: float) -> tuple[Operator, Token] | None:
    """Return the account that a token opens now, None if it opens none."""
    token_id, _, secret = text.removeprefix(TOKEN_PREFIX).partition("_")
    if not text.startswith(TOKEN_PREFIX) or not secret:
        return None
    kept = tx.token(token_id)
    if kept is None or not hmac.compare_digest(kept.hash, token_hash(text)):
        return None
    return standing(tx, token_id, now)


def standing(tx: Tx, token_id: str, now: float) -> tuple[Operator, Token] | None:
    """Return the account that a token with this public part opens now, None if it opens none.

    Only for who has shown the whole token before: the public part proves nothing.
    """
    kept = tx.token(token_id)
    if kept is None or kept.revoked_at is not None or now >= kept.expires_at:
        return None
    operator = tx.operator(kept.operator)
    return None if operator is None else (operator, kept)


def caller(operator: Operator, *, local: bool = False) -> Caller:
    """Return an account as the one who is calling."""
    return Caller(operator.name, operator.person, frozenset(operator.roles), local)


def _admit(tx: Tx, ask: Ask, wish: Wish, rules: Rules, now: float) -> Proposal | None:
    """Let an act on an account go ahead, or propose it.

    `Rules.always` does not count here: with fewer than two persons who may approve, nobody could ever become one.
    """
    return admit(tx, ask, wish, rules, now) if len(approvers(tx)) >= ENOUGH_PERSONS else None


def _issue(tx: Tx, name: str, days: int, who: Caller, now: float) -> Issued:
    token_id = secrets.token_hex(_ID_BYTES)
    text = f"{TOKEN_PREFIX}{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    kept = Token(token_id, name, token_hash(text), now, now + days * DAY_S)
    tx.add_token(kept)
    tx.audit(who.name, "operator.token_issued", name, {"token": token_id, "expires_at": kept.expires_at}, now)
    return Issued(kept, text)


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise RequestError(f"a token works for 1 to {MAX_DAYS} days")


def _operator(tx: Tx, name: str) -> Operator:
    found = tx.operator(name)
    if found is None:
        raise NotFoundError(f"there is no operator named {name[:80]!r}; see `ota operator list`")
    return found
