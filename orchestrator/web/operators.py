"""The operator API under `/api/v1`. Translation only: parse, ask the engine, answer.

Rules:
- Every route names the act that it is; `access` says who may do it.
- A change is answered after its commit, with what it led to.
- Lists are paged by the last identifier seen.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.core.roles import Act, Caller
from orchestrator.core.rollout import Command
from orchestrator.engine import approvals, operations, views
from orchestrator.engine.approvals import Wish
from orchestrator.ports import Lane
from orchestrator.web.access import may, may_command
from orchestrator.web.context import Context
from orchestrator.web.plans import Name, PlanBody

View = dict[str, Any]
MAX_PAGE = 1000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImportBody(_Body):
    """What to import."""

    uri: Annotated[str, Field(max_length=2048)]


class ReleaseBody(_Body):
    """A release to make."""

    name: Name
    artifacts: Annotated[list[str], Field(min_length=1, max_length=64)]


class DeviceBody(_Body):
    """A device to enrol."""

    id: Name
    model: Name
    groups: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    version: Annotated[str, Field(max_length=64)] = ""
    rel: Annotated[int, Field(ge=0, lt=2**53)] = 0


class EnrolBody(_Body):
    """Devices to enrol."""

    devices: Annotated[list[DeviceBody], Field(min_length=1, max_length=5000)]


class CommandBody(_Body):
    """Why a rollout is moved, and why there is no time for approvals if it shall be moved without them."""

    reason: Annotated[str, Field(max_length=500)] = ""
    break_glass: Annotated[str, Field(max_length=500)] = ""


def operator_router(context: Context) -> APIRouter:
    """Return the routes that operators use."""
    router = APIRouter(prefix="/api/v1")
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    importer = Annotated[Caller, Depends(may(context, Act.IMPORT))]
    releaser = Annotated[Caller, Depends(may(context, Act.RELEASE))]
    enroller = Annotated[Caller, Depends(may(context, Act.ENROL))]
    store, now = context.store, context.now

    @router.get("/status")
    async def status(_: reader) -> View:
        """Say how the daemon is."""
        return context.status()

    @router.post("/artifacts", status_code=201)
    async def import_artifact(body: ImportBody, _: importer) -> View:
        """Import an artifact: check its statement and every byte."""
        return views.artifact_line(await context.import_artifact(body.uri))

    @router.get("/artifacts")
    async def artifacts(_: reader) -> list[View]:
        """List artifacts, newest first."""
        return [views.artifact_line(item) for item in await store.read(lambda tx: tx.artifacts())]

    @router.post("/releases", status_code=201)
    async def create_release(body: ReleaseBody, who: releaser) -> View:
        """Make a release of imported artifacts."""
        made = await store.transact(
            Lane.OPERATOR, lambda tx: operations.create_release(tx, body.name, body.artifacts, now(), actor=who.name)
        )
        return views.release_line(made)

    @router.get("/releases")
    async def releases(_: reader) -> list[View]:
        """List releases, newest first."""
        return [views.release_line(item) for item in await store.read(lambda tx: tx.releases())]

    @router.post("/devices", status_code=201)
    async def enrol(body: EnrolBody, who: enroller) -> View:
        """Enrol devices or renew their tokens; the tokens are shown this once."""
        devices = [operations.NewDevice(**item.model_dump()) for item in body.devices]
        tokens = await store.transact(Lane.BULK, lambda tx: operations.enrol(tx, devices, now(), actor=who.name))
        return {"tokens": tokens}

    @router.get("/devices")
    async def devices(
        _: reader,
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    ) -> list[View]:
        """List devices in the order of their identifiers."""
        return [views.device_line(item) for item in await store.read(lambda tx: tx.devices(after, limit))]

    @router.get("/devices/{device_id}")
    async def device(device_id: str, _: reader) -> View:
        """Show a device and its updates."""
        return await store.read(lambda tx: views.device_view(tx, device_id))

    @router.get("/devices/{device_id}/explain")
    async def explain_device(device_id: str, _: reader) -> View:
        """Say why a device has or has not each release."""
        return await store.read(lambda tx: views.explain_device(tx, device_id))

    _add_rollouts(router, context)
    return router


def _add_rollouts(router: APIRouter, context: Context) -> None:
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    creator = Annotated[Caller, Depends(may(context, Act.CREATE))]
    mover = Annotated[Caller, Depends(may_command(context))]
    store, now = context.store, context.now

    @router.post("/rollouts", status_code=201)
    async def create_rollout(body: PlanBody, who: creator) -> View:
        """Make a rollout in draft."""
        plan = body.to_core()
        await store.transact(Lane.OPERATOR, lambda tx: operations.create_rollout(tx, plan, who.name, now()))
        return await _show(plan.name)

    @router.get("/rollouts")
    async def rollouts(_: reader) -> list[View]:
        """List rollouts, newest first."""
        return await store.read(lambda tx: [views.rollout_line(item, tx.tally(item.id)) for item in tx.rollouts()])

    @router.get("/rollouts/{name}")
    async def rollout(name: str, _: reader) -> View:
        """Show a rollout with its stages and evidence."""
        return await _show(name)

    @router.get("/rollouts/{name}/explain")
    async def explain(name: str, _: reader) -> View:
        """Say why a rollout stands where it stands."""
        hearing, limits = context.hearing(), context.conductor.limits
        return await store.read(lambda tx: views.explain_rollout(tx, name, now(), hearing=hearing, limits=limits))

    @router.post("/rollouts/{name}/{command}")
    async def command(name: str, command: Command, body: CommandBody, who: mover) -> View:
        """Start, pause, resume, halt or abort a rollout; 409 `approval_needed` if others must approve it first."""
        wish = Wish(who, body.reason, body.break_glass)
        decision = await approvals.command(
            context.conductor, store, context.keyring, context.rules, now, name, command, wish
        )
        return await _show(name) | {"answer": decision.reason.text}

    async def _show(name: str) -> View:
        hearing, limits = context.hearing(), context.conductor.limits
        return await store.read(lambda tx: views.rollout_view(tx, name, now(), hearing=hearing, limits=limits))
