"""The operator API under `/api/v1`. Translation only: parse, ask the engine, answer.

Rules:
- Every route names the act that it is; `access` says who may do it.
- A change is answered after its commit, with what it led to.
- Lists are paged by the last identifier seen.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from orchestrator.core.rollout import Command
from orchestrator.core.targeting.facts import MAX_WORDS, Change
from orchestrator.core.targeting.selector import MAX_CHARS
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.insight import explain, views
from orchestrator.engine.insight.status import of_store
from orchestrator.engine.rollouts import operations
from orchestrator.engine.targeting import facts, preview
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.errors import RequestError
from orchestrator.plans import Name, PlanBody
from orchestrator.ports import Lane
from orchestrator.verifier import TRIGGER
from orchestrator.web.access import may, may_command
from orchestrator.web.approvals import review_of
from orchestrator.web.context import Context

View = dict[str, Any]
MAX_PAGE = 1000
Text = Annotated[str, Field(max_length=128)]
Words = Annotated[tuple[Name, ...], Field(max_length=MAX_WORDS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImportBody(_Body):
    """What to import."""

    uri: Annotated[str, Field(max_length=2048)]


class ReleaseBody(_Body):
    """A release to make."""

    name: Name
    artifacts: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=64)]


class DeviceBody(_Body):
    """A device to enrol."""

    id: Name
    model: Name
    groups: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    version: Annotated[str, Field(max_length=64)] = ""
    rel: Annotated[int, Field(ge=0, lt=2**53)] = 0
    dialect: Text | None = None
    enforces: Words | None = None


class EnrolBody(_Body):
    """Devices to enrol."""

    devices: Annotated[list[DeviceBody], Field(min_length=1, max_length=5000)]


class FactsBody(_Body):
    """What shall be different at one device; what is not named stays, and null forgets an attribute."""

    id: Name
    revision: Text | None = None
    site: Text | None = None
    time_zone: Text | None = None
    groups: Words | None = None
    join: Words = ()
    leave: Words = ()
    tags: Words | None = None
    tag: Words = ()
    untag: Words = ()
    attributes: Annotated[dict[Text, Text | None], Field(max_length=MAX_WORDS)] = {}
    dialect: Text | None = None
    enforces: Words | None = None

    def to_core(self) -> Change:
        """Return the change for the core."""
        return Change(**self.model_dump(exclude={"id"}))


class ChangeBody(_Body):
    """What shall be different at devices."""

    devices: Annotated[list[FactsBody], Field(min_length=1, max_length=MAX_PAGE)]


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
        return context.status() | {"store": await of_store(store)}

    @router.post("/artifacts", status_code=201)
    async def import_artifact(body: ImportBody, who: importer) -> View:
        """Import an artifact: check its statement and every byte."""
        return views.artifact_line(await context.import_artifact(body.uri, who.name))

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
        select: Annotated[str, Query(max_length=MAX_CHARS)] = "",
        quarantined: Annotated[bool, Query()] = False,
    ) -> list[View]:
        """List devices in the order of their identifiers, all or those that a selector means."""
        found = await facts.selected(store, select, after, limit, quarantined=quarantined)
        return [views.device_line(item) for item in found]

    @router.post("/devices/facts")
    async def change_facts(body: ChangeBody, who: enroller) -> View:
        """Change what is said of devices; answers with those that are different now."""
        changes = {item.id: item.to_core() for item in body.devices}
        if len(changes) != len(body.devices):
            raise RequestError("a device stands twice in the list")
        changed = await store.transact(Lane.BULK, lambda tx: facts.change(tx, changes, now(), actor=who.name))
        return {"changed": [item.id for item in changed]}

    @router.get("/devices/{device_id}")
    async def device(device_id: str, _: reader) -> View:
        """Show a device and its updates."""
        return await store.read(lambda tx: views.device_view(tx, device_id))

    @router.get("/devices/{device_id}/explain")
    async def explain_device(device_id: str, _: reader) -> View:
        """Say why a device has or has not each release."""
        hearing, limits = context.hearing(), context.conductor.limits
        faults = context.keyring.faults(TRIGGER)
        return await store.read(
            lambda tx: explain.explain_device(tx, device_id, now(), hearing=hearing, limits=limits, faults=faults)
        )

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
        gates = [plan.gate, *(stage.gate for stage in plan.stages)]
        never = {gate.place for gate in gates if gate is not None and not context.may_ask(gate.url)}
        warnings = [
            f"{place} is not listed in gates.origins: its stage will hold until it is" for place in sorted(never)
        ]
        return await _show(plan.name) | ({"warnings": warnings} if warnings else {})

    @router.get("/rollouts")
    async def rollouts(_: reader) -> list[View]:
        """List rollouts, newest first."""
        return await store.read(lambda tx: [views.rollout_line(item, tx.tally(item.id)) for item in tx.rollouts()])

    @router.post("/rollouts/preview")
    async def preview_plan(body: PlanBody, _: creator) -> StreamingResponse:
        """Draw which devices each stage of a plan would take, one JSON object a line: the counts, then each device."""
        return _stream(await preview.of_plan(store, body.to_core(), now()))

    @router.get("/rollouts/{name}/preview")
    async def preview_rollout(name: str, _: creator) -> StreamingResponse:
        """Say which devices each stage of a draft takes, one JSON object a line: the counts, then each device."""
        return _stream(await preview.of_rollout(store, name, now()))

    def _stream(found: preview.Preview) -> StreamingResponse:
        async def text() -> AsyncIterator[bytes]:
            yield json.dumps(found.summary()).encode() + b"\n"
            async for piece in preview.lines(store, found):
                yield "".join(f"{json.dumps(line)}\n" for line in piece).encode()

        return StreamingResponse(text(), media_type="application/x-ndjson")

    @router.get("/rollouts/{name}")
    async def rollout(name: str, _: reader) -> View:
        """Show a rollout with its stages and evidence."""
        return await _show(name)

    @router.get("/rollouts/{name}/explain")
    async def explain_rollout(name: str, _: reader) -> View:
        """Say why a rollout stands where it stands."""
        hearing, limits = context.hearing(), context.conductor.limits
        faults = context.keyring.faults(TRIGGER)
        return await store.read(
            lambda tx: explain.explain_rollout(tx, name, now(), hearing=hearing, limits=limits, faults=faults)
        )

    @router.post("/rollouts/{name}/{command}")
    async def command(name: str, command: Command, body: CommandBody, who: mover) -> View:
        """Carry out a command on a rollout; 409 `approval_needed` if others must approve it first."""
        wish, at = Wish(who, body.reason, body.break_glass), now()
        decision = await approvals.command(
            context.conductor, store, context.keyring, context.rules, now, name, command, wish
        )
        said = {"answer": decision.reason.text, "changed": decision.reason.code != "unchanged"}
        return await _show(name) | said | await review_of(context, wish, at)

    async def _show(name: str) -> View:
        hearing, limits = context.hearing(), context.conductor.limits
        faults = context.keyring.faults(TRIGGER)
        return await store.read(
            lambda tx: views.rollout_view(tx, name, now(), hearing=hearing, limits=limits, faults=faults)
        )
