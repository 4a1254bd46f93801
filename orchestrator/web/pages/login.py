"""Signing in with an operator's token, and out.

Rules:
- The token goes to the daemon once, in the body of a form; the browser keeps a random value that opens nothing else.
- Whatever was wrong with a token, the answer is the same. Tokens cannot be guessed; who tries many is slowed down so
  that the store has its peace.
- Tries are counted by address and public part of the token. Behind a proxy all have one address: were it counted alone,
  anybody could keep everybody from signing in.
- Who signs in leaves the session that the browser had: nobody could end it any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.engine.trust.operators import TOKEN_PREFIX
from orchestrator.web import access
from orchestrator.web.context import UnauthorisedError
from orchestrator.web.identity import MAX_TOKEN_CHARS
from orchestrator.web.pages import once
from orchestrator.web.pages.house import House, form_of, go_to, local
from orchestrator.web.pages.session import LONGEST_S, Notice

TRIES = 10
"""Wrong tokens of one public part that one address may show in a row; then one more for each `TRY_EVERY_S`."""
TRY_EVERY_S = 6.0
_MOST_KNOWN = 10_000
_log = structlog.get_logger(__name__)


class Tries:
    """Counts wrong tokens by address and public part.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._free_at: dict[tuple[str, str], float] = {}

    def may(self, address: str, token: str) -> bool:
        """Say whether an address may show a token."""
        return self._free_at.get(_key(address, token), 0.0) <= self._now() + (TRIES - 1) * TRY_EVERY_S

    def wrong(self, address: str, token: str) -> None:
        """Note that it was a wrong one."""
        key, now = _key(address, token), self._now()
        if len(self._free_at) >= _MOST_KNOWN:
            self._free_at = {known: at for known, at in self._free_at.items() if at > now}
        if len(self._free_at) >= _MOST_KNOWN:
            self._free_at.clear()  # of so many public parts none is shown often
        self._free_at[key] = max(self._free_at.get(key, 0.0), now) + TRY_EVERY_S


def login_routes(house: House) -> list[Route]:
    """Return the routes of signing in and out."""
    tries = Tries(house.context.now)

    def ask(said: Mapping[str, str], status: int = 200, fault: str = "") -> Response:
        wanted, tried = local(said.get("next", "/")), said.get("tried", "")
        return house.render("login.html", status, title="Sign in", wanted=wanted, tried=tried, fault=fault)

    async def page(request: Request) -> Response:
        said = request.query_params
        with contextlib.suppress(UnauthorisedError):
            if not said.get("tried"):
                await house.visitor(request)
                return go_to(local(said.get("next", "/")))  # signed in already
        return ask(said)

    async def sign_in(request: Request) -> Response:
        form = await form_of(request)
        address = request.client.host if request.client else ""
        token = form.get("token", "").strip()
        if not tries.may(address, token):
            return ask(form, 429, "Too many wrong tokens came from here. Wait a minute, then try again.")
        try:
            if not token or len(token) > MAX_TOKEN_CHARS:
                raise UnauthorisedError("that is no token")
            caller, token_id = await access.holder_of(token, house.context)
        except UnauthorisedError:
            tries.wrong(address, token)
            _log.warning("login.refused", address=address)
            return ask(form, 403, "This token opens nothing: it is wrong, has ended, or was revoked.")
        house.sessions.close(request.cookies.get(house.cookie, ""))
        value = house.sessions.open(token_id)
        opened, tried = house.sessions.find(value), form.get("tried", "")
        if opened is not None and once.is_key(tried):
            opened.notices.append(Notice(*await once.fate_of(house.context, caller.name, tried)))
        _log.info("login.done", operator=caller.name, address=address)
        answer = go_to(local(form.get("next", "/")))
        answer.set_cookie(
            house.cookie, value, int(LONGEST_S), secure=house.is_secure, httponly=True, samesite="strict", path="/"
        )
        return answer

    async def sign_out(request: Request) -> Response:
        value = request.cookies.get(house.cookie, "")
        session, form = house.sessions.find(value), await form_of(request)
        if session is None:
            return go_to("/login")
        session.check(form.get("csrf", ""))
        house.sessions.close(value)
        answer = go_to("/login")
        answer.delete_cookie(house.cookie, secure=house.is_secure, httponly=True, samesite="strict", path="/")
        return answer

    return [
        Route("/login", house.guarded(page), methods=["GET"]),
        Route("/login", house.guarded(sign_in), methods=["POST"]),
        Route("/logout", house.guarded(sign_out), methods=["POST"]),
    ]


def _key(address: str, token: str) -> tuple[str, str]:
    part, _, _ = token.removeprefix(TOKEN_PREFIX).partition("_")
    return address, part[:MAX_TOKEN_CHARS] if token.startswith(TOKEN_PREFIX) else ""
