"""hawkBit's Management API under `/rest/v1`: who calls, what may be called, errors to answers.

Rules:
- Whoever calls logs in as an operator, with the name of the account and its token (Basic). Its roles count.
- Every act is one of our own API: same functions, same approvals, same audit log. Nothing is decided here.
- A browser is refused: it would send a login along with what any other page asks it to.
- Without the configuration's word there is none of this.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.errors import ForbiddenError, OrchestratorError
from orchestrator.web.access import holder_of, permit
from orchestrator.web.context import Context, UnauthorisedError
from orchestrator.web.identity import MAX_TOKEN_CHARS
from orchestrator.web.logins import basic
from orchestrator.web.management import documents
from orchestrator.web.management.actions import Actions
from orchestrator.web.management.modules import Modules
from orchestrator.web.management.sets import Sets
from orchestrator.web.management.settings import Management
from orchestrator.web.management.system import System
from orchestrator.web.management.targets import Targets
from orchestrator.web.statuses import status_of

AT = "/rest/v1"
_UPLOAD = re.compile(f"{AT}/softwaremodules/[0-9]+/artifacts")
_MAX_LOGIN_CHARS = 2 * (MAX_TOKEN_CHARS + 64)
_OF_BROWSERS = ("origin", "sec-fetch-site")

Handler = Callable[[Request, Caller], Awaitable[Response]]


def management_routes(context: Context) -> list[Route]:
    """Return the routes that tools around hawkBit use, none where they are off."""
    if context.management is None:
        return []
    return [
        Route(AT + path, _opened(context, handler, acts), methods=[method])
        for method, path, handler, acts in handlers(context, context.management)
    ]


def is_upload(scope: Scope) -> bool:
    """Say whether a request may bring a file, whose bytes are counted where they are taken in."""
    return scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None


def handlers(context: Context, settings: Management) -> list[tuple[str, str, Handler, tuple[Act, ...]]]:
    """Return what there is: method, path, handler, and all that a caller must be permitted."""
    targets, modules = Targets(context, settings), Modules(context, settings)
    sets, actions, system = Sets(context, settings), Actions(context), System(context)
    read, enrol, act = (Act.READ,), (Act.ENROL,), Act
    target, module, set_ = "/targets/{target}", "/softwaremodules/{module}", "/distributionsets/{set}"
    action = target + "/actions/{action}"
    return [
        ("GET", "/system/configs/{key}", system.show, read),
        ("PUT", "/system/configs/{key}", system.change, (act.MANAGE,)),
        ("GET", "/targets", targets.page, read),
        ("POST", "/targets", targets.create, enrol),
        ("GET", target, targets.show, read),
        ("DELETE", target, targets.delete, (act.ENROL, act.QUARANTINE, act.ABORT)),
        ("GET", target + "/attributes", targets.attributes, read),
        ("GET", target + "/actions", actions.page, read),
        ("GET", action, actions.show, read),
        ("DELETE", action, actions.cancel, (act.ABORT,)),
        ("GET", action + "/status", actions.status, read),
        ("GET", "/softwaremodules", modules.page, read),
        ("POST", "/softwaremodules", modules.create, (act.IMPORT,)),
        ("GET", module, modules.show, read),
        ("DELETE", module, modules.delete, (act.IMPORT,)),
        ("GET", module + "/artifacts", modules.artifacts, read),
        ("POST", module + "/artifacts", modules.upload, (act.IMPORT,)),
        ("GET", module + "/artifacts/{artifact}", modules.artifact, read),
        ("DELETE", module + "/artifacts/{artifact}", modules.take_out, (act.IMPORT,)),
        ("GET", "/distributionsets", sets.page, read),
        ("POST", "/distributionsets", sets.create, (act.RELEASE,)),
        ("GET", set_, sets.show, read),
        ("DELETE", set_, sets.delete, (act.RELEASE,)),
        ("POST", set_ + "/assignedTargets", sets.assign, (act.CREATE, act.START, act.ABORT)),
    ]


def _opened(context: Context, handler: Handler, acts: tuple[Act, ...]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler as a route calls it: with the caller, who may do this."""

    async def handle(request: Request) -> Response:
        try:
            caller = await _caller(request, context)
            for act in acts:
                permit(caller, act)
            return await handler(request, caller)
        except OrchestratorError as error:
            status = status_of(error)
            proposal = error.proposal.id if isinstance(error, ApprovalNeededError) else None
            headers = {"WWW-Authenticate": 'Basic realm="operators", charset="UTF-8"'} if status == 401 else None
            return JSONResponse(documents.refusal(error, proposal), status, headers)

    return handle


async def _caller(request: Request, context: Context) -> Caller:
    """Return who is calling.

    Raises:
        UnauthorisedError: no login, or one that opens nothing now.
        ForbiddenError: it comes from a browser.
    """
    if any(name in request.headers for name in _OF_BROWSERS):
        raise ForbiddenError("this API is not for browsers; call it with a script", code="browser")
    name, token = _login(request.headers.get("authorization", ""))
    caller, _ = await holder_of(token, context)
    if not hmac.compare_digest(caller.name.encode(), name.rpartition("\\")[2].encode()):  # some write TENANT\name
        raise UnauthorisedError("the operator token is missing, wrong or no longer good")
    return caller


def _login(header: str) -> tuple[str, str]:
    """Return name and token, both empty where there are none that could be ours."""
    name, token = basic(header, _MAX_LOGIN_CHARS)
    return (name, token) if len(token) <= MAX_TOKEN_CHARS else ("", "")
