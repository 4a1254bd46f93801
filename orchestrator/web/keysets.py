"""The routes of keys under `/api/v1`. Translation only."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.client import answers
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.trust.approvals import Wish
from orchestrator.engine.trust.rekeying import take_keyset
from orchestrator.ports import Tx
from orchestrator.verifier import MAX_KEYSET_TOKEN_BYTES, MAX_LINES, TRIGGER, Keyset
from orchestrator.web.access import may
from orchestrator.web.approvals import review_in
from orchestrator.web.context import Context
from orchestrator.web.described import api_router, gives
from orchestrator.web.once import Asked, asked

View = dict[str, Any]


class KeysetBody(BaseModel):
    """A keyset to take."""

    model_config = ConfigDict(extra="forbid")
    lines: Annotated[str, Field(min_length=1, max_length=MAX_KEYSET_TOKEN_BYTES * MAX_LINES)]
    reason: Annotated[str, Field(max_length=500)] = ""
    break_glass: Annotated[str, Field(max_length=500)] = ""
    force: bool = False


def keyset_router(context: Context) -> APIRouter:
    """Return the routes of keys."""
    router = api_router("keys")
    doing = Annotated[Asked, Depends(asked(context))]
    reader = Annotated[Caller, may(context, Act.READ)]
    keeper = Annotated[Caller, may(context, Act.REKEY)]

    @router.get("/keyset", responses=gives(answers.Keyset))
    async def get_keyset(_: reader) -> View:
        """Show the keys that devices hold by now, and whether we can sign."""
        return _view(context, context.keyring.keyset)

    @router.post("/keyset", status_code=201, responses=gives(answers.TakenKeyset, 201))
    async def submit_keyset(body: KeysetBody, who: keeper, act: doing) -> View:
        """Take the keyset that follows the present one; devices get it at once."""
        wish, at = Wish(who, body.reason, body.break_glass), context.now()
        lines = body.lines.encode()

        async def work() -> Keyset:
            taken = await take_keyset(
                context.store, context.keyring, lines, wish, context.rules, context.now, force=body.force
            )
            context.planned()
            await context.rekeyed()
            return taken

        def told(tx: Tx, taken: Keyset | None) -> View:  # None in the transaction itself: nobody believes it yet
            return _view(context, taken or context.keyring.judge(lines)) | review_in(tx, wish, at)

        return await act.once(who, work, told)

    return router


def _view(context: Context, keyset: Keyset) -> View:
    return {
        "deployment": keyset.iss,
        "epoch": keyset.ep,
        "need": {"root": keyset.need_root, "cosign": keyset.need_cosign},
        "keys": [
            {"kid": key.kid, "typ": key.typ, "who": key.who or None, "nbf": key.nbf or None, "exp": key.exp}
            for key in keyset.keys.values()
        ],
        "faults": context.keyring.faults(TRIGGER, keyset),
    }
