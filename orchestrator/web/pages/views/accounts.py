"""The page of accounts: who may do what, and which tokens open it until when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.trust.expiry import DAY_S
from orchestrator.core.trust.roles import PERMITTED, Role
from orchestrator.ports import Operator, Token

View = dict[str, Any]

_SOON_S = 14 * DAY_S


def page(found: Sequence[Operator], tokens: Sequence[Token], now: float) -> View:
    """Return what the template of the accounts shows.

    Args:
        found: all accounts.
        tokens: what is kept of all tokens.
        now: present time.
    """
    return {
        "accounts": [_account(item, [token for token in tokens if token.operator == item.name], now) for item in found],
        "roles": [
            {"name": role.value, "may": ", ".join(sorted(act.value for act in PERMITTED[role]))} for role in Role
        ],
    }


def _account(item: Operator, tokens: Sequence[Token], now: float) -> View:
    shown = [_token(token, now) for token in reversed(tokens)]
    return {
        "name": item.name,
        "person": item.person,
        "roles": [role.value for role in item.roles],
        "added_at": item.added_at,
        "tokens": shown,
        "live": sum(token["is_live"] for token in shown),
    }


def _token(item: Token, now: float) -> View:
    if item.revoked_at is not None:
        word, tone = "revoked", "quiet"
    elif now >= item.expires_at:
        word, tone = "ended", "quiet"
    elif item.expires_at - now < _SOON_S:
        word, tone = "ends soon", "warn"
    else:
        word, tone = "good", "good"
    live = tone != "quiet"
    return {"id": item.id, "used_at": item.used_at, "expires_at": item.expires_at, "word": word, "tone": tone} | {
        "is_live": live
    }
