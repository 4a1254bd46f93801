"""Who is calling, and whether they may: tokens of operators, the token file, the admin socket.

Rules:
- Every operator route names the one act that it is, and `may` makes the check of it, and counts the request.
- Nothing is remembered between two requests: a token that was revoked opens nothing from the next one on.
- A call that proves nothing gets the same 401 whatever was wrong; a known caller who may not gets 403 and the reason.
- The admin socket needs no token and no store: the kernel says who is at its other end.
"""

import contextlib
import hmac
import os
from typing import Any

from fastapi import Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import ACT_OF, SHARED, Act, Caller, holders, permitting
from orchestrator.engine.trust import operators
from orchestrator.errors import ForbiddenError, UnavailableError
from orchestrator.ports import Lane, Operator, Token
from orchestrator.web.context import Context, UnauthorisedError, bearer
from orchestrator.web.described import check_query
from orchestrator.web.server import PEER

_ROOT = "root@local"
OURS = frozenset({0, os.geteuid()})
"""Users that need not be named to be admins at the admin socket: root, and ourselves."""


class _Permission(SecurityBase):
    """The check of a route that is one act, as FastAPI's document can tell of it."""

    scheme_name = "operatorToken"
    model = HTTPBearer(description="A token of `ota operator add`.")

    def __init__(self, context: Context, act: Act) -> None:
        self._context = context
        self._act = act

    async def __call__(self, request: Request) -> Caller:
        caller = await caller_of(request, self._context)
        self._context.rates.take(caller.name)
        permit(caller, self._act)
        check_query(request)
        return caller


class _CommandPermission(SecurityBase):
    """The check of the route whose `command` says which act it is."""

    scheme_name, model = _Permission.scheme_name, _Permission.model

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, request: Request, command: Command) -> Caller:
        caller = await caller_of(request, self._context)
        if ACT_OF[command] is not Act.STOP:
            self._context.rates.take(caller.name)
        return permit(caller, ACT_OF[command])


def may(context: Context, act: Act) -> Any:
    """Return the dependency of a route that is this act: its caller, who may do it."""
    return Security(_Permission(context, act), scopes=permitting(act))


def may_command(context: Context) -> Any:
    """Return the dependency of the route whose `command` says which act it is."""
    return Security(_CommandPermission(context), scopes=permitting(*ACT_OF.values()))


async def caller_of(connection: HTTPConnection, context: Context) -> Caller:
    """Return who is calling.

    Raises:
        UnauthorisedError: no token, or one that opens nothing now.
    """
    token, uid = bearer(connection), connection.scope.get(PEER)
    ours = uid in OURS
    local = ours or uid in context.admin_uids
    if local and "authorization" not in connection.headers:  # whoever names a token does not act without it
        return Caller(_ROOT if ours else f"uid-{uid}@local", "", SHARED, local=True)
    caller, _ = await holder_of(token, context, local=local)
    return caller


async def holder_of(token: str, context: Context, *, local: bool = False) -> tuple[Caller, str]:
    """Return whom a token speaks for, and its public part; that of the token file has none.

    Raises:
        UnauthorisedError: it opens nothing now.
    """
    if context.operator_token and hmac.compare_digest(token.encode(), context.operator_token.encode()):
        return Caller(operators.SHARED_NAME, "", SHARED, local), ""
    now = context.now()
    found = await context.store.read(lambda tx: operators.recognise(tx, token, now))
    return await _used(found, context, now, local=local)


async def still_holder_of(token_id: str, context: Context) -> Caller:
    """Return whom a token speaks for that was shown before, by its public part.

    Raises:
        UnauthorisedError: it opens nothing any more.
    """
    if not token_id and context.operator_token:
        return Caller(operators.SHARED_NAME, "", SHARED)
    now = context.now()
    found = await context.store.read(lambda tx: operators.standing(tx, token_id, now))
    caller, _ = await _used(found, context, now, local=False)
    return caller


async def _used(
    found: tuple[Operator, Token] | None, context: Context, now: float, *, local: bool
) -> tuple[Caller, str]:
    if found is None:
        raise UnauthorisedError("the operator token is missing, wrong or no longer good")
    operator, kept = found
    if _is_stale(kept, now):
        with contextlib.suppress(UnavailableError):  # a full disk keeps nobody from halting
            await context.store.transact(Lane.OPERATOR, lambda tx: tx.mark_token(kept.id, now))
    return operators.caller(operator, local=local), kept.id


def permit(caller: Caller, act: Act) -> Caller:
    """Return the caller, who may do this.

    Raises:
        ForbiddenError: none of its roles permits it.
    """
    if not caller.may(act):
        text = f"{caller.name} may not {act}; that takes the role {holders(act)}"
        raise ForbiddenError(text, code="not_permitted")
    return caller


def _is_stale(token: Token, now: float) -> bool:
    return token.used_at is None or now - token.used_at >= operators.USED_EVERY_S
