"""The page of operators' accounts and tokens, and the forms of what may be done to them.

Rules:
- Neither a token nor its hash is shown; one that was just made stands once, on the next page of who asked for it.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.trust.approval import ApprovalNeededError, Proposal
from orchestrator.core.trust.roles import Act, Role
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Wish
from orchestrator.engine.trust.operators import Issued, NewOperator
from orchestrator.errors import RequestError
from orchestrator.ports import Lane, Tx
from orchestrator.web.pages.house import Form, House, Visitor, reason_of
from orchestrator.web.pages.views import accounts as shown

_PLACE = "/accounts"


def accounts_routes(house: House) -> list[Route]:
    """Return the routes of the page of accounts."""
    desk = _Desk(house)
    forms = (
        ("/accounts/add", desk.add),
        ("/accounts/{name}/token", desk.issue),
        ("/accounts/{name}/remove", desk.remove),
        ("/tokens/{token_id}/revoke", desk.revoke),
    )
    return [
        house.page(_PLACE, desk.page, Act.MANAGE),
        *(house.form(path, do, Act.MANAGE, lambda *_: _PLACE) for path, do in forms),
    ]


class _Desk:
    """Answers what is asked of accounts."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._context = house.context

    async def page(self, _: Request, visitor: Visitor) -> Response:
        """Show all accounts."""
        found, tokens = await self._context.store.read(lambda tx: (tx.operators(), tx.tokens()))
        page = shown.page(found, tokens, self._context.now())
        return self._house.show("accounts.html", visitor, "accounts", title="Accounts", page=page)

    async def add(self, _: Request, visitor: Visitor, form: Form) -> str:
        """Add an account."""
        roles = tuple(role for role in Role if form.get(f"role_{role}") == "yes")
        new = NewOperator(form.get("name", "").strip(), form.get("person", "").strip(), roles, _days(form))
        wish = Wish(visitor.caller, reason_of(form))
        made = await self._issued(lambda tx: operators.add(tx, new, wish, self._context.rules, self._context.now()))
        return f"{new.name} was added. Its token, which is shown this once: {made.text}"

    async def issue(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Issue one more token to an account."""
        name, days, wish = request.path_params["name"], _days(form), Wish(visitor.caller, reason_of(form))
        rules, now = self._context.rules, self._context.now()
        made = await self._issued(lambda tx: operators.issue(tx, name, days, wish, rules, now))
        return f"A token for {name}, which is shown this once: {made.text}"

    async def remove(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Remove an account with all its tokens."""
        name, wish = request.path_params["name"], Wish(visitor.caller, reason_of(form))
        rules, now = self._context.rules, self._context.now()
        waits = await self._context.store.transact(
            Lane.OPERATOR, lambda tx: operators.remove(tx, name, wish, rules, now)
        )
        if waits is not None:
            raise ApprovalNeededError(waits)
        return f"{name} was removed, with all its tokens."

    async def revoke(self, request: Request, visitor: Visitor, _: Form) -> str:
        """End a token."""
        token_id, now = request.path_params["token_id"], self._context.now()
        ended = await self._context.store.transact(
            Lane.OPERATOR, lambda tx: operators.revoke(tx, token_id, visitor.caller, now)
        )
        return f"Token {ended.id} of {ended.operator} opens nothing any more."

    async def _issued(self, work: Callable[[Tx], Issued | Proposal]) -> Issued:
        made = await self._context.store.transact(Lane.OPERATOR, work)
        if isinstance(made, Proposal):
            raise ApprovalNeededError(made)
        return made


def _days(form: Form) -> int:
    text = form.get("days", "")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise RequestError("say for how many days the token works, as a number")
    return int(text)
