"""What the importer makes of firmware images: refused where they are declared, warned of where they are not."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from orchestrator.adapters.files import FileSource
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.model import Artifact
from orchestrator.core.trigger import statement_claims
from orchestrator.engine.importer import examine
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.images import Fault, Findings, Intake
from orchestrator.verifier import ARTIFACT, PublicKey
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.images import forge

NOW = 1_800_000_000.0
SIGNER = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
KEYS = {SIGNER.kid: PublicKey(SIGNER.kid, ARTIFACT, SIGNER.x, SIGNER.y)}
LARGE = forge.esp32(segments=(bytes(3 << 20),))


async def import_image(folder: Path, data: bytes, declared: str) -> Artifact:
    digest = encode64(hashlib.sha256(data).digest())
    described = Artifact(digest, len(data), "pump", "1.0", 7, 0, "main", ("pump-a",), declared, 0, "", "", None)
    signed = signing_input(TokenType.ARTIFACT, SIGNER.kid, statement_claims(described, issued_at=NOW - 60))
    path = folder / "fw.bin"
    path.write_bytes(data)
    path.with_name("fw.bin.statement").write_bytes(assemble(signed, SIGNER.sign(signed)))
    source = FileSource((folder,))
    return await examine(source, path.as_uri(), KEYS, limit_bytes=1 << 24, deployment="test", clock=lambda: NOW)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (forge.esp32(), "esp32"),
        (LARGE, "esp32"),
        (forge.esp32(), "raw"),
        (forge.signed(forge.esp8266(), legacy=True), "esp8266-legacy"),
        (forge.swu(), "swu"),
        (b"anything", "raw"),
        (b"anything", "our-own-format"),
    ],
)
async def test_good_images_are_imported_in_silence(tmp_path: Path, data: bytes, declared: str) -> None:
    with capture_logs() as logs:
        assert (await import_image(tmp_path, data, declared)).format == declared
    assert logs == []


@pytest.mark.parametrize(
    ("data", "declared", "hint"),
    [
        (forge.flipped(forge.esp32(), -1), "esp32", "the SHA-256 at"),
        (forge.flipped(LARGE, 1 << 20), "esp32", "the checksum at"),
        (forge.merged(0x1000), "esp32", "merged image for a programmer"),
        (forge.esp8266(), "esp32", "its bytes are esp8266"),
        (b"text", "mcuboot", "its bytes are nothing that is known"),
        (forge.uf2(), "pico", "its bytes are uf2"),
        (forge.compressed(forge.signed(forge.esp8266())), "esp8266", "compress first, then sign"),
    ],
)
async def test_an_image_with_faults_is_refused_where_it_is_declared(
    tmp_path: Path, data: bytes, declared: str, hint: str
) -> None:
    with pytest.raises(RequestError) as refused:
        await import_image(tmp_path, data, declared)
    assert refused.value.code == "bad_image"
    assert refused.value.message.startswith(f"{(tmp_path / 'fw.bin').as_uri()} is no {declared} image")
    assert hint in refused.value.message


async def test_where_nothing_is_declared_faults_are_warnings(tmp_path: Path) -> None:
    with capture_logs() as logs:
        await import_image(tmp_path, forge.flipped(forge.esp32(), -1), "raw")
    [logged] = logs
    seen: dict[str, Any] = {key: logged[key] for key in ("event", "log_level", "code", "format")}
    assert seen == {"event": "artifact.doubtful", "log_level": "warning", "code": "hash", "format": "esp32"}


async def test_warnings_of_a_good_image_are_logged_and_kept(tmp_path: Path) -> None:
    with capture_logs() as logs:
        found = await import_image(tmp_path, forge.esp32(hashed=False), "esp32")
    assert [(entry["event"], entry["code"]) for entry in logs] == [("artifact.doubtful", "no_hash")]
    [remark] = found.remarks
    assert remark.code == "no_hash"
    assert f"{remark.text}; {remark.remedy}" == logs[0]["reason"]


@pytest.mark.parametrize(
    ("data", "declared", "recognised", "codes"),
    [
        (forge.esp32(), "esp32", "esp32", []),
        (forge.esp32(), "raw", "esp32", []),
        (forge.flipped(forge.esp32(), -1), "raw", "esp32", ["hash"]),
        (forge.esp32(), "vendor-7", "esp32", []),
        (b"anything", "raw", "raw", []),
    ],
)
async def test_what_is_recognised_is_kept_whatever_is_declared(
    tmp_path: Path, data: bytes, declared: str, recognised: str, codes: list[str]
) -> None:
    found = await import_image(tmp_path, data, declared)
    assert (found.format, found.recognised) == (declared, recognised)
    assert [item.code for item in found.remarks] == codes


async def test_of_very_many_remarks_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(Fault(f"code_{at}", "odd", "look at it") for at in range(64))
    monkeypatch.setattr(Intake, "findings", lambda _: Findings("esp32", 1, warnings=many))
    found = await import_image(tmp_path, forge.esp32(), "esp32")
    assert [item.code for item in found.remarks] == [f"code_{at}" for at in range(16)]


async def test_without_room_it_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UnavailableError, match="make room in the temporary folder"):
        await import_image(tmp_path, LARGE, "esp32")


@pytest.mark.parametrize(
    ("data", "declared", "word"),
    [
        (forge.signed(forge.esp8266()), "esp8266", "esp8266"),
        (forge.signed(forge.esp8266(), legacy=True), "esp8266-legacy", "esp8266-legacy"),
        (forge.signed(forge.esp8266()), "raw", "esp8266"),
        (forge.signed(forge.esp8266(), word=260), "raw", ""),
        (forge.esp8266(), "esp8266", ""),
        (forge.swu(), "swu", "swupdate"),
        (forge.raucb(), "raw", "rauc"),
        (forge.mcuboot(), "mcuboot", "mcuboot"),
        (b"anything", "raw", ""),
    ],
)
async def test_the_signature_of_an_image_is_kept(tmp_path: Path, data: bytes, declared: str, word: str) -> None:
    assert (await import_image(tmp_path, data, declared)).signature == word
