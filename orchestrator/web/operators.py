"""The operator API under `/api/v1`. Translation only: parse, ask the engine, answer.

Rules:
- Every route names the act that it is; `access` says who may do it.
- A change is answered after its commit, with what it led to, and once for each `Idempotency-Key`.
- Lists are paged by cursors (`cursors`).
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from orchestrator.client import answers
from orchestrator.core.model import Device, Phase, Release, Rollout
from orchestrator.core.rollout import Command, Decision
from orchestrator.core.targeting.facts import MAX_WORDS, Change
from orchestrator.core.targeting.selector import MAX_CHARS
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine import named
from orchestrator.engine.insight import explain, views
from orchestrator.engine.insight.status import of_store
from orchestrator.engine.rollouts import operations
from orchestrator.engine.targeting import facts, preview
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.plans import Name, PlanBody
from orchestrator.ports import Lane, Tx
from orchestrator.verifier import TRIGGER
from orchestrator.web.access import may, may_command
from orchestrator.web.approvals import review_in
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import LINES, SECURE, api_router, gives, gives_lines, gives_page
from orchestrator.web.marks import device_mark, rollout_mark
from orchestrator.web.once import Asked, IfMatch, asked

View = dict[str, Any]
MAX_CHANGES = 1000
"""Devices that one request may change."""
Text = Annotated[str, Field(max_length=128)]
Words = Annotated[tuple[Name, ...], Field(max_length=MAX_WORDS)]


Wanted = Annotated[Pages, pages(MAX_CHANGES)]


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

    devices: Annotated[list[FactsBody], Field(min_length=1, max_length=MAX_CHANGES)]


class CommandBody(_Body):
    """Why a rollout is moved, and why there is no time for approvals if it shall be moved without them."""

    reason: Annotated[str, Field(max_length=500)] = ""
    break_glass: Annotated[str, Field(max_length=500)] = ""


def operator_router(context: Context) -> APIRouter:
    """Return the routes that operators use."""
    router = APIRouter()
    router.include_router(_daemon(context))
    router.include_router(_catalogue(context))
    router.include_router(_devices(context))
    router.include_router(_rollouts(context))
    return router


def _daemon(context: Context) -> APIRouter:
    router = api_router("daemon")
    reader = Annotated[Caller, may(context, Act.READ)]

    @router.get("/status", responses=gives(answers.Status))
    async def get_status(_: reader) -> View:
        """Say how the daemon is."""
        return context.status() | {"store": await of_store(context.store)}

    return router


def _catalogue(context: Context) -> APIRouter:
    router = api_router("releases")
    reader = Annotated[Caller, may(context, Act.READ)]
    importer = Annotated[Caller, may(context, Act.IMPORT)]
    releaser = Annotated[Caller, may(context, Act.RELEASE)]
    doing = Annotated[Asked, Depends(asked(context))]
    store, now = context.store, context.now

    @router.post("/artifacts", status_code=201, responses=gives(answers.Artifact, 201))
    async def import_artifact(body: ImportBody, who: importer) -> View:
        """Import an artifact: check its statement and every byte. To import it again changes nothing."""
        return views.artifact_line(await context.import_artifact(body.uri, who.name))

    @router.post("/releases", status_code=201, responses=gives(answers.Release, 201))
    async def create_release(body: ReleaseBody, who: releaser, act: doing) -> View:
        """Make a release of imported artifacts."""

        def make(tx: Tx) -> Release:
            return operations.create_release(tx, body.name, body.artifacts, now(), actor=who.name)

        return await act.once(
            who, lambda: store.transact(Lane.OPERATOR, make), lambda _, made: views.release_line(made)
        )

    @router.get("/releases", responses=gives_page(list[answers.Release]))
    async def list_releases(_: reader, page: Wanted) -> list[View]:
        """List releases, newest first."""
        found = await store.read(lambda tx: tx.releases())
        return [views.release_line(item) for item in page.cut_all(found, lambda item: item.name)]

    return router


def _devices(context: Context) -> APIRouter:
    router = api_router("devices")
    reader = Annotated[Caller, may(context, Act.READ)]
    enroller = Annotated[Caller, may(context, Act.ENROL)]
    doing = Annotated[Asked, Depends(asked(context))]
    hundred = Annotated[Pages, pages(100)]
    store, now = context.store, context.now

    @router.post("/devices", status_code=201, responses=gives(answers.Tokens, 201))
    async def enrol_devices(body: EnrolBody, who: enroller, act: doing) -> View:
        """Enrol devices or renew their tokens; the tokens are shown this once."""
        new = [operations.NewDevice(**item.model_dump()) for item in body.devices]

        def make(tx: Tx) -> dict[str, str]:
            return operations.enrol(tx, new, now(), actor=who.name)

        return await act.once(who, lambda: store.transact(Lane.BULK, make), lambda _, tokens: {"tokens": tokens})

    @router.get("/devices", responses=gives_page(list[answers.Device]))
    async def list_devices(
        _: reader,
        page: hundred,
        after: Annotated[str, Query(max_length=64, description="Identifier to begin after, without a cursor.")] = "",
        where: Annotated[
            str, Query(max_length=MAX_CHARS, description="Selector.", examples=['model == "m1" and not tag(lab)'])
        ] = "",
        select: Annotated[str, Query(max_length=MAX_CHARS, deprecated=True, description="As `where`.")] = "",
        quarantined: Annotated[bool, Query(description="Only those in quarantine.")] = False,
    ) -> list[View]:
        """List devices in the order of their identifiers, all or those that a selector means."""
        if where and select:
            raise RequestError("say either where or select: they mean the same")
        last = page.word(after)
        found = await facts.selected(store, where or select, last, page.limit + 1, quarantined=quarantined)
        return [views.device_line(item) for item in page.cut(found, lambda item: item.id)]

    @router.post("/devices/facts", responses=gives(answers.ChangedDevices))
    async def change_facts(body: ChangeBody, who: enroller, act: doing, if_match: IfMatch = None) -> View:
        """Change what is said of devices; answers with those that are different now."""
        changes = {item.id: item.to_core() for item in body.devices}
        if len(changes) != len(body.devices):
            raise RequestError("a device stands twice in the list")
        if if_match is not None and len(changes) != 1:
            raise RequestError("If-Match is of one device; change this one alone, or all without it")

        def make(tx: Tx) -> list[Device]:
            return facts.change(tx, changes, now(), actor=who.name)

        return await act.once(
            who,
            lambda: store.transact(Lane.BULK, make),
            lambda _, changed: {"changed": [item.id for item in changed]},
            if_match=if_match,
            mark=lambda tx: device_mark(named.device(tx, body.devices[0].id)),
        )

    @router.get("/devices/{device_id}", responses=gives(answers.DeviceWithUpdates, marked=True))
    async def get_device(device_id: str, _: reader, response: Response) -> View:
        """Show a device and its updates."""

        def look(tx: Tx) -> tuple[View, str]:
            return views.device_view(tx, device_id), device_mark(named.device(tx, device_id))

        found, response.headers["ETag"] = await store.read(look)
        return found

    @router.get("/devices/{device_id}/explain", responses=gives(answers.DeviceExplanation))
    async def explain_device(device_id: str, _: reader) -> View:
        """Say why a device has or has not each release."""
        hearing, limits = context.hearing(), context.conductor.limits
        faults = context.keyring.faults(TRIGGER)
        return await store.read(
            lambda tx: explain.explain_device(tx, device_id, now(), hearing=hearing, limits=limits, faults=faults)
        )

    return router


def _rollouts(context: Context) -> APIRouter:
    router = api_router("rollouts")
    reader = Annotated[Caller, may(context, Act.READ)]
    creator = Annotated[Caller, may(context, Act.CREATE)]
    doing = Annotated[Asked, Depends(asked(context))]
    store, now = context.store, context.now

    @router.post("/rollouts", status_code=201, responses=gives(answers.NewRollout, 201))
    async def create_rollout(body: PlanBody, who: creator, act: doing) -> View:
        """Make a rollout in draft."""
        plan = body.to_core()
        gates = [plan.gate, *(stage.gate for stage in plan.stages)]
        never = {gate.place for gate in gates if gate is not None and not context.may_ask(gate.url)}
        warnings = [
            f"{place} is not listed in gates.origins: its stage will hold until it is" for place in sorted(never)
        ]

        def make(tx: Tx) -> Rollout:
            return operations.create_rollout(tx, plan, who.name, now())

        show = shown(context, plan.name)
        told = {"warnings": warnings} if warnings else {}
        return await act.once(who, lambda: store.transact(Lane.OPERATOR, make), lambda tx, _: show(tx) | told)

    @router.get("/rollouts", responses=gives_page(list[answers.RolloutLine]))
    async def list_rollouts(
        _: reader,
        page: Wanted,
        phase: Annotated[list[Phase], Query(description="Only those in one of these phases.")] = [],  # noqa: B006
        name: Annotated[str, Query(max_length=64, description="Only those with this in their names.")] = "",
    ) -> list[View]:
        """List rollouts, newest first."""

        def find(tx: Tx) -> list[View]:
            found = [item for item in tx.rollouts(phase) if name in item.plan.name]
            return [views.rollout_line(item, tx.tally(item.id)) for item in page.cut_all(found, lambda item: item.id)]

        return await store.read(find)

    @router.get("/rollouts/{name}", responses=gives(answers.Rollout, marked=True))
    async def get_rollout(name: str, _: reader, response: Response) -> View:
        """Show a rollout with its stages and evidence."""
        show = shown(context, name)
        found, response.headers["ETag"] = await store.read(lambda tx: (show(tx), rollout_mark(named.rollout(tx, name))))
        return found

    @router.get("/rollouts/{name}/explain", responses=gives(answers.RolloutExplanation))
    async def explain_rollout(name: str, _: reader) -> View:
        """Say why a rollout stands where it stands."""
        hearing, limits = context.hearing(), context.conductor.limits
        faults = context.keyring.faults(TRIGGER)
        return await store.read(
            lambda tx: explain.explain_rollout(tx, name, now(), hearing=hearing, limits=limits, faults=faults)
        )

    _add_previews(router, context)
    _add_commands(router, context)
    return router


def _add_previews(router: APIRouter, context: Context) -> None:
    creator = Annotated[Caller, may(context, Act.CREATE)]
    store, now = context.store, context.now

    @router.post("/rollouts/preview", responses=gives_lines(answers.PreviewLine), response_class=StreamingResponse)
    async def preview_plan(body: PlanBody, _: creator) -> StreamingResponse:
        """Draw which devices each stage of a plan would take, one JSON object a line: the counts, then each device."""
        return _stream(await preview.of_plan(store, body.to_core(), now()))

    @router.get(
        "/rollouts/{name}/preview", responses=gives_lines(answers.PreviewLine), response_class=StreamingResponse
    )
    async def preview_rollout(name: str, _: creator) -> StreamingResponse:
        """Say which devices each stage of a draft takes, one JSON object a line: the counts, then each device."""
        return _stream(await preview.of_rollout(store, name, now()))

    def _stream(found: preview.Preview) -> StreamingResponse:
        async def text() -> AsyncIterator[bytes]:
            yield json.dumps(found.summary()).encode() + b"\n"
            async for piece in preview.lines(store, found):
                yield "".join(f"{json.dumps(line)}\n" for line in piece).encode()

        return StreamingResponse(text(), headers=SECURE, media_type=LINES)


def _add_commands(router: APIRouter, context: Context) -> None:
    mover = Annotated[Caller, may_command(context)]
    doing = Annotated[Asked, Depends(asked(context))]
    store, now = context.store, context.now

    @router.post("/rollouts/{name}/{command}", responses=gives(answers.Moved))
    async def move_rollout(
        name: str, command: Command, body: CommandBody, who: mover, act: doing, if_match: IfMatch = None
    ) -> View:
        """Carry out a command on a rollout; 409 `approval_needed` if others must approve it first."""
        wish, at, show = Wish(who, body.reason, body.break_glass), now(), shown(context, name)
        with contextlib.suppress(UnavailableError):  # a stop of another rollout that waits is no part of this act
            await context.conductor.stops.store()

        def told(tx: Tx, decision: Decision) -> View:
            said = {"answer": decision.reason.text, "changed": decision.reason.code != "unchanged"}
            return show(tx) | said | review_in(tx, wish, at)

        return await act.once(
            who,
            lambda: approvals.command(
                context.conductor, store, context.keyring, context.rules, now, name, command, wish
            ),
            told,
            if_match=if_match,
            mark=lambda tx: rollout_mark(named.rollout(tx, name)),
        )


def shown(context: Context, name: str) -> Callable[[Tx], View]:
    """Return what shows a rollout as it stands."""
    hearing, limits = context.hearing(), context.conductor.limits
    faults = context.keyring.faults(TRIGGER)
    return lambda tx: views.rollout_view(tx, name, context.now(), hearing=hearing, limits=limits, faults=faults)
