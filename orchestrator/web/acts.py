"""What operators do while rollouts run, under `/api/v1`: edit, roll back, quarantine. Translation only.

Rules:
- These routes come before those of commands: a word here is no command.
- Every act takes its reason, and an act that holds already answers that nothing changed.
- An act is done once for each `Idempotency-Key`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.client import answers
from orchestrator.core.model import Rollout
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine import named
from orchestrator.engine.rollouts import editing, quarantine, rollback
from orchestrator.engine.trust.approvals import Wish
from orchestrator.plans import Name, PlanBody
from orchestrator.ports import Lane, Tx
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives, gives_page
from orchestrator.web.marks import rollout_mark
from orchestrator.web.once import Asked, IfMatch, asked
from orchestrator.web.operators import shown

View = dict[str, Any]
Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DevicesBody(_Body):
    """Devices to quarantine, or to let back, and why."""

    devices: Annotated[list[Name], Field(min_length=1, max_length=quarantine.MOST)]
    reason: Why


class EditBody(_Body):
    """The plan that a rollout shall have, whole, and why."""

    plan: PlanBody
    reason: Annotated[str, Field(max_length=500)] = ""
    expect: Annotated[int | None, Field(strict=True, ge=1, lt=2**31)] = None
    dry_run: bool = False
    break_glass: Annotated[str, Field(max_length=500)] = ""


class RollbackBody(_Body):
    """To which earlier release, under which name, and why."""

    to: Name | None = None
    name: Name | None = None
    reason: Why


def acts_router(context: Context) -> APIRouter:
    """Return the routes of what is done besides commands."""
    router = APIRouter()
    router.include_router(_quarantine(context))
    router.include_router(_edits(context))
    return router


def _quarantine(context: Context) -> APIRouter:
    router = api_router("devices")
    warden = Annotated[Caller, may(context, Act.QUARANTINE)]
    doing = Annotated[Asked, Depends(asked(context))]
    store, now = context.store, context.now

    @router.post("/devices/quarantine", responses=gives(answers.Count))
    async def quarantine_devices(body: DevicesBody, who: warden, act: doing) -> View:
        """Leave devices out of all rollouts; answers with how many were not quarantined before."""

        def work(tx: Tx) -> int:
            return quarantine.enter(tx, body.devices, body.reason, now(), actor=who.name)

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, count: {"changed": count})

    @router.post("/devices/release", responses=gives(answers.Count))
    async def release_devices(body: DevicesBody, who: warden, act: doing) -> View:
        """Let devices back; answers with how many were quarantined before."""

        def work(tx: Tx) -> int:
            return quarantine.leave(tx, body.devices, body.reason, now(), actor=who.name)

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, count: {"changed": count})

    return router


def _edits(context: Context) -> APIRouter:
    router = api_router("rollouts")
    reader = Annotated[Caller, may(context, Act.READ)]
    editor = Annotated[Caller, may(context, Act.EDIT)]
    creator = Annotated[Caller, may(context, Act.CREATE)]
    doing = Annotated[Asked, Depends(asked(context))]
    wanted_page = Annotated[Pages, pages(1000)]
    store, now = context.store, context.now

    @router.post("/rollouts/{name}/edit", responses=gives(answers.Edited))
    async def edit_plan(name: str, body: EditBody, who: editor, act: doing, if_match: IfMatch = None) -> View:
        """Edit the plan of a rollout; 409 `plan_changed` if it is not the version `expect` any more."""
        wanted = editing.Wanted(name, body.plan.to_core(), body.expect)
        if body.dry_run:
            return _edited(await store.read(lambda tx: editing.compare(tx, wanted)))
        wish = Wish(who, body.reason, body.break_glass)

        def told(_: Tx, done: tuple[Rollout, editing.Edited] | editing.Edited) -> View:
            return _edited(done[1] if isinstance(done, tuple) else done)

        return await act.once(
            who,
            lambda: editing.carry_out(context.conductor, store, context.rules, now, wanted, wish),
            told,
            if_match=if_match,
            mark=lambda tx: rollout_mark(named.rollout(tx, name)),
        )

    @router.post("/rollouts/{name}/rollback", status_code=201, responses=gives(answers.Rollout, 201))
    async def roll_back(name: str, body: RollbackBody, who: creator, act: doing) -> View:
        """Make the draft of a rollout that takes the devices of this one back to an earlier release."""
        back = rollback.Back(name, body.to or "", body.name or "", body.reason)

        def make(tx: Tx) -> Rollout:
            return rollback.draft(tx, back, who.name, now())

        return await act.once(
            who,
            lambda: store.transact(Lane.OPERATOR, make),
            lambda tx, made: shown(context, made.plan.name)(tx),
        )

    @router.get("/rollouts/{name}/history", responses=gives_page(list[answers.PlanVersion]))
    async def list_plan_versions(name: str, _: reader, page: wanted_page) -> list[View]:
        """List the versions of the plan of a rollout, oldest first, each with what it made different and why."""
        found = await store.read(lambda tx: editing.history(tx, name))
        return page.cut_all(found, lambda item: int(item["version"]))

    return router


def _edited(found: editing.Edited) -> View:
    return {"version": found.version, "changes": editing.views_of(found.changes)}
