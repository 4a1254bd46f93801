"""The importer on real folders, real signatures and, once, a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from orchestrator.adapters.files import FileSource
from orchestrator.adapters.s3 import S3Source
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.model import Artifact
from orchestrator.core.trigger import statement_claims
from orchestrator.demo import bucket
from orchestrator.engine.importer import Importer, Registry, examine
from orchestrator.errors import (
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    RequestError,
    TrustError,
    UnavailableError,
)
from orchestrator.ports import Found, Locator
from orchestrator.verifier import ARTIFACT, TRIGGER, PublicKey
from orchestrator.wire import endpoints
from orchestrator.wire.endpoints import Endpoints, encode_endpoints
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.support.bucket import bucket_endpoint, new_name, opened, settings

__all__ = ["bucket_endpoint"]

NOW = 1_800_000_000.0
IMAGE = bytes(range(256)) * 4096 + b"tail"
LIMIT = 1 << 21
DEPLOYMENT = "test-fleet"
SIGNER = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
STRANGER = FileSigner(ec.derive_private_key(8, ec.SECP256R1()))
KEYS = {SIGNER.kid: PublicKey(SIGNER.kid, ARTIFACT, SIGNER.x, SIGNER.y)}


def _described(data: bytes, rel: int = 7) -> Artifact:
    return Artifact(
        sha256=encode64(hashlib.sha256(data).digest()),
        size_bytes=len(data),
        name="pump",
        version="1.2.3",
        rel=rel,
        sec=2,
        component="main",
        hardware=("pump-a", "pump-b"),
        format="raw",
        min_from=3,
        statement="",
        uri="",
        source_version=None,
    )


def _sign(claims: Mapping[str, object], signer: FileSigner = SIGNER, typ: TokenType = TokenType.ARTIFACT) -> bytes:
    signed = signing_input(typ, signer.kid, claims)
    return assemble(signed, signer.sign(signed))


def _statement(data: bytes, rel: int = 7, *, ends_at: float | None = None) -> bytes:
    return _sign(statement_claims(_described(data, rel), issued_at=NOW - 60, expires_at=ends_at))


class Folder(FileSource):
    """A real folder of which single things can be put out of reach or changed on the way."""

    def __init__(self, root: Path) -> None:
        super().__init__((root,))
        self.root = root
        self.read_uris: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.bends: Callable[[bytes], bytes] | None = None

    def put(self, name: str, data: bytes, statement: bytes | None) -> str:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if statement is not None:
            path.with_name(path.name + ".statement").write_bytes(statement)
        return path.as_uri()

    async def stat(self, uri: str) -> Found:
        if uri in self.broken:
            raise self.broken[uri]
        return await super().stat(uri)

    async def list(self, prefix: str) -> AsyncIterator[Found]:
        if prefix in self.broken:
            raise self.broken[prefix]
        async for found in super().list(prefix):
            yield found

    async def read(self, locator: Locator, *, limit_bytes: int) -> AsyncIterator[bytes]:
        self.read_uris.append(locator.uri)
        async for chunk in super().read(locator, limit_bytes=limit_bytes):
            yield chunk if self.bends is None or locator.uri.endswith(".statement") else self.bends(chunk)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def _examine(folder: Folder, uri: str, limit_bytes: int = LIMIT) -> Artifact:
    return await examine(folder, uri, KEYS, limit_bytes=limit_bytes, deployment=DEPLOYMENT, clock=lambda: NOW)


# One artifact


async def test_a_signed_artifact_is_read_once_and_pinned(folder: Folder) -> None:
    token = _statement(IMAGE, ends_at=NOW + 1)
    uri = folder.put("fw.bin", IMAGE, token)
    steps: list[tuple[int, int]] = []
    artifact = await examine(
        folder,
        uri,
        KEYS,
        limit_bytes=LIMIT,
        deployment=DEPLOYMENT,
        progress=lambda *step: steps.append(step),
        clock=lambda: NOW,
    )
    pinned = (await folder.stat(uri)).locator.version
    hashes = {"sha1": hashlib.sha1(IMAGE).hexdigest(), "md5": hashlib.md5(IMAGE).hexdigest()}
    described = replace(_described(IMAGE), sha1=hashes["sha1"], md5=hashes["md5"], recognised="raw")
    assert artifact == replace(described, statement=token.decode(), uri=uri, source_version=pinned)
    assert folder.read_uris == [uri + ".statement", uri]
    assert steps == [(1 << 20, len(IMAGE)), (len(IMAGE), len(IMAGE))]


async def test_the_same_from_a_bucket(bucket_endpoint: str) -> None:
    name = new_name()
    await bucket.create(bucket_endpoint, name)
    await bucket.put(bucket_endpoint, name, "fw.bin", IMAGE)
    await bucket.put(bucket_endpoint, name, "fw.bin.statement", _statement(IMAGE))
    uri = f"s3://{name}/fw.bin"
    with opened(S3Source(settings(bucket_endpoint))) as source:
        artifact = await examine(source, uri, KEYS, limit_bytes=LIMIT, deployment=DEPLOYMENT, clock=lambda: NOW)
        assert artifact.source_version == (await source.stat(uri)).locator.version
        await bucket.put(bucket_endpoint, name, "fw.bin", IMAGE[::-1])
        with pytest.raises(TrustError) as refused:
            await examine(source, uri, KEYS, limit_bytes=LIMIT, deployment=DEPLOYMENT, clock=lambda: NOW)
        assert refused.value.code == "hash_mismatch"
        with pytest.raises(NotFoundError) as missing:
            await examine(source, f"s3://{name}-not/fw.bin", KEYS, limit_bytes=LIMIT, deployment=DEPLOYMENT)
    assert artifact.sha256 == encode64(hashlib.sha256(IMAGE).digest())
    assert missing.value.code == "no_such_bucket"


async def test_a_line_end_after_the_statement_does_no_harm(folder: Folder) -> None:
    uri = folder.put("fw.bin", IMAGE, _statement(IMAGE) + b"\n")
    assert (await _examine(folder, uri)).statement == _statement(IMAGE).decode()


async def test_the_artifact_itself_is_missing(folder: Folder) -> None:
    with pytest.raises(NotFoundError, match=r"fw\.bin does not exist"):
        await _examine(folder, (folder.root / "fw.bin").as_uri())


CLAIMS = statement_claims(_described(IMAGE), issued_at=NOW - 60)
GOOD = _statement(IMAGE)


@pytest.mark.parametrize(
    ("token", "code", "hint"),
    [
        (None, "unsigned", "sign it with `ota artifact sign`"),
        (b"", "bad_statement", "not_a_token"),
        (b"x" * 2049, "bad_statement", "has 2049 bytes, which no statement has"),
        (GOOD[:-1], "bad_statement", "bad_base64"),
        (GOOD + b"\n\n", "bad_statement", "bad_base64"),
        (_sign(CLAIMS, STRANGER), "bad_statement", "unknown_key"),
        (
            GOOD.rpartition(b".")[0] + b"." + _sign(CLAIMS | {"rel": 8}).rpartition(b".")[2],
            "bad_statement",
            "signature",
        ),
        (_sign(CLAIMS, typ=TokenType.TRIGGER), "bad_statement", "wrong_type"),
        (_sign(CLAIMS | {"hw": "pump-a"}), "bad_statement", "bad_field"),
        (_statement(IMAGE, ends_at=NOW), "expired_statement", "ended at 1800000000"),
        (_sign(CLAIMS | {"size": LIMIT + 1}), "too_large", f"{LIMIT + 1} bytes, at most {LIMIT} are allowed"),
        (_sign(CLAIMS | {"size": 5}), "size_mismatch", "its statement says 5; upload the signed file again"),
    ],
)
async def test_nothing_is_read_before_the_statement_and_the_size_are_right(
    folder: Folder, token: bytes | None, code: str, hint: str
) -> None:
    uri = folder.put("fw.bin", IMAGE, token)
    with pytest.raises(TrustError) as refused:
        await _examine(folder, uri)
    assert refused.value.code == code
    assert hint in refused.value.message
    assert uri in refused.value.message
    assert uri not in folder.read_uris


async def test_a_key_for_triggers_cannot_sign_artifacts(folder: Folder) -> None:
    uri = folder.put("fw.bin", IMAGE, GOOD)
    keys = {SIGNER.kid: PublicKey(SIGNER.kid, TRIGGER, SIGNER.x, SIGNER.y)}
    with pytest.raises(TrustError, match="wrong_role"):
        await examine(folder, uri, keys, limit_bytes=LIMIT, deployment=DEPLOYMENT, clock=lambda: NOW)


async def test_the_limit_counts_what_lies_there_too(folder: Folder) -> None:
    uri = folder.put("fw.bin", IMAGE, GOOD)
    assert (await _examine(folder, uri, limit_bytes=len(IMAGE))).size_bytes == len(IMAGE)
    with pytest.raises(TrustError) as refused:
        await _examine(folder, uri, limit_bytes=len(IMAGE) - 1)
    assert refused.value.code == "too_large"


async def test_a_delta_is_not_offered_yet(folder: Folder) -> None:
    out = {"size": 9, "sha256": _described(b"").sha256}
    uri = folder.put("fw.bin", IMAGE, _sign(CLAIMS | {"out": out}))
    with pytest.raises(RequestError) as refused:
        await _examine(folder, uri)
    assert refused.value.code == "unsupported_format"


DOCUMENT = encode_endpoints(Endpoints(DEPLOYMENT, mqtt=("mqtts://broker.example",)))


def _stated(data: bytes, **changes: Any) -> bytes:
    told = replace(_described(data), component=endpoints.COMPONENT, format=endpoints.FORMAT)
    return _sign(statement_claims(replace(told, **changes), issued_at=NOW - 60))


async def test_a_document_of_endpoints_is_imported(folder: Folder) -> None:
    uri = folder.put("move.json", DOCUMENT, _stated(DOCUMENT))
    assert (await _examine(folder, uri)).component == "endpoints"


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        (b"{}", "malformed"),
        (DOCUMENT.replace(b"test-fleet", b"other-fleet"), "for the deployment 'other-fleet', not test-fleet"),
        (DOCUMENT.replace(b"broker.example", b"10.0.0.1"), "names its host by a number"),
        (DOCUMENT[:-1] + b" " * 4096 + b"}", "oversize"),
    ],
)
async def test_a_document_that_devices_would_refuse_is_refused_with_the_reason(
    folder: Folder, document: bytes, hint: str
) -> None:
    uri = folder.put("move.json", document, _stated(document))
    with pytest.raises(RequestError) as refused:
        await _examine(folder, uri)
    assert refused.value.code == "bad_endpoints"
    assert hint in refused.value.message
    assert uri in refused.value.message


@pytest.mark.parametrize("changes", [{"component": "main"}, {"format": "raw"}])
async def test_endpoints_are_stated_by_component_and_format_or_not_at_all(
    folder: Folder, changes: dict[str, str]
) -> None:
    uri = folder.put("move.json", DOCUMENT, _stated(DOCUMENT, **changes))
    with pytest.raises(RequestError, match="--comp endpoints --format otad-endpoints") as refused:
        await _examine(folder, uri)
    assert refused.value.code == "bad_endpoints"
    assert uri not in folder.read_uris


@pytest.mark.parametrize(
    ("bend", "code"),
    [
        (lambda chunk: chunk[:-1] + b"\0", "hash_mismatch"),
        (lambda chunk: chunk[:-1], "size_mismatch"),
        (lambda chunk: chunk + b"x", "size_mismatch"),
    ],
)
async def test_bytes_that_were_not_signed_are_refused(
    folder: Folder, bend: Callable[[bytes], bytes], code: str
) -> None:
    folder.bends = bend
    uri = folder.put("fw.bin", IMAGE[::-1], _statement(IMAGE[::-1]))
    with pytest.raises(TrustError) as refused:
        await _examine(folder, uri)
    assert refused.value.code == code
    assert refused.value.message.endswith("upload the signed file again")


# Importing and watching


@dataclass
class Shelf:
    """A registry in memory."""

    artifacts: list[Artifact] = field(default_factory=list)
    imported: set[tuple[str, str]] = field(default_factory=set)
    conflict: OrchestratorError | None = None
    actors: list[str] = field(default_factory=list)

    async def register(self, artifact: Artifact, actor: str) -> bool:
        self.actors.append(actor)
        if self.conflict is not None:
            raise self.conflict
        new = artifact.sha256 not in {known.sha256 for known in self.artifacts}
        if new:
            self.artifacts.append(artifact)
        return new

    async def known(self, uri: str, etag: str) -> bool:
        return (uri, etag) in self.imported

    async def remember(self, uri: str, etag: str) -> None:
        self.imported.add((uri, etag))

    @property
    def rels(self) -> list[int]:
        return [artifact.rel for artifact in self.artifacts]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def _importer(folder: Folder, shelf: Shelf) -> Importer:
    registry = Registry(shelf.register, shelf.known, shelf.remember)
    return Importer(
        [folder],
        lambda: KEYS,
        registry,
        limit_bytes=LIMIT,
        deployment=DEPLOYMENT,
        clock=lambda: NOW,
        chance=lambda: 0.5,
    )


class Rounds:
    """Stands for the pause between two looks: notes it, does the next step, ends the watch after the last."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        self.pauses: list[float] = []

    async def __call__(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        if not self._steps:
            raise asyncio.CancelledError
        self._steps.pop(0)()


def _nothing() -> None:
    """A step that changes nothing."""


def _events(logs: list[dict[str, object]], *names: str) -> list[tuple[object, ...]]:
    return [tuple(log[name] for name in ("event", *names) if name in log) for log in logs]


async def _watch(folder: Folder, shelf: Shelf, rounds: Rounds) -> list[dict[str, object]]:
    with capture_logs() as logs:
        await _importer(folder, shelf).watch([folder.root.as_uri()], 10.0, rounds)
    return [dict(log) for log in logs]


async def test_import_one_registers_and_says_so(folder: Folder, shelf: Shelf) -> None:
    uri = folder.put("fw.bin", IMAGE, GOOD)
    importer = _importer(folder, shelf)
    with capture_logs() as logs:
        first = await importer.import_one(uri)
        again = await importer.import_one(uri, "ann")
    assert first == again
    assert shelf.actors == ["orchestrator", "ann"]
    assert shelf.artifacts == [first]
    assert _events([dict(log) for log in logs], "uri", "new") == [
        ("artifact.imported", uri, True),
        ("artifact.imported", uri, False),
    ]


async def test_import_one_needs_a_source(folder: Folder, shelf: Shelf) -> None:
    with pytest.raises(RequestError, match="no source serves 'https://example.com/fw.bin'"):
        await _importer(folder, shelf).import_one("https://example.com/fw.bin")


async def test_import_one_passes_a_reused_counter_on(folder: Folder, shelf: Shelf) -> None:
    shelf.conflict = TrustError("release 7 is another image", code="rel_reused")
    with pytest.raises(TrustError):
        await _importer(folder, shelf).import_one(folder.put("fw.bin", IMAGE, GOOD))


async def test_watch_imports_what_is_there_and_what_comes_once(folder: Folder, shelf: Shelf) -> None:
    folder.put("a.bin", b"a", _statement(b"a", 1))
    folder.put("unsigned.bin", b"u", None)
    folder.put("orphan.bin", b"o", _statement(b"o", 9))
    (folder.root / "orphan.bin").unlink()
    rounds = Rounds(lambda: folder.put("sub/b.bin", b"b", _statement(b"b", 2)), _nothing)
    logs = await _watch(folder, shelf, rounds)
    assert shelf.rels == [1, 2]
    assert [log["event"] for log in logs] == ["artifact.imported"] * 2
    assert rounds.pauses == [10.0, 10.0, 10.0]
    assert folder.read_uris == [
        (folder.root / name).as_uri() for name in ("a.bin.statement", "a.bin", "sub/b.bin.statement", "sub/b.bin")
    ]


async def test_after_a_restart_nothing_is_read_again(folder: Folder, shelf: Shelf) -> None:
    folder.put("a.bin", b"a", _statement(b"a", 1))
    await _watch(folder, shelf, Rounds())
    folder.read_uris.clear()
    assert await _watch(folder, shelf, Rounds()) == []
    assert folder.read_uris == []


async def test_the_same_name_with_other_bytes_is_another_artifact(folder: Folder, shelf: Shelf) -> None:
    folder.put("a.bin", b"a", _statement(b"a", 1))
    await _watch(folder, shelf, Rounds(lambda: folder.put("a.bin", b"bb", _statement(b"bb", 22))))
    assert shelf.rels == [1, 22]


async def test_a_refusal_is_logged_once_until_an_object_changes(folder: Folder, shelf: Shelf) -> None:
    uri = folder.put("a.bin", b"aXa", _statement(b"aaa", 1))
    rounds = Rounds(
        _nothing, lambda: folder.put("a.bin", b"a", None), _nothing, lambda: folder.put("a.bin", b"aaa", None)
    )
    logs = await _watch(folder, shelf, rounds)
    assert _events(logs, "uri", "code") == [
        ("artifact.refused", uri, "hash_mismatch"),
        ("artifact.refused", uri, "size_mismatch"),
        ("artifact.imported", uri),
    ]
    assert rounds.pauses == [10.0] * 5


async def test_a_reused_release_counter_is_a_refusal(folder: Folder, shelf: Shelf) -> None:
    shelf.conflict = TrustError("release 1 is another image", code="rel_reused")
    uri = folder.put("a.bin", b"a", _statement(b"a", 1))
    logs = await _watch(folder, shelf, Rounds(_nothing))
    assert _events(logs, "uri", "code", "reason") == [
        ("artifact.refused", uri, "rel_reused", "release 1 is another image")
    ]


async def test_an_outage_is_logged_once_and_waited_for_ever_longer(folder: Folder, shelf: Shelf) -> None:
    prefix = folder.root.as_uri()
    folder.put("a.bin", b"a", _statement(b"a", 1))
    folder.broken[prefix] = UnavailableError("no route")
    rounds = Rounds(*[_nothing] * 8, folder.broken.clear)
    logs = await _watch(folder, shelf, rounds)
    assert _events(logs, "prefix", "code") == [
        ("prefix.unavailable", prefix, "unavailable"),
        ("artifact.imported",),
        ("prefix.available", prefix),
    ]
    assert rounds.pauses == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 675.0, 675.0, 675.0, 10.0]


async def test_what_may_be_mended_without_a_new_object_is_tried_again(folder: Folder, shelf: Shelf) -> None:
    first = folder.put("a.bin", b"a", _statement(b"a", 1))
    folder.put("b.bin", b"b", _statement(b"b", 2))
    folder.broken[first] = ForbiddenError("access is denied", code="access_denied")
    logs = await _watch(folder, shelf, Rounds(_nothing, folder.broken.clear))
    assert shelf.rels == [2, 1]
    assert [log["event"] for log in logs] == [
        "artifact.imported",
        "prefix.unavailable",
        "artifact.imported",
        "prefix.available",
    ]


async def test_a_refusal_is_kept_through_an_outage(folder: Folder, shelf: Shelf) -> None:
    prefix = folder.root.as_uri()
    folder.put("a.bin", b"a", b"rubbish")
    rounds = Rounds(lambda: folder.broken.update({prefix: UnavailableError("no route")}), folder.broken.clear)
    logs = await _watch(folder, shelf, rounds)
    assert [log["event"] for log in logs] == ["artifact.refused", "prefix.unavailable", "prefix.available"]


async def test_a_bug_of_ours_does_not_end_the_watch(folder: Folder, shelf: Shelf) -> None:
    folder.put("a.bin", b"a", _statement(b"a", 1))
    folder.broken[folder.root.as_uri()] = ZeroDivisionError()
    rounds = Rounds(folder.broken.clear)
    logs = await _watch(folder, shelf, rounds)
    assert [log["event"] for log in logs] == [
        "prefix.failed",
        "prefix.unavailable",
        "artifact.imported",
        "prefix.available",
    ]
    assert rounds.pauses == [15.0, 10.0]


async def test_a_prefix_out_of_reach_does_not_hold_up_another(folder: Folder, shelf: Shelf) -> None:
    folder.put("here/a.bin", b"a", _statement(b"a", 1))
    here, gone = f"{folder.root.as_uri()}/here", f"{folder.root.as_uri()}/gone"
    rounds = Rounds()
    with capture_logs() as logs:
        await _importer(folder, shelf).watch([gone, here, "https://example.com/"], 10.0, rounds)
    assert shelf.rels == [1]
    assert {(log["event"], log.get("code")) for log in logs} == {
        ("prefix.unavailable", "no_such_folder"),
        ("prefix.unavailable", "bad_uri"),
        ("artifact.imported", None),
    }
    assert sorted(rounds.pauses) == [10.0, 15.0, 15.0]
