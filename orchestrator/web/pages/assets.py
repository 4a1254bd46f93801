"""The files that pages load: style, script and what is vendored, read once when the daemon starts.

Rules:
- A file is named with a hash of its bytes, so browsers keep it for ever and never mix two versions.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFoundError

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"
_FOLDERS = ("", "vendor/")


class Assets:
    """All files, by their names."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        root = resources.files("orchestrator.web.pages").joinpath("static")
        for folder in _FOLDERS:
            for item in root.joinpath(folder).iterdir():
                if item.name.rpartition(".")[2] in _TYPES:
                    self._files[folder + item.name] = item.read_bytes()

    def url(self, name: str) -> str:
        """Return the address of a file, which changes with its bytes."""
        return f"/static/{name}?v={hashlib.sha256(self._files[name]).hexdigest()[:12]}"

    async def serve(self, request: Request) -> Response:
        """Answer with a file.

        Raises:
            NotFoundError: there is none of this name.
        """
        name = request.path_params["name"]
        if name not in self._files:
            raise NotFoundError("there is no such file")
        headers = {"Cache-Control": _FOR_EVER, "X-Content-Type-Options": "nosniff"}
        return Response(self._files[name], headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
