"""Brings artifacts in: looks, checks the statement, reads every byte once, registers.

Rules:
- Nothing is downloaded before its statement is found authentic and its declared size fits.
- A refusal names the object and the remedy; the watch logs it once and does not try the same objects again.
- What cannot be reached is waited for with a growing, scattered pause; the watch ends only by cancellation.
- Importing the same bytes again changes nothing: registering is idempotent.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from orchestrator.core.model import DAEMON, Artifact, Remark
from orchestrator.errors import (
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    PayloadError,
    RequestError,
    TrustError,
    UnavailableError,
)
from orchestrator.images import FORMATS, RAW, Intake, as_declared, signature_of
from orchestrator.ports import ArtifactSource, Found, Locator
from orchestrator.verifier import ARTIFACT, MAX_TOKEN_BYTES, PublicKey, Refused, open_token
from orchestrator.wire import endpoints
from orchestrator.wire.token import encode64

SUFFIX: Final = ".statement"
LONGEST_PAUSE_S: Final = 900.0

Progress = Callable[[int, int], None]
# What may be mended at the source without a new object; everything else is a refusal of this object.
_LATER: Final = (UnavailableError, ForbiddenError, NotFoundError)
_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")
_SHOWN = 4
"""Faults of an image that a refusal tells; the first one is mostly the reason for the others."""
_KEPT = 16
"""Remarks that are kept of an image."""


async def examine(
    source: ArtifactSource,
    uri: str,
    keys: Mapping[str, PublicKey],
    *,
    limit_bytes: int,
    deployment: str,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> Artifact:
    """Check an artifact from its statement to its last byte.

    Args:
        source: where `uri` lies.
        uri: the artifact; its statement is `<uri>.statement` beside it.
        keys: public keys by `kid`.
        limit_bytes: largest artifact that is read.
        deployment: whose endpoints may be imported.
        progress: called after each piece with bytes received and bytes expected.
        clock: present time in epoch seconds.

    Returns:
        The artifact, pinned to the version that was read.

    Raises:
        TrustError: `unsigned`, `bad_statement`, `expired_statement`, `too_large`, `size_mismatch`,
            `hash_mismatch` or `changed`.
        RequestError: `unsupported_format`; the statement declares a delta. `bad_image`; it is not an image of the
            format that the statement declares, or has a fault by its rules. `bad_endpoints`; it is no document of
            endpoints although it is stated as one, or the other way round.
        OrchestratorError: whatever the source raises.
    """
    token = await _read_statement(source, uri)
    claims = _open_statement(token, uri, keys, clock())
    found = await source.stat(uri)
    _check_kind(uri, claims)
    _check_size(found, claims["size"], limit_bytes)
    with Intake(claims["fmt"]) as intake:
        begin, digests = await _check_bytes(source, found.locator, claims, progress, intake)
        image = await _check_image(uri, claims["fmt"], intake)
    if claims["comp"] == endpoints.COMPONENT:
        _check_endpoints(uri, begin, deployment)
        image = _Image(endpoints.FORMAT)
    artifact = _artifact(claims, token, found.locator)
    artifact = replace(artifact, signature=image.signature, recognised=image.format, remarks=image.remarks)
    return replace(artifact, sha1=digests.sha1, md5=digests.md5)


async def _note_nothing(_uri: str, _error: OrchestratorError, _actor: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What the importer needs from the store.

    Attributes:
        register: stores an artifact on behalf of an account; True if it is new. Raises `TrustError` (`rel_reused`)
            where its release counter is taken by another image.
        known: whether a statement object (its artifact's URI, its own ETag) was imported before.
        remember: makes `known` true for these two from now on.
        refuse: notes that an artifact was refused to an account.
    """

    register: Callable[[Artifact, str], Awaitable[bool]]
    known: Callable[[str, str], Awaitable[bool]]
    remember: Callable[[str, str], Awaitable[None]]
    refuse: Callable[[str, OrchestratorError, str], Awaitable[None]] = _note_nothing


class Importer:
    """Imports single artifacts on command, and all that appear below watched prefixes.

    Args:
        sources: the places that artifacts may come from.
        keys: returns the public keys of now, by `kid`.
        registry: what is stored.
        limit_bytes: largest artifact that is read.
        deployment: whose endpoints may be imported.
        clock: present time in epoch seconds.
        chance: number within 0 and 1 that scatters pauses.
    """

    def __init__(
        self,
        sources: Sequence[ArtifactSource],
        keys: Callable[[], Mapping[str, PublicKey]],
        registry: Registry,
        *,
        limit_bytes: int,
        deployment: str,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sources = tuple(sources)
        self._keys = keys
        self._registry = registry
        self._limit_bytes = limit_bytes
        self._deployment = deployment
        self._clock = clock
        self._chance = chance
        self._turn = asyncio.Lock()

    async def import_one(self, uri: str, actor: str = DAEMON, *, progress: Progress | None = None) -> Artifact:
        """Examine and register one artifact, on behalf of `actor`; see `examine` for its errors.

        Raises:
            RequestError: no source serves such an address.
            TrustError: `rel_reused`; the release counter is taken by another image.
        """
        source = self._source(uri)
        try:
            artifact, new = await self._import(source, uri, actor, progress)
        except _LATER:
            raise
        except OrchestratorError as error:
            await self._registry.refuse(uri, error, actor)
            raise
        _log.info("artifact.imported", uri=uri, name=artifact.name, version=artifact.version, rel=artifact.rel, new=new)
        return artifact

    async def _import(
        self, source: ArtifactSource, uri: str, actor: str, progress: Progress | None
    ) -> tuple[Artifact, bool]:
        artifact = await examine(
            source,
            uri,
            self._keys(),
            limit_bytes=self._limit_bytes,
            deployment=self._deployment,
            progress=progress,
            clock=self._clock,
        )
        return artifact, await self._registry.register(artifact, actor)

    async def watch(
        self, prefixes: Sequence[str], interval_s: float, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        """Import what appears below the prefixes, until cancelled.

        Args:
            prefixes: `s3://bucket/prefix` or `file:///folder`; each is looked at by itself, so that
                one that is out of reach does not hold up the others. Artifacts come in one by one.
            interval_s: pause between two looks at one prefix.
            sleep: waits so many seconds.
        """
        async with asyncio.TaskGroup() as tasks:
            for prefix in prefixes:
                tasks.create_task(self._watch_prefix(_Watch(prefix), interval_s, sleep), name=f"watch {prefix}")

    async def _watch_prefix(self, watch: _Watch, interval_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        while True:
            try:
                await self._look(watch)
            except OrchestratorError as error:
                watch.failed(error.code, error.message)
            except Exception as error:
                # A bug of ours must not end the watch: the next thing to arrive may be a security release.
                _log.exception("prefix.failed", prefix=watch.prefix)
                watch.failed("internal", f"{type(error).__name__}: see the log")
            else:
                watch.worked()
            await sleep(_pause_s(interval_s, watch.failures, self._chance()))

    async def _look(self, watch: _Watch) -> None:
        candidates = await self._candidates(watch.prefix)
        watch.refused.intersection_update(candidates)
        out_of_reach: OrchestratorError | None = None
        for candidate in candidates:
            try:
                await self._consider(candidate, watch.refused)
            except _LATER as error:
                out_of_reach = error
        if out_of_reach is not None:
            raise out_of_reach

    async def _candidates(self, prefix: str) -> list[_Candidate]:
        etags = {found.locator.uri: found.etag async for found in self._source(prefix).list(prefix)}
        return [_Candidate(uri, etag, etags[uri + SUFFIX]) for uri, etag in etags.items() if uri + SUFFIX in etags]

    async def _consider(self, candidate: _Candidate, refused: set[_Candidate]) -> None:
        uri, mark = candidate.uri, candidate.statement_etag
        if candidate in refused or await self._registry.known(uri, mark):
            return
        try:
            async with self._turn:
                await self.import_one(uri)
        except _LATER:
            raise
        except OrchestratorError as error:
            refused.add(candidate)
            _log.warning("artifact.refused", uri=uri, code=error.code, reason=error.message)
        else:
            await self._registry.remember(uri, mark)

    def _source(self, uri: str) -> ArtifactSource:
        for source in self._sources:
            if source.serves(uri):
                return source
        raise RequestError(f"no source serves {uri!r}; write s3://bucket/key or file:///path", code="bad_uri")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An artifact with a statement beside it; either of them changed makes a new candidate."""

    uri: str
    etag: str
    statement_etag: str


class _Digests:
    """The hashes of an artifact. SHA-256 decides; the others are what old clients check a download by."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._md5 = hashlib.md5(usedforsecurity=False)

    def take(self, chunk: bytes) -> None:
        """Add the next bytes."""
        for hasher in (self._sha256, self._sha1, self._md5):
            hasher.update(chunk)

    @property
    def sha256(self) -> bytes:
        """What the statement names."""
        return self._sha256.digest()

    @property
    def sha1(self) -> str:
        """In lower-case hex."""
        return self._sha1.hexdigest()

    @property
    def md5(self) -> str:
        """In lower-case hex."""
        return self._md5.hexdigest()


@dataclass(slots=True)
class _Watch:
    """What one watched prefix has been through; every change of its condition is logged once."""

    prefix: str
    refused: set[_Candidate] = field(default_factory=set)
    failures: int = 0
    outage: str = ""

    def failed(self, code: str, reason: str) -> None:
        self.failures += 1
        if code != self.outage:
            _log.warning("prefix.unavailable", prefix=self.prefix, code=code, reason=reason)
        self.outage = code

    def worked(self) -> None:
        if self.outage:
            _log.info("prefix.available", prefix=self.prefix)
        self.failures, self.outage = 0, ""


def _pause_s(interval_s: float, failures: int, chance: float) -> float:
    if not failures:
        return interval_s
    longest_s = max(interval_s, LONGEST_PAUSE_S)
    return min(interval_s * 2.0 ** min(failures, 16), longest_s) * (0.5 + chance / 2)


async def _read_statement(source: ArtifactSource, uri: str) -> bytes:
    try:
        found = await source.stat(uri + SUFFIX)
    except NotFoundError:
        await source.stat(uri)  # says so where the artifact itself, or its bucket, is what is missing
        text = f"{uri} is unsigned: there is no {uri}{SUFFIX}; sign it with `ota artifact sign` and upload both"
        raise TrustError(text, code="unsigned") from None
    if found.size_bytes > MAX_TOKEN_BYTES:
        text = f"{uri}{SUFFIX} has {found.size_bytes} bytes, which no statement has; upload the right one"
        raise TrustError(text, code="bad_statement")
    chunks = [chunk async for chunk in source.read(found.locator, limit_bytes=MAX_TOKEN_BYTES)]
    return b"".join(chunks).removesuffix(b"\n")


def _open_statement(token: bytes, uri: str, keys: Mapping[str, PublicKey], now: float) -> dict[str, Any]:
    try:
        claims = open_token(token, ARTIFACT, keys)
    except Refused as refusal:
        text = f"{uri}{SUFFIX} is refused ({refusal.code}: {refusal.detail}); sign {uri} again with the artifact key"
        raise TrustError(text, code="bad_statement") from None
    if now >= claims.get("exp", math.inf):
        text = f"the statement of {uri} ended at {claims['exp']} (epoch seconds); sign it again"
        raise TrustError(text, code="expired_statement")
    if "out" in claims:
        text = f"{uri} is a delta or compressed (out), which cannot be offered yet; sign and upload the whole image"
        raise RequestError(text, code="unsupported_format")
    return claims


def _check_size(found: Found, declared_bytes: int, limit_bytes: int) -> None:
    uri = found.locator.uri
    largest = max(found.size_bytes, declared_bytes)
    if largest > limit_bytes:
        text = f"{uri} has {largest} bytes, at most {limit_bytes} are allowed; raise the limit or make it smaller"
        raise TrustError(text, code="too_large")
    if found.size_bytes != declared_bytes:
        text = f"{uri} has {found.size_bytes} bytes, its statement says {declared_bytes}; upload the signed file again"
        raise TrustError(text, code="size_mismatch")


async def _check_bytes(
    source: ArtifactSource, locator: Locator, claims: Mapping[str, Any], progress: Progress | None, intake: Intake
) -> tuple[bytes, _Digests]:
    """Check every byte and pass it on to `intake`; returns the first ones, one more than endpoints may have."""
    digests, received, expected, begin = _Digests(), 0, claims["size"], b""
    async for chunk in source.read(locator, limit_bytes=expected):
        # A megabyte takes a few milliseconds: too long for the loop that reports run on.
        await asyncio.to_thread(digests.take, chunk)
        await _set_aside(locator.uri, partial(intake.take, chunk))
        received += len(chunk)
        begin += chunk[: endpoints.MAX_DOCUMENT_BYTES + 1 - len(begin)]
        if progress is not None:
            progress(received, expected)
    if received != expected:
        text = f"{locator.uri} gave {received} bytes, its statement says {expected}; upload the signed file again"
        raise TrustError(text, code="size_mismatch")
    if encode64(digests.sha256) != claims["sha256"]:
        text = (
            f"the bytes of {locator.uri} are not those that were signed (SHA-256 differs); upload the signed file again"
        )
        raise TrustError(text, code="hash_mismatch")
    return begin, digests


@dataclass(frozen=True, slots=True)
class _Image:
    """What was found of an image.

    Attributes:
        format: that its bytes have.
        signature: the one that devices check by themselves, "" for none.
        remarks: what was noticed.
    """

    format: str = RAW
    signature: str = ""
    remarks: tuple[Remark, ...] = ()


async def _check_image(uri: str, declared: str, intake: Intake) -> _Image:
    """Refuse an image that is not what its statement declares, or is not whole; warn where it declares nothing."""
    findings = await _set_aside(uri, intake.findings)
    if findings is None:
        return _Image()
    faults = [*findings.faults, *as_declared(findings, declared)]
    if faults and declared in FORMATS:
        text = f"{uri} is no {declared} image that devices should get: {' / '.join(map(str, faults[:_SHOWN]))}"
        raise RequestError(text, code="bad_image")
    noticed = (*faults, *findings.warnings)
    for fault in noticed:
        _log.warning("artifact.doubtful", uri=uri, format=findings.format, code=fault.code, reason=str(fault))
    remarks = tuple(Remark(fault.code, fault.text, fault.remedy) for fault in noticed[:_KEPT])
    return _Image(findings.format, signature_of(findings, declared), remarks)


async def _set_aside(uri: str, work: Callable[[], _Result]) -> _Result:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        text = f"{uri} cannot be set aside to look at it: {error.strerror}; make room in the temporary folder"
        raise UnavailableError(text) from None


def _check_kind(uri: str, claims: Mapping[str, Any]) -> None:
    """Refuse what devices would take for endpoints by its component and not by its format, or the other way round."""
    if (claims["comp"] == endpoints.COMPONENT) != (claims["fmt"] == endpoints.FORMAT):
        wanted = f"--comp {endpoints.COMPONENT} --format {endpoints.FORMAT}"
        text = (
            f"{uri} is stated as component {claims['comp']} in format {claims['fmt']}; endpoints are signed with both "
        )
        raise RequestError(text + f"`{wanted}`, firmware with neither", code="bad_endpoints")


def _check_endpoints(uri: str, document: bytes, deployment: str) -> None:
    try:
        endpoints.decode_endpoints(document, deployment)
    except PayloadError as error:
        text = f"{uri} is no document of endpoints ({error.code}): {error.message}; make one with `ota endpoints make`"
        raise RequestError(text, code="bad_endpoints") from None


def _artifact(claims: Mapping[str, Any], token: bytes, locator: Locator) -> Artifact:
    return Artifact(
        sha256=claims["sha256"],
        size_bytes=claims["size"],
        name=claims["name"],
        version=claims["ver"],
        rel=claims["rel"],
        sec=claims["sec"],
        component=claims["comp"],
        hardware=tuple(claims["hw"]),
        format=claims["fmt"],
        min_from=claims["from"],
        statement=token.decode(),
        uri=locator.uri,
        source_version=locator.version,
        leaves=tuple(claims.get("dn", ())),
    )
