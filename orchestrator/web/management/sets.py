"""Distribution sets: releases made of the artifacts of modules. To assign one is to start a rollout to one device.

Rules:
- A set is complete when it is made, for a release never changes; what devices are told is what the statements say.
- An assignment is answered once its action is there, with its number; what keeps it from that is said.
- What waits for an approval stays: the same assignment, given once more, goes on with it.
"""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.core.model import Device, Phase, Release, Update
from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.rollouts import operations, single
from orchestrator.engine.targeting import targets
from orchestrator.errors import NotFoundError, RequestError, UnavailableError
from orchestrator.ports import Lane, Tx
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context
from orchestrator.web.management import documents, said
from orchestrator.web.management.commands import command
from orchestrator.web.management.documents import PREFIX, View
from orchestrator.web.management.said import Assignment
from orchestrator.web.management.settings import Management


class Sets:
    """What is done with distribution sets."""

    def __init__(self, context: Context, settings: Management) -> None:
        self._context = context
        self._settings = settings
        self._place = f"{context.public_url}/rest/v1"

    async def page(self, request: Request, _: Caller) -> Response:
        """List sets, oldest first unless the other order is asked for."""
        wanted = said.page_of(request.query_params)
        releases = await self._context.store.read(lambda tx: tx.releases())
        found = sorted((item for item in releases if documents.set_number(item)), key=documents.set_number)
        ordered = found[::-1] if wanted.descending else found
        part = ordered[wanted.offset : wanted.offset + wanted.limit]
        views = [documents.distribution_set(item, self._place) for item in part]
        return JSONResponse(documents.page(views, len(found)))

    async def create(self, request: Request, caller: Caller) -> Response:
        """Make releases of what lies in modules."""
        wanted = said.some(await body_of(request, said.MAX_BODY_BYTES), said.NewSet)
        hashes = [await self._hashes(item) for item in wanted]
        work = partial(_create, hashes=hashes, now=self._context.now(), actor=caller.name)
        made = await self._context.store.transact(Lane.OPERATOR, work)
        return JSONResponse([documents.distribution_set(item, self._place) for item in made], 201)

    async def show(self, request: Request, _: Caller) -> Response:
        """Show a set."""
        release = await self._context.store.read(lambda tx: _set(tx, request))
        return JSONResponse(documents.distribution_set(release, self._place))

    async def delete(self, request: Request, _: Caller) -> Response:
        """Say that nobody needs a set any more. A release is never deleted, so that this changes nothing."""
        await self._context.store.read(lambda tx: _set(tx, request))
        return Response()

    async def assign(self, request: Request, caller: Caller) -> Response:
        """Start a rollout of a set to each of the targets named."""
        wanted = said.some(await body_of(request, said.MAX_BODY_BYTES), Assignment)
        if said.is_true(request.query_params, "offline"):
            raise RequestError("what a device runs is what it says; an assignment cannot be noted as done")
        for item in wanted:
            _check(item)
        await self._context.store.read(lambda tx: [_target_named(tx, item.id) for item in wanted])
        found = [await self._assigned(request, item.id, caller) for item in wanted]
        actions = [_action(item, self._place) for item in found if item is not None]
        counts = {"assigned": len(actions), "alreadyAssigned": len(found) - len(actions), "total": len(found)}
        return JSONResponse(counts | {"assignedActions": actions})

    async def _hashes(self, wanted: said.NewSet) -> list[str]:
        shelf, hashes = self._settings.open_shelf, list[str]()
        for item in wanted.modules:
            module = await asyncio.to_thread(shelf.module, item.id)
            if module is None:
                raise NotFoundError(f"there is no module {item.id}")
            hashes += module.files.values()
        if not hashes:
            raise RequestError("a set needs modules with artifacts; upload them first", code="incomplete")
        return hashes

    async def _assigned(self, request: Request, target: str, caller: Caller) -> Update | None:
        """Bring a set to a target; returns its action, None if that was under way already.

        Raises:
            RequestError: the device may not have it.
            ApprovalNeededError: others must approve it first.
            UnavailableError: the rollout is started, and holds before its action is there.
        """
        context = self._context
        release, stuck = await context.store.read(
            lambda tx: (found := _set(tx, request), single.stuck(tx, found, target))
        )
        for name in stuck:
            await command(context, name, Command.ABORT, caller, "it is assigned anew")
        rollout, to_do = await context.store.transact(
            Lane.OPERATOR,
            lambda tx: single.assign(tx, release, _target_named(tx, target), caller.name, context.now()),
        )
        if not to_do:
            return None
        name = rollout.plan.name
        if rollout.phase is Phase.DRAFT:
            await command(context, name, Command.START, caller, f"{release.name} is assigned to {target}")
        await context.conductor.advance(rollout.id)
        update = await context.store.read(lambda tx: single.update_of(tx, rollout, target))
        if update is None:
            text = (
                f"the rollout {name} is started and holds; `ota rollout explain {name}` says why. Assign it again later"
            )
            raise UnavailableError(text, code="holds")
        return update


def _create(tx: Tx, hashes: list[list[str]], now: float, actor: str) -> list[Release]:
    first = max((documents.set_number(item) for item in tx.releases()), default=0) + 1
    return [
        operations.create_release(tx, f"{PREFIX}{number}", each, now, actor=actor)
        for number, each in enumerate(hashes, first)
    ]


def _set(tx: Tx, request: Request) -> Release:
    number = said.number_in(request.path_params["set"])
    release = tx.release(f"{PREFIX}{number}")
    if release is None:
        raise NotFoundError("there is no such distribution set")
    return release


def _target_named(tx: Tx, name: str) -> Device:
    device = tx.device(name)
    if device is None or not targets.is_target(device):
        raise NotFoundError(f"there is no target {name[:80]!r}")
    return device


def _check(item: Assignment) -> None:
    if item.type != "forced":
        text = f"an assignment is `forced`, {item.type[:20]!r} is not served; a plan says when devices install"
        raise RequestError(text, code="not_served")
    if item.maintenance_window is not None:
        text = "maintenanceWindow is not served; write windows into a plan (`ota rollout create`)"
        raise RequestError(text, code="not_served")


def _action(update: Update, place: str) -> View:
    return {"id": update.id} | documents.links(self=f"{place}/targets/{update.device_id}/actions/{update.id}")
