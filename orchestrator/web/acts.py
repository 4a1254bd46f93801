"""What operators do while rollouts run, under `/api/v1`: edit, roll back, quarantine. Translation only.

Rules:
- These routes come before those of commands: a word here is no command.
- Every act takes its reason, and an act that holds already answers that nothing changed.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.insight import views
from orchestrator.engine.rollouts import editing, quarantine, rollback
from orchestrator.engine.trust.approvals import Wish
from orchestrator.plans import Name, PlanBody
from orchestrator.ports import Lane
from orchestrator.web.access import may
from orchestrator.web.context import Context

View = dict[str, Any]
Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QuarantineBody(_Body):
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
    router = APIRouter(prefix="/api/v1")
    warden = Annotated[Caller, Depends(may(context, Act.QUARANTINE))]
    store, now = context.store, context.now

    @router.post("/devices/quarantine")
    async def enter(body: QuarantineBody, who: warden) -> View:
        """Leave devices out of all rollouts; answers with how many were not quarantined before."""
        count = await store.transact(
            Lane.OPERATOR, lambda tx: quarantine.enter(tx, body.devices, body.reason, now(), actor=who.name)
        )
        return {"changed": count}

    @router.post("/devices/release")
    async def leave(body: QuarantineBody, who: warden) -> View:
        """Let devices back; answers with how many were quarantined before."""
        count = await store.transact(
            Lane.OPERATOR, lambda tx: quarantine.leave(tx, body.devices, body.reason, now(), actor=who.name)
        )
        return {"changed": count}

    _add_edits(router, context)
    return router


def _add_edits(router: APIRouter, context: Context) -> None:
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    editor = Annotated[Caller, Depends(may(context, Act.EDIT))]
    creator = Annotated[Caller, Depends(may(context, Act.CREATE))]
    store, now = context.store, context.now

    @router.post("/rollouts/{name}/edit")
    async def edit(name: str, body: EditBody, who: editor) -> View:
        """Edit the plan of a rollout; 409 `plan_changed` if it is not the version `expect` any more."""
        wanted = editing.Wanted(name, body.plan.to_core(), body.expect)
        if body.dry_run:
            found = await store.read(lambda tx: editing.compare(tx, wanted))
        else:
            wish = Wish(who, body.reason, body.break_glass)
            found = await editing.carry_out(context.conductor, store, context.rules, now, wanted, wish)
        return {"version": found.version, "changes": editing.views_of(found.changes)}

    @router.post("/rollouts/{name}/rollback", status_code=201)
    async def roll_back(name: str, body: RollbackBody, who: creator) -> View:
        """Make the draft of a rollout that takes the devices of this one back to an earlier release."""
        back = rollback.Back(name, body.to or "", body.name or "", body.reason)
        made = await store.transact(Lane.OPERATOR, lambda tx: rollback.draft(tx, back, who.name, now()))
        hearing, limits = context.hearing(), context.conductor.limits
        return await store.read(
            lambda tx: views.rollout_view(tx, made.plan.name, now(), hearing=hearing, limits=limits)
        )

    @router.get("/rollouts/{name}/history")
    async def history(name: str, _: reader) -> list[View]:
        """List the versions of the plan of a rollout, oldest first, each with what it made different and why."""
        return await store.read(lambda tx: editing.history(tx, name))
