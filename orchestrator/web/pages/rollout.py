"""The page of one rollout, and the forms of what may be done to it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Rollout
from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import ACT_OF, Act
from orchestrator.engine import named
from orchestrator.engine.insight import explain, trail
from orchestrator.engine.insight import views as engine_views
from orchestrator.engine.rollouts import rollback, seen
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Lane, Tx
from orchestrator.verifier import TRIGGER
from orchestrator.web.approvals import view as proposal_view
from orchestrator.web.pages.changes import COSTS_TIMES, print_of
from orchestrator.web.pages.house import MAX_REASON_CHARS, Form, House, Visitor, live
from orchestrator.web.pages.views import rollout as shown

_MOST_TRAILS = 100

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A trail, and until when it is shown, for which standing of its rollout."""

    trail: View
    until: float
    mark: str


def rollout_routes(house: House) -> list[Route]:
    """Return the routes of the page of a rollout."""
    desk = _Desk(house)
    return [
        house.page("/rollouts/{name}", desk.page),
        house.events("/changes/rollouts/{name}", desk.look),
        house.form("/rollouts/{name}/rollback", desk.roll_back, Act.CREATE, _back),
        house.form(
            "/rollouts/{name}/{command}",
            desk.command,
            lambda request: ACT_OF[_command(request)],
            _back,
            stops=lambda request: _command(request) in seen.STOPPING,
        ),
    ]


class _Desk:
    """Answers what is asked of one rollout."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._context = house.context
        self._trails: dict[str, _Kept] = {}

    async def page(self, request: Request, visitor: Visitor) -> Response:
        """Show a rollout."""
        name, now = request.path_params["name"], self._context.now()
        hearing, limits = self._context.hearing(), self._context.conductor.limits
        faults = self._context.keyring.faults(TRIGGER)

        def work(tx: Tx) -> tuple[View, View, list[View], str, str]:
            view = engine_views.rollout_view(tx, name, now, hearing=hearing, limits=limits, faults=faults)
            why = explain.explain_rollout(tx, name, now, hearing=hearing, limits=limits, faults=faults)
            proposals = [proposal_view(item, now) for item in tx.proposals_about(name)]
            return view, why, proposals, seen.mark(named.rollout(tx, name)), _print_of(tx, name)

        view, why, proposals, mark, print_ = await self._context.store.read(work)
        drawn = await self._trail(name, mark, now)
        page = shown.page(view, why, drawn, proposals, mark, visitor.caller, now)
        follows = live(request, f"/changes/rollouts/{name}", print_)
        return self._house.show("rollout.html", visitor, "rollouts", title=name, page=page, live=follows)

    async def look(self, request: Request) -> str:
        """Return the print of the page."""
        name = request.path_params["name"]
        return await self._context.store.read(lambda tx: _print_of(tx, name))

    async def command(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Carry out a command, if the rollout stands as the person saw it."""
        name, command, caller = request.path_params["name"], _command(request), visitor.caller
        held, context = form.get("seen", ""), self._context

        def unmoved(tx: Tx, rollout: Rollout) -> None:
            seen.check(tx, rollout, held, command, caller.name)

        try:
            decision = await approvals.command(
                context.conductor,
                context.store,
                context.keyring,
                context.rules,
                context.now,
                name,
                command,
                Wish(caller, _reason(form)),
                unmoved,
            )
        except ConflictError:  # that it moved on explains more than what it cannot do now
            await context.store.read(lambda tx: unmoved(tx, named.rollout(tx, name)))
            raise
        if decision.reason.code == "unchanged":
            return f"Nothing had to be done: {decision.reason.text}."
        return f"{command.capitalize()}: {name} is {decision.rollout.phase} now."

    async def roll_back(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Make the draft of a rollback."""
        reason = _reason(form)
        if not reason:
            raise RequestError("say why the release is taken back: it needs a reason", code="reason_needed")
        wanted = rollback.Back(request.path_params["name"], "", form.get("new", ""), reason)
        now, who = self._context.now(), visitor.caller.name
        made = await self._context.store.transact(Lane.OPERATOR, lambda tx: rollback.draft(tx, wanted, who, now))
        return f"The draft {made.plan.name} was made; look at it and start it."

    async def _trail(self, name: str, mark: str, now: float) -> View:
        began = time.monotonic()
        kept = self._trails.get(name)
        if kept is not None and kept.mark == mark and began < kept.until:
            return kept.trail
        drawn = await self._context.store.read(lambda tx: trail.of_rollout(tx, name, now))
        ended = time.monotonic()
        if len(self._trails) >= _MOST_TRAILS:
            self._trails.clear()
        self._trails[name] = _Kept(drawn, ended + COSTS_TIMES * (ended - began), mark)
        return drawn


def _command(request: Request) -> Command:
    try:
        return Command(request.path_params["command"])
    except ValueError:
        raise NotFoundError("there is no such act") from None


def _reason(form: Form) -> str:
    reason = form.get("reason", "").strip()
    if len(reason) > MAX_REASON_CHARS:
        raise RequestError(f"a reason has at most {MAX_REASON_CHARS} characters")
    return reason


def _back(request: Request, _: Form) -> str:
    return f"/rollouts/{request.path_params['name']}"


def _print_of(tx: Tx, name: str) -> str:
    """Return what differs whenever the rollout, its counts or the proposals about it do."""
    rollout = named.rollout(tx, name)
    tally = sorted((*key, count) for key, count in tx.tally(rollout.id).items() if count)
    votes = [(item.id, item.state, len(item.votes)) for item in tx.proposals_about(name)]
    return print_of(seen.mark(rollout), rollout.stages, tally, votes)
