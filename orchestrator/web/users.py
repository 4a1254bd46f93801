"""The routes of operators' accounts and tokens under `/api/v1`. Translation only.

Rules:
- A token stands in exactly one answer: the one to the request that made it.
- Neither a token nor its hash is in any list.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.client import answers
from orchestrator.core.trust.approval import ApprovalNeededError, Proposal
from orchestrator.core.trust.roles import Act, Caller, Role
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Wish
from orchestrator.engine.trust.operators import MAX_DAYS, Issued, NewOperator
from orchestrator.plans import Name
from orchestrator.ports import Lane, Operator, Token, Tx
from orchestrator.web.access import may
from orchestrator.web.approvals import review_in
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives, gives_page
from orchestrator.web.once import Asked, asked

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
    router = api_router("operators")
    admin = Annotated[Caller, may(context, Act.MANAGE)]
    doing = Annotated[Asked, Depends(asked(context))]
    wanted = Annotated[Pages, pages(1000)]
    store, now, rules = context.store, context.now, context.rules

    @router.get("/operators", responses=gives_page(list[answers.Operator]))
    async def list_operators(_: admin, page: wanted) -> list[View]:
        """List accounts with what is kept of their tokens."""
        found, tokens = await store.read(lambda tx: (tx.operators(), tx.tokens()))
        shown = page.cut_all(found, lambda item: item.name)
        return [_operator(item, [token for token in tokens if token.operator == item.name]) for item in shown]

    @router.post("/operators", status_code=201, responses=gives(answers.NewToken, 201))
    async def add_operator(body: OperatorBody, who: admin, act: doing) -> View:
        """Add an account; its first token is shown this once."""
        new = NewOperator(body.name, body.person, body.roles, body.days)
        return await _issue(who, body, act, lambda tx, wish: operators.add(tx, new, wish, rules, now()))

    @router.post("/operators/{name}/tokens", status_code=201, responses=gives(answers.NewToken, 201))
    async def issue_token(name: str, body: TokenBody, who: admin, act: doing) -> View:
        """Issue one more token to an account; it is shown this once."""
        return await _issue(who, body, act, lambda tx, wish: operators.issue(tx, name, body.days, wish, rules, now()))

    @router.post("/operators/{name}/remove", responses=gives(answers.Removed))
    async def remove_operator(name: str, body: RemovalBody, who: admin, act: doing) -> View:
        """Remove an account with all its tokens."""
        wish, at = _wish(who, body), now()

        async def work() -> None:
            waits = await store.transact(Lane.OPERATOR, lambda tx: operators.remove(tx, name, wish, rules, now()))
            if waits is not None:
                raise ApprovalNeededError(waits)

        return await act.once(who, work, lambda tx, _: {"removed": name} | review_in(tx, wish, at))

    @router.post("/tokens/{token_id}/revoke", responses=gives(answers.Token))
    async def revoke_token(token_id: str, who: admin, act: doing) -> View:
        """End a token; the next request that carries it is refused."""

        def work(tx: Tx) -> Token:
            return operators.revoke(tx, token_id, who, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, ended: _token(ended))

    async def _issue(who: Caller, body: _Wished, act: Asked, make: Callable[[Tx, Wish], Issued | Proposal]) -> View:
        wish, at = _wish(who, body), now()

        async def work() -> Issued:
            made = await store.transact(Lane.OPERATOR, lambda tx: make(tx, wish))
            if isinstance(made, Proposal):
                raise ApprovalNeededError(made)
            return made

        return await act.once(who, work, lambda tx, made: _issued(made) | review_in(tx, wish, at))

    return router


def _wish(who: Caller, body: _Wished) -> Wish:
    return Wish(who, body.reason, body.break_glass)


def _issued(made: Issued) -> View:
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
