"""What every page is made with: who is looking, its template, its headers, and its errors.

Rules:
- A page names the one act that it is, as every route of the API does, and is judged by the same `access`.
- A page changes nothing on GET. A form is answered by going to a page, which says what became of it.
- A form is done once (`once`). Who was signed out meanwhile, by a daemon that started again, is told after signing in.
- No page loads anything from elsewhere, runs anything that stands in it, or is shown inside another site.
- What a page asks for by itself keeps nobody signed in, and takes no notice from who shall read it.
- The cookie does not come along from other sites. Who follows a link in a message is led on once, by a page of ours, so
  that nobody who is signed in has to sign in again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.errors import (
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    PayloadError,
    RequestError,
    UnavailableError,
)
from orchestrator.web import access
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context, UnauthorisedError
from orchestrator.web.events import EVENTS
from orchestrator.web.pages import once, words
from orchestrator.web.pages.assets import Assets
from orchestrator.web.pages.changes import Changes, Live
from orchestrator.web.pages.session import Notice, Session, Sessions

MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 32
MAX_REASON_CHARS = 500
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NAVIGATION = (
    ("fleet", "Fleet", "/", Act.READ),
    ("rollouts", "Rollouts", "/rollouts", Act.READ),
    ("devices", "Devices", "/devices", Act.READ),
    ("artifacts", "Artifacts", "/artifacts", Act.READ),
    ("approvals", "Approvals", "/approvals", Act.READ),
    ("audit", "Audit", "/audit", Act.READ),
    ("keys", "Keys", "/keys", Act.READ),
    ("accounts", "Accounts", "/accounts", Act.MANAGE),
)
"""The pages that every page leads to: the word by which a page says that it is one of them, its name, its place, and
who sees it."""
_STATUS: tuple[tuple[type[OrchestratorError], int], ...] = (
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (RequestError, 400),
    (PayloadError, 400),
    (UnavailableError, 503),
)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is looking.

    Attributes:
        caller: the account, as the API would know it.
        session: the session of the browser.
        unasked: whether an open page asks by itself, and no person.
    """

    caller: Caller
    session: Session
    unasked: bool = False

    def say(self, kind: str, text: str) -> None:
        """Say something on the next page; see `Notice`."""
        self.session.notices.append(Notice(kind, text))


Form = Mapping[str, str]
ActOf = Callable[[Request], Act]
Show = Callable[[Request, Visitor], Awaitable[Response]]
LookAt = Callable[[Request], Awaitable[str]]
"""Returns the print of what the page of a request shows; see `changes`."""
Do = Callable[[Request, Visitor, Form], Awaitable[str]]
"""Does what a form asks for; returns what became of it, as a sentence."""


class House:
    """Makes routes of pages and forms.

    Args:
        context: what routes work with.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.sessions = Sessions(context.now)
        self.assets = Assets()
        self.changes = Changes()
        self.is_secure = context.public_url.startswith("https:")
        loader = PackageLoader("orchestrator.web.pages")
        self._templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.globals |= {"asset": self.assets.url, "navigation": NAVIGATION, "mark": words.MARKS}
        self._templates.globals["fresh_key"] = once.fresh
        shown = (words.number, words.percent, words.plain, words.clock, words.iso, words.span, words.ago, words.tone)
        self._templates.filters |= {item.__name__: item for item in shown}

    @property
    def cookie(self) -> str:
        """Name of the cookie; with TLS one that a browser takes from this host alone."""
        return "__Host-ota" if self.is_secure else "ota"

    def page(self, path: str, show: Show, act: Act = Act.READ) -> Route:
        """Return the route of a page."""

        async def answer(request: Request) -> Response:
            visitor = await self.visitor(request)
            access.permit(visitor.caller, act)
            return await show(request, visitor)

        return Route(path, self.guarded(answer), methods=["GET"])

    def events(self, path: str, look: LookAt, act: Act = Act.READ) -> Route:
        """Return the route of the stream by which a page hears that it would be another one by now.

        Args:
            path: where it is, one place for each thing that is shown.
            look: looks at what is shown.
            act: the act that the page is.
        """

        async def begin(request: Request, _: Visitor) -> Response:
            async def ask() -> None:
                if self.context.feed is not None and not self.context.feed.is_running:
                    raise UnavailableError("the daemon stops")  # and waits for no page that is open
                access.permit((await self.visitor(request)).caller, act)

            self.changes.check()
            await look(request)  # what is not there is said before anything is sent
            before = request.query_params.get("print", "")
            body = self.changes.stream(request.url.path, lambda: look(request), before, ask)
            return StreamingResponse(body, 200, HEADERS | {"X-Accel-Buffering": "no"}, EVENTS)

        return self.page(path, begin, act)

    def form(
        self,
        path: str,
        do: Do,
        act: Act | ActOf,
        back: Callable[[Request, Form], str],
        *,
        stops: Callable[[Request], bool] = lambda _: False,
    ) -> Route:
        """Return the route of a form.

        Args:
            path: where it is sent.
            do: does it.
            act: the act that it is.
            back: the page that says what became of it.
            stops: whether it stops something, so that it is done however often it is sent.
        """

        async def answer(request: Request) -> Response:
            form = await form_of(request)
            try:
                visitor = await self.visitor(request)
            except UnauthorisedError:
                return go_to(login_place(local(back(request, form)), form.get("key", "")))
            visitor.session.check(form.get("csrf", ""))
            place = local(back(request, form))
            try:
                access.permit(visitor.caller, act(request) if callable(act) else act)
                with contextlib.suppress(UnavailableError):  # a stop of something else that waits is no part of this
                    await self.context.conductor.stops.store()
                with self._once(request, visitor, form, stops=stops):
                    done = await do(request, visitor, form)
                visitor.say("done", done)
            except ApprovalNeededError as waits:
                visitor.say("waits", f"proposal {waits.proposal.id} waits for others: {waits.proposal.text}")
            except OrchestratorError as error:
                visitor.say("failed", error.message)
            return go_to(place)

        return Route(path, self.guarded(answer), methods=["POST"])

    def _once(
        self, request: Request, visitor: Visitor, form: Form, *, stops: Callable[[Request], bool]
    ) -> contextlib.AbstractContextManager[None]:
        key = form.get("key", "")
        if not once.is_key(key):
            raise RequestError("this form is none that a page of ours shows; load the page again", code="no_key")
        return once.once(self.context, visitor.caller.name, request.url.path, key, stops=stops(request))

    def guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint whose errors are pages."""

        async def safely(request: Request) -> Response:
            try:
                return await answer(request)
            except UnauthorisedError:
                return self._to_login(request)
            except OrchestratorError as error:
                status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
                return self.render("error.html", status, title="That did not work", status=status, text=error.message)
            except ClientDisconnect:
                return PlainTextResponse("the caller left before its request had come whole\n", 400)
            except Exception as error:
                _log.error("request.failed", path=request.url.path, exc_info=error)
                text = "the daemon failed on this page; its log says more"
                return self.render("error.html", 500, title="That did not work", status=500, text=text)

        return safely

    async def visitor(self, request: Request) -> Visitor:
        """Return who is looking.

        Raises:
            UnauthorisedError: nobody who is signed in.
        """
        unasked = _is_unasked(request)
        session = self.sessions.find(request.cookies.get(self.cookie, ""), touch=not unasked)
        if session is None:
            raise UnauthorisedError("nobody is signed in")
        return Visitor(await access.still_holder_of(session.token_id, self.context), session, unasked)

    def render(self, template: str, status_: int = 200, /, **shown: Any) -> Response:
        """Return a page for nobody in particular."""
        nothing: dict[str, Any] = {"visitor": None, "notices": [], "here": "", "live": None}
        text = self._templates.get_template(template).render(nothing | shown)
        return HTMLResponse(text, status_, HEADERS)

    def show(self, template: str, visitor: Visitor, here: str, **shown: Any) -> Response:
        """Return a page for who is looking.

        Args:
            template: name of its template.
            visitor: who is looking.
            here: its place in the navigation.
            shown: what the template shows.
        """
        notices = [] if visitor.unasked else visitor.session.take_notices()
        known = {"visitor": visitor, "notices": notices, "here": here, "now": self.context.now()}
        return self.render(template, **(known | shown))

    def _to_login(self, request: Request) -> Response:
        if _is_unasked(request):  # a part of a page that is open: let the whole page go to the login
            return Response(status_code=204, headers=HEADERS | {"HX-Refresh": "true"})
        place = login_place(_place(request) if request.method == "GET" else "/", "")
        if request.headers.get("sec-fetch-site") == "cross-site":  # no cookie of ours comes with a link in a message
            return self.render("onward.html", title="One moment", place=place)
        return go_to(place)


def live(request: Request, events: str, print_: str) -> Live:
    """Return what lets the page of a request follow what happens.

    Args:
        request: for the page.
        events: place of its stream.
        print_: of what it shows.
    """
    return Live(_place(request), f"{events}?print={print_}")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        RequestError: it comes from another site, or is no form, or says a field twice.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("a form of another site changes nothing here", code="other_site")
    body = await body_of(request, MAX_FORM_BYTES)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise RequestError("that is no form of ours; load the page again") from None
    fields = {name: text.replace("\r\n", "\n") for name, text in pairs}  # as it was written, and its length counted
    if len(fields) != len(pairs):
        raise RequestError("a field stands twice in the form; load the page again")
    return fields


def reason_of(form: Form) -> str:
    """Return why something is done.

    Raises:
        RequestError: nothing is said, or too much.
    """
    reason = form.get("reason", "").strip()
    if not 0 < len(reason) <= MAX_REASON_CHARS:
        raise RequestError(f"say why, in at most {MAX_REASON_CHARS} characters", code="reason_needed")
    return reason


def local(place: str) -> str:
    """Return a place if it is one of ours, else the first page."""
    is_ours = place.startswith("/") and not place.startswith(("//", "/\\")) and place.isprintable()
    return place if is_ours and len(place) <= 512 else "/"


def login_place(wanted: str, tried: str) -> str:
    """Return the place to sign in at.

    Args:
        wanted: the page to go to then.
        tried: key of the form that was sent while nobody was signed in, "" for none.
    """
    said = {"next": wanted if wanted != "/" else "", "tried": tried if once.is_key(tried) else ""}
    query = urlencode({name: text for name, text in said.items() if text}, safe="/")
    return f"/login?{query}" if query else "/login"


def go_to(place: str) -> Response:
    """Return the answer that leads to a page."""
    return RedirectResponse(place, 303, HEADERS)


def _place(request: Request) -> str:
    """Return the place of a page, with all that its address asks for."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _is_unasked(request: Request) -> bool:
    """Say whether a page that is open asks by itself."""
    return "hx-request" in request.headers or request.headers.get("accept") == EVENTS
