"""The bytes of an artifact for a device that may have them.

Rules:
- A local file is served by us, with ranges; what lies elsewhere is a redirection to a URL that works for a while.
- HEAD is always answered here: such a URL is signed for GET alone, and the length of its refusal is not the artifact's.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from orchestrator.core.model import Artifact
from orchestrator.errors import NotFoundError
from orchestrator.ports import Locator
from orchestrator.web.context import Context

NO_STORE = {"Cache-Control": "no-store", "Vary": "Authorization"}
_BYTES = "application/octet-stream"


async def artifact_response(request: Request, context: Context, artifact: Artifact) -> Response:
    """Return the answer to a request for an artifact; whether the device may have it was judged before.

    Raises:
        NotFoundError: nothing can serve it any more.
    """
    source = next((item for item in context.sources if item.serves(artifact.uri)), None)
    if source is None:
        raise NotFoundError("the source of this artifact is not configured any more")
    locator = Locator(artifact.uri, artifact.source_version)
    path = await source.local_path(locator)
    kept = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, immutable", "X-Content-Type-Options": "nosniff"}
    if path is not None:
        return FileResponse(path, media_type=_BYTES, headers=kept)
    if request.method == "HEAD":
        return Response(media_type=_BYTES, headers=kept | {"Content-Length": str(artifact.size_bytes)})
    url = await source.download_url(locator, valid_s=context.presign_lifetime_s)
    if url is None:
        raise NotFoundError("the source of this artifact cannot serve devices")
    return RedirectResponse(url, status_code=302, headers=NO_STORE)
