"""Software modules and the artifacts that are uploaded to them.

Rules:
- An upload becomes an artifact by the import that all artifacts pass: with a signed statement, and every byte checked.
  What has none is refused; a native signature says neither the hardware nor the release counter.
- The statement comes with the file, or before it as a file of its own; bytes that are imported already need none.
- What lies in a module becomes a release, so whatever changes one is in the audit log, after it was done.
- What was refused is deleted. What was registered stays, for devices may still fetch it.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.core.model import Artifact
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.importer import SUFFIX
from orchestrator.errors import ConflictError, NotFoundError, OrchestratorError, PayloadError, TrustError
from orchestrator.ports import Lane
from orchestrator.ports.shelf import Module, Upload
from orchestrator.verifier import MAX_TOKEN_BYTES
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context
from orchestrator.web.management import documents, said
from orchestrator.web.management.documents import View
from orchestrator.web.management.multipart import Form
from orchestrator.web.management.settings import Management
from orchestrator.wire.token import encode64

MAX_AROUND_BYTES = 64 * 1024
"""What a form may have besides its file."""

MAX_FILES = 50
_MAX_NAME = 128


class Modules:
    """What is done with software modules."""

    def __init__(self, context: Context, settings: Management) -> None:
        self._context = context
        self._settings = settings
        self._place = f"{context.public_url}/rest/v1"
        self._turn = asyncio.Lock()

    async def page(self, request: Request, _: Caller) -> Response:
        """List modules, oldest first unless the other order is asked for."""
        wanted = said.page_of(request.query_params)
        found = await asyncio.to_thread(self._settings.open_shelf.modules)
        ordered = found[::-1] if wanted.descending else found
        part = ordered[wanted.offset : wanted.offset + wanted.limit]
        return JSONResponse(documents.page([documents.module(item, self._place) for item in part], len(found)))

    async def create(self, request: Request, caller: Caller) -> Response:
        """Make modules."""
        wanted = said.some(await body_of(request, said.MAX_BODY_BYTES), said.NewModule)
        shelf = self._settings.open_shelf
        made = [await asyncio.to_thread(shelf.add, item.name, item.version, item.type) for item in wanted]
        for item in made:
            await self._note(caller, "module.created", item.id, {"name": item.name, "version": item.version})
        return JSONResponse([documents.module(item, self._place) for item in made], 201)

    async def show(self, request: Request, _: Caller) -> Response:
        """Show a module."""
        return JSONResponse(documents.module(await self._module(request), self._place))

    async def delete(self, request: Request, caller: Caller) -> Response:
        """Forget a module; one that is not there is forgotten already."""
        number, shelf = said.number_in(request.path_params["module"]), self._settings.open_shelf
        async with self._turn:
            module = await asyncio.to_thread(shelf.module, number)
            await asyncio.to_thread(shelf.remove, number)
        if module is not None:
            await self._note(caller, "module.deleted", number, {"files": module.files})
        return Response()

    async def artifacts(self, request: Request, _: Caller) -> Response:
        """List the artifacts of a module."""
        module = await self._module(request)
        return JSONResponse([await self._view(module, name) for name in module.files])

    async def artifact(self, request: Request, _: Caller) -> Response:
        """Show an artifact of a module."""
        module = await self._module(request)
        return JSONResponse(await self._view(module, _file(module, request)))

    async def take_out(self, request: Request, caller: Caller) -> Response:
        """Take an artifact out of a module; it stays registered."""
        async with self._turn:
            module = await self._module(request)
            gone = _file(module, request)
            files = {name: sha256 for name, sha256 in module.files.items() if name != gone}
            await asyncio.to_thread(self._settings.open_shelf.save, replace(module, files=files))
        await self._note(caller, "module.file_removed", module.id, {"file": gone, "sha256": module.files[gone]})
        return Response()

    async def upload(self, request: Request, caller: Caller) -> Response:
        """Take a file in, and import it; or a statement, which waits for its file."""
        module, form = await self._module(request), Form(request.headers.get("content-type", ""))
        with ExitStack() as stack:
            upload = await asyncio.to_thread(stack.enter_context, self._settings.open_shelf.receive())
            name, statement = await self._receive(request, form, upload)
            if name.endswith(SUFFIX):
                kept = await self._keep_statement(module.id, name, statement)
                digest = hashlib.sha256(statement.encode()).hexdigest()
                await self._note(caller, "module.statement_kept", module.id, {"file": name, "sha256": digest})
                return JSONResponse(kept, 201)
            async with self._turn:
                module = await self._module(request)
                if name in module.files or len(module.files) >= MAX_FILES:
                    text = f"the module has a file {name!r} already, or {MAX_FILES} files; make another module"
                    raise ConflictError(text, code="exists")
                artifact = await self._imported(upload, name, statement or module.statements.get(name, ""), caller)
                waiting = {key: text for key, text in module.statements.items() if key != name}
                changed = replace(module, files={**module.files, name: artifact.sha256}, statements=waiting)
                await asyncio.to_thread(self._settings.open_shelf.save, changed)
        await self._note(caller, "module.file_added", module.id, {"file": name, "sha256": artifact.sha256})
        return JSONResponse(documents.artifact(artifact, name, module.id, self._place), 201)

    async def _note(self, caller: Caller, action: str, number: int, what: dict[str, Any]) -> None:
        now = self._context.now()
        await self._context.store.transact(
            Lane.OPERATOR, lambda tx: tx.audit(caller.name, action, str(number), what, now)
        )

    async def _receive(self, request: Request, form: Form, upload: Upload) -> tuple[str, str]:
        """Take in the form: the file into the upload; returns its name and the statement that came with it."""
        name, statement, received = "", bytearray(), 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > self._settings.limit_bytes + MAX_AROUND_BYTES:
                text = f"a file has at most {self._settings.limit_bytes} bytes; see sources.max_artifact_size"
                raise PayloadError(text, code="oversize")
            for part, piece in form.feed(chunk):
                if part.name == "file" and not piece:
                    name = _new_name(name, part.file_name)
                elif part.name == "statement" or (part.name == "file" and name.endswith(SUFFIX)):
                    statement += piece
                elif part.name == "file":
                    await asyncio.to_thread(upload.write, piece)
                if len(statement) > MAX_TOKEN_BYTES + 1:
                    raise TrustError(f"a statement has at most {MAX_TOKEN_BYTES} bytes", code="bad_statement")
        form.close()
        if not name:
            raise PayloadError("the form has no file in the field `file`", code="malformed")
        if not statement.isascii():
            raise TrustError("the statement is none; `ota artifact sign` makes one", code="bad_statement")
        return name, statement.decode("ascii")

    async def _keep_statement(self, number: int, name: str, statement: str) -> View:
        async with self._turn:
            shelf = self._settings.open_shelf
            module = await asyncio.to_thread(shelf.module, number)
            if module is None:
                raise NotFoundError("there is no such module")
            if len(module.statements) >= MAX_FILES:
                raise ConflictError(f"{MAX_FILES} statements wait for their files already; upload those")
            waiting = {**module.statements, name.removesuffix(SUFFIX): statement}
            await asyncio.to_thread(shelf.save, replace(module, statements=waiting))
        sha256 = encode64(hashlib.sha256(statement.encode()).digest())
        return {"id": documents.artifact_number(sha256), "providedFilename": name, "size": len(statement)}

    async def _imported(self, upload: Upload, name: str, statement: str, caller: Caller) -> Artifact:
        """Return the artifact that the bytes are, imported if they are new.

        Raises:
            TrustError: they have no statement, or one that does not hold.
            OrchestratorError: whatever the import raises.
        """
        known = await self._context.store.read(lambda tx: tx.artifact(upload.sha256))
        if known is not None:
            return known
        if not statement:
            text = (
                f"{name} is unsigned: `ota artifact sign` makes its statement; send that in the field `statement` of "
                f"the same form, or upload it before as {name}{SUFFIX}"
            )
            raise TrustError(text, code="unsigned")
        shelf = self._settings.open_shelf
        uri = await asyncio.to_thread(upload.keep, name, statement)
        try:
            return await self._context.import_artifact(uri, caller.name)
        except OrchestratorError:
            await asyncio.to_thread(shelf.discard, uri)
            raise

    async def _module(self, request: Request) -> Module:
        number = said.number_in(request.path_params["module"])
        found = await asyncio.to_thread(self._settings.open_shelf.module, number)
        if found is None:
            raise NotFoundError("there is no such module")
        return found

    async def _view(self, module: Module, name: str) -> View:
        artifact = await self._context.store.read(lambda tx: tx.artifact(module.files[name]))
        if artifact is None:
            raise NotFoundError(f"{name} is not in this database; it was restored from an older one: upload it again")
        return documents.artifact(artifact, name, module.id, self._place)


def _file(module: Module, request: Request) -> str:
    number = said.number_in(request.path_params["artifact"])
    for name, sha256 in module.files.items():
        if documents.artifact_number(sha256) == number:
            return name
    raise NotFoundError("there is no such artifact in this module")


def _new_name(before: str, said_name: str) -> str:
    """Return what a file is called, without folders."""
    name = unquote(said_name).replace("\\", "/").rpartition("/")[2]
    if before:
        raise PayloadError("one file at a time", code="malformed")
    if not (0 < len(name) <= _MAX_NAME and name.isprintable()):
        raise PayloadError(f"a file has a name of 1 to {_MAX_NAME} printable characters", code="malformed")
    return name
