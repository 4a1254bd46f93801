"""Targets: devices of the dialect `ddi`, as callers of hawkBit's Management API know them.

Rules:
- The store knows only the hash of a token. Who made a target may look at its token for a while, for callers read it
  from the target and not from the answer that made it; it is in memory alone.
- What a target says of itself is what we keep of that: its version.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.core.model import Device
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.cohort import Sieve
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.rollouts import single
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.targeting import targets
from orchestrator.engine.targeting.audience import CHUNK
from orchestrator.errors import NotFoundError, RequestError
from orchestrator.ports import Lane, Tx
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context
from orchestrator.web.downloads import NO_STORE
from orchestrator.web.management import documents, said
from orchestrator.web.management.commands import command
from orchestrator.web.management.documents import View
from orchestrator.web.management.settings import Management

SHOWN_S = 600.0
"""So long a token can be looked at by who made its target."""

MAX_SHOWN = 1000
_MEANT = Sieve({"dialect": frozenset({targets.DIALECT})})


class _Shown(NamedTuple):
    caller: str
    token: str
    until: float


class Targets:
    """What is done with targets."""

    def __init__(self, context: Context, settings: Management) -> None:
        self._context = context
        self._settings = settings
        self._place = f"{context.public_url}/rest/v1"
        self._shown: dict[str, _Shown] = {}

    async def page(self, request: Request, _: Caller) -> Response:
        """List targets in the order of their identifiers."""
        wanted = said.page_of(request.query_params)
        if wanted.descending is not None:
            raise RequestError("targets are listed in the order of their identifiers; leave `sort` out")
        found: list[Device] = []
        after, total = "", 0
        while True:
            start = after
            devices = await self._context.store.read(lambda tx, start=start: tx.devices(start, CHUNK, _MEANT))  # type: ignore[misc]
            ours = [item for item in devices if targets.is_target(item)]
            first = max(wanted.offset - total, 0)
            found += ours[first : first + wanted.limit - len(found)]
            total += len(ours)
            if len(devices) < CHUNK:
                break
            after = devices[-1].id
        views = await self._context.store.read(lambda tx: [self._view(tx, item) for item in found])
        return JSONResponse(documents.page(views, total))

    async def create(self, request: Request, caller: Caller) -> Response:
        """Enrol devices; answers with their tokens."""
        wanted = said.some(await body_of(request, said.MAX_BODY_BYTES), said.NewTarget)
        if self._settings.model is None:
            text = (
                "which hardware model new targets are is not configured: set hawkbit.model, or enrol them with "
                "`ota device add --dialect ddi`"
            )
            raise RequestError(text, code="no_model")
        work = partial(self._create, wanted=wanted, model=self._settings.model, actor=caller.name)
        tokens = await self._context.store.transact(Lane.OPERATOR, work)
        for name, token in tokens.items():
            self._show(name, token, caller)
        devices = await self._context.store.read(lambda tx: tx.devices_named(tokens))
        views = {item.id: documents.target(item, None, None, self._place, tokens[item.id]) for item in devices}
        return JSONResponse([views[item.controller_id] for item in wanted], 201, NO_STORE)

    async def show(self, request: Request, caller: Caller) -> Response:
        """Show a target."""
        view = await self._context.store.read(lambda tx: self._view(tx, target_of(tx, request)))
        shown = self._shown.get(view["controllerId"])
        if shown is not None and shown.caller == caller.name and self._context.now() < shown.until:
            view["securityToken"] = shown.token
        return JSONResponse(view, headers=NO_STORE)

    async def attributes(self, request: Request, _: Caller) -> Response:
        """Show what is kept of what a target says of itself."""
        device = await self._context.store.read(lambda tx: target_of(tx, request))
        name = self._context.ddi.version_attribute
        return JSONResponse({name: device.version} if device.version else {})

    async def delete(self, request: Request, caller: Caller) -> Response:
        """Take a target out, after cancelling what is under way for it alone."""
        device, live = await self._context.store.read(lambda tx: _live(tx, target_of(tx, request)))
        context = self._context
        for name in live:
            await command(context, name, Command.ABORT, caller, f"target {device.id} is deleted")
        work = partial(_remove, request=request, now=context.now(), actor=caller.name)
        await context.store.transact(Lane.OPERATOR, work)
        self._shown.pop(device.id, None)
        return Response()

    def _create(self, tx: Tx, wanted: list[said.NewTarget], model: str, actor: str) -> dict[str, str]:
        now, enforces = self._context.now(), self._settings.enforces
        tokens: dict[str, str] = {}
        for item in wanted:
            new = NewDevice(item.controller_id, model, dialect=targets.DIALECT, enforces=enforces)
            tokens[item.controller_id] = targets.add(tx, new, item.security_token or "", now, actor=actor)
        return tokens

    def _show(self, name: str, token: str, caller: Caller) -> None:
        now = self._context.now()
        self._shown = {key: item for key, item in self._shown.items() if now < item.until}
        if len(self._shown) >= MAX_SHOWN:
            self._shown.pop(next(iter(self._shown)))
        self._shown[name] = _Shown(caller.name, token, now + SHOWN_S)

    def _view(self, tx: Tx, device: Device) -> View:
        last = next(reversed(tx.updates_of([device.id])), None)
        rollout = None if last is None else tx.rollout(last.rollout_id)
        return documents.target(device, last, rollout, self._place)


def target_of(tx: Tx, request: Request) -> Device:
    """Return the device that a path names.

    Raises:
        NotFoundError: it is none that this API knows.
    """
    name = request.path_params["target"]
    device = tx.device(name)
    if device is None or not targets.is_target(device):
        raise NotFoundError(f"there is no target {name[:80]!r}")
    return device


def _live(tx: Tx, device: Device) -> tuple[Device, list[str]]:
    targets.check_removable(device)
    return device, [item.plan.name for item in single.under_way(tx, device.id)]


def _remove(tx: Tx, request: Request, now: float, actor: str) -> None:
    targets.remove(tx, target_of(tx, request), now, actor=actor)
