"""The routes by which artifacts are looked at, under `/api/v1`. Translation only.

Rules:
- An artifact is found by its whole hash, or by the beginning of it where there is one such artifact alone.
- Who imported it is what the audit log says.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.client import answers
from orchestrator.core.model import Artifact
from orchestrator.core.trust.audit import Entry
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.insight import listing, views
from orchestrator.engine.insight.listing import Wanted
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ports import Store, Tx
from orchestrator.verifier.fields import decode64
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives, gives_page

View = dict[str, Any]
MOST_LOOKS = 10
"""Pieces of the audit log that are looked through for an import, the newest ones."""
_NAMED = 5
"""Artifacts that are named where a beginning means more than one."""
_ADDRESS = Annotated[str, Query(max_length=2048, description="Only those that lie exactly here.")]


class ManyError(ConflictError):
    """The beginning of a hash means more than one artifact."""

    default_code = "ambiguous"


def artifact_router(context: Context) -> APIRouter:
    """Return the routes by which artifacts are looked at."""
    router = api_router("releases")
    reader = Annotated[Caller, may(context, Act.READ)]
    wanted = Annotated[Pages, pages(1000)]
    store = context.store

    @router.get("/artifacts", responses=gives_page(list[answers.Artifact]))
    async def list_artifacts(_: reader, page: wanted, uri: _ADDRESS = "") -> list[View]:
        """List artifacts, newest first."""
        found = await store.read(lambda tx: [item for item in tx.artifacts() if uri in ("", item.uri)])
        return [views.artifact_line(item) for item in page.cut_all(found, lambda item: item.sha256)]

    @router.get("/artifacts/{sha256}", responses=gives(answers.ArtifactDetail))
    async def get_artifact(sha256: str, _: reader) -> View:
        """Show an artifact: what its statement says, what was found in its bytes, and who imported it when.

        The hash may be cut off where its beginning means one artifact alone; 409 `ambiguous` if it means more.
        """
        artifact, releases = await store.read(lambda tx: _look(tx, sha256))
        return _view(artifact, releases, await _import_of(store, artifact))

    return router


def _look(tx: Tx, beginning: str) -> tuple[Artifact, list[str]]:
    found = [item for item in tx.artifacts() if item.sha256.startswith(beginning)]
    if not found:
        raise NotFoundError(f"no artifact {beginning[:64]!r} is imported; see `ota artifact list`")
    if len(found) > 1:
        names = ", ".join(item.sha256 for item in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        text = f"{len(found)} artifacts begin with {beginning[:64]!r}: {names}{more}; write more of the one you mean"
        raise ManyError(text)
    return found[0], [item.name for item in tx.releases() if found[0].sha256 in item.artifacts]


async def _import_of(store: Store, artifact: Artifact) -> Entry | None:
    """Return the entry of the audit log that tells of the import; None if it lies too far back to be looked for."""
    wanted, before = Wanted(action="artifact.imported", object=artifact.sha256), 0
    for _ in range(MOST_LOOKS):
        some = await listing.entries(store, wanted, before, 1)
        if some.found or not some.before:
            return next(iter(some.found), None)
        before = some.before
    return None


def _view(artifact: Artifact, releases: list[str], imported: Entry | None) -> View:
    return views.artifact_line(artifact) | {
        "key": _signer(artifact.statement),
        "security_epoch": artifact.sec,
        "min_from": artifact.min_from,
        "leaves": list(artifact.leaves),
        "sha1": artifact.sha1,
        "md5": artifact.md5,
        "releases": releases,
        "imported_at": None if imported is None else imported.at,
        "imported_by": None if imported is None else imported.actor,
    }


def _signer(statement: str) -> str:
    """Return the identifier of the key that signed a statement, which the importer has checked."""
    header: View = json.loads(decode64(statement.partition(".")[0].encode()))
    return str(header["kid"])
