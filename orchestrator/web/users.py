"""The routes of operators' accounts and tokens under `/api/v1`. Translation only.

Rules:
- A token stands in exactly one answer: the one to the request that made it.
- Neither a token nor its hash is in any list.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.core.trust.approval import ApprovalNeededError, Proposal
from orchestrator.core.trust.roles import Act, Caller, Role
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Wish
from orchestrator.engine.trust.operators import MAX_DAYS, Issued, NewOperator
from orchestrator.plans import Name
from orchestrator.ports import Lane, Operator, Token
from orchestrator.web.access import may
from orchestrator.web.approvals import review_of
from orchestrator.web.context import Context

View = dict[str, Any]
_Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]
_Text = Annotated[str, Field(max_length=500)]


class _Wished(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: _Text = ""
    break_glass: _Text = ""


class OperatorBody(_Wished):
    """An account to add, and how long its first token works."""

    name: Name
    person: Name
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=len(Role))]
    days: _Days = 90


class TokenBody(_Wished):
    """How long one more token works."""

    days: _Days = 90


class RemovalBody(_Wished):
    """Why an account is removed."""


def user_router(context: Context) -> APIRouter:
    """Return the routes of accounts and tokens."""
    router = APIRouter(prefix="/api/v1")
    admin = Annotated[Caller, Depends(may(context, Act.MANAGE))]
    store, now, rules = context.store, context.now, context.rules

    @router.get("/operators")
    async def list_(_: admin) -> list[View]:
        """List accounts with what is kept of their tokens."""
        found, tokens = await store.read(lambda tx: (tx.operators(), tx.tokens()))
        return [_operator(item, [token for token in tokens if token.operator == item.name]) for item in found]

    @router.post("/operators", status_code=201)
    async def add(body: OperatorBody, who: admin) -> View:
        """Add an account; its first token is shown this once."""
        new = NewOperator(body.name, body.person, body.roles, body.days)
        wish, at = _wish(who, body), now()
        made = await store.transact(Lane.OPERATOR, lambda tx: operators.add(tx, new, wish, rules, now()))
        return _issued(made) | await review_of(context, wish, at)

    @router.post("/operators/{name}/tokens", status_code=201)
    async def issue(name: str, body: TokenBody, who: admin) -> View:
        """Issue one more token to an account; it is shown this once."""
        wish, at = _wish(who, body), now()
        made = await store.transact(Lane.OPERATOR, lambda tx: operators.issue(tx, name, body.days, wish, rules, now()))
        return _issued(made) | await review_of(context, wish, at)

    @router.post("/operators/{name}/remove")
    async def remove(name: str, body: RemovalBody, who: admin) -> View:
        """Remove an account with all its tokens."""
        wish, at = _wish(who, body), now()
        waits = await store.transact(Lane.OPERATOR, lambda tx: operators.remove(tx, name, wish, rules, now()))
        if waits is not None:
            raise ApprovalNeededError(waits)
        return {"removed": name} | await review_of(context, wish, at)

    @router.post("/tokens/{token_id}/revoke")
    async def revoke(token_id: str, who: admin) -> View:
        """End a token; the next request that carries it is refused."""
        return _token(await store.transact(Lane.OPERATOR, lambda tx: operators.revoke(tx, token_id, who, now())))

    return router


def _wish(who: Caller, body: _Wished) -> Wish:
    return Wish(who, body.reason, body.break_glass)


def _issued(made: Issued | Proposal) -> View:
    if isinstance(made, Proposal):
        raise ApprovalNeededError(made)
    return _token(made.kept) | {"token": made.text}


def _operator(item: Operator, tokens: list[Token]) -> View:
    return {
        "name": item.name,
        "person": item.person,
        "roles": list(item.roles),
        "added_at": item.added_at,
        "tokens": [_token(token) for token in tokens],
    }


def _token(item: Token) -> View:
    return {
        "id": item.id,
        "operator": item.operator,
        "made_at": item.made_at,
        "expires_at": item.expires_at,
        "used_at": item.used_at,
        "revoked_at": item.revoked_at,
    }
