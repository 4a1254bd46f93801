"""Application images of the ESP32 family: what is read, what is refused."""

from __future__ import annotations

import struct

import pytest

from tests.images import forge
from tests.images.forge import esp32, facts, faults, filled, flipped, found, put, secure_boot, warnings


def test_a_good_image_says_what_it_is() -> None:
    image = esp32(secure=3, least=102)
    findings = found(image)
    assert (findings.format, findings.chip, findings.version) == ("esp32", "esp32s3", "2.1.0")
    assert (findings.security_version, findings.size_bytes) == (3, len(image))
    assert (findings.faults, findings.warnings) == ((), ())
    assert facts(image) == {
        "flash mode": "DIO",
        "lowest chip revision": "1.2",
        "project": "door",
        "built": "Nov 21 2026 12:00:00",
        "ESP-IDF": "v5.3",
        "ELF SHA-256": "11" * 32,
        "segments": "3",
        "image SHA-256": image[-32:].hex(),
        "signature": "none",
    }


@pytest.mark.parametrize(
    ("number", "name"), [(0, "esp32"), (2, "esp32s2"), (5, "esp32c3"), (9, "esp32s3"), (18, "esp32p4")]
)
def test_the_chip_is_named(number: int, name: str) -> None:
    assert found(esp32(number)).chip == name
    assert faults(esp32(number)) == []


def test_a_chip_that_nobody_knows_is_refused() -> None:
    assert faults(esp32(77)) == ["unknown_chip"]
    assert found(esp32(77)).chip == "chip-77"


def test_every_changed_byte_is_noticed() -> None:
    image = esp32()
    for at in range(24, len(image)):
        assert faults(flipped(image, at)), at


@pytest.mark.parametrize("length", [40, 300, 330, 400])
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    assert faults(esp32()[:length]) == ["truncated"]


def test_a_changed_segment_breaks_the_checksum_and_the_hash() -> None:
    assert faults(flipped(esp32(), 0x140)) == ["checksum", "hash"]
    assert faults(flipped(esp32(), -1)) == ["hash"]


def test_an_image_without_a_hash_is_looked_at() -> None:
    image = esp32(hashed=False)
    assert (faults(image), warnings(image)) == ([], ["no_hash"])
    assert faults(flipped(image, 0x140)) == ["checksum"]


@pytest.mark.parametrize("count", [0, 17])
def test_an_impossible_number_of_segments_is_no_image(count: int) -> None:
    assert found(put(esp32(), 1, bytes([count]))).format == "raw"


def test_a_segment_of_an_odd_length_is_refused() -> None:
    assert faults(put(esp32(), 28, struct.pack("<I", 255))) == ["bad_segment"]


def test_a_bootloader_is_not_an_application() -> None:
    assert faults(forge.bootloader()) == ["no_app_descriptor"]
    assert found(forge.bootloader()).chip == "esp32s3"


@pytest.mark.parametrize(("bootloader_at", "table_at"), [(0, 0x8000), (0x1000, 0x8000), (0x2000, 0x10000), (0, 0x9000)])
def test_a_merged_image_is_refused(bootloader_at: int, table_at: int) -> None:
    data = forge.merged(bootloader_at, table_at)
    assert faults(data) == ["merged_image"]


def test_an_image_behind_nothing_is_one_for_a_programmer() -> None:
    assert faults(filled(b"", 0x1000, b"\xff") + esp32()) == ["merged_image"]


def test_a_table_within_the_application_does_not_make_it_merged() -> None:
    within = filled(b"", 0x8000 - 0x180, b"\0") + forge.table()
    image = esp32(segments=(b"\0" * (0x8000 - 24 - 8 - 256 - 8) + forge.table(), within))
    assert image[0x8000:0x8002] == b"\xaa\x50"
    assert faults(image) == []


def test_the_version_of_the_core_is_not_that_of_the_sketch() -> None:
    image = esp32(first=forge.descriptor("esp-idf: v4.4.7 38eeba213a", "arduino-lib-builder"))
    assert (faults(image), warnings(image)) == ([], ["builder_version"])


def test_hostile_text_stays_short_and_is_text() -> None:
    image = esp32(first=forge.descriptor("\x1b[2J").replace(b"door", b"\xff\xfe\xfd\xfc"))
    assert found(image).version == "\x1b[2J"
    assert facts(image)["project"] == "\ufffd" * 4


@pytest.mark.parametrize("more", [1, 16, 60, 511, 513])
def test_bytes_behind_the_image_are_refused(more: int) -> None:
    assert faults(esp32() + b"x" * more) == ["trailing_bytes"]


def test_known_signatures_behind_the_image_are_named() -> None:
    v1 = esp32() + bytes(4) + b"s" * 64
    assert (faults(v1), facts(v1)["signature"]) == ([], "Secure Boot v1, not checked")
    assert faults(v1 + b"p" * 12) == []
    arduino = esp32() + b"s" * 512
    assert (faults(arduino), found(arduino).format) == ([], "esp32-arduino")


def test_secure_boot_v2_is_checked_and_its_key_named() -> None:
    image = esp32()
    blocks = (forge.rsa_block(forge.padded(image)), forge.ecdsa_block(forge.padded(image)))
    data = secure_boot(image, *blocks, forge.ecdsa_block(forge.padded(image), 3))
    assert faults(data) == []
    named = [value for name, value in found(data).facts if name == "signature"]
    assert [value.split(",")[1] for value in named] == [" RSA-3072", " P-256", " P-384"]
    assert len({value.rsplit(" ", 1)[1] for value in named}) == 3


def test_a_curve_that_we_cannot_check_is_a_warning() -> None:
    data = secure_boot(esp32(), forge.ecdsa_block(forge.padded(esp32()), 1))
    assert (faults(data), warnings(data)) == ([], ["signature_unchecked"])


@pytest.mark.parametrize("make", [forge.rsa_block, forge.ecdsa_block, lambda image: forge.ecdsa_block(image, 3)])
def test_a_signature_that_does_not_hold_is_refused(make: object) -> None:
    assert callable(make)
    block = make(forge.padded(esp32()))
    at = 820 if block[1] == 2 else 160
    forged = forge.sealed(flipped(block, at)[:1196])
    assert faults(secure_boot(esp32(), forged)) == ["signature"]


def test_a_key_that_is_none_is_refused() -> None:
    block = forge.rsa_block(forge.padded(esp32()))
    assert faults(secure_boot(esp32(), forge.sealed(put(block, 36, bytes(384))[:1196]))) == ["signature"]
    point = forge.ecdsa_block(forge.padded(esp32()))
    assert faults(secure_boot(esp32(), forge.sealed(put(point, 37, b"\xff" * 64)[:1196]))) == ["signature"]


def test_a_block_for_other_bytes_is_refused() -> None:
    other = forge.rsa_block(forge.padded(esp32(2)))
    assert faults(secure_boot(esp32(), other)) == ["signature_digest"]


def test_a_sector_without_a_whole_block_is_refused() -> None:
    broken = flipped(forge.ecdsa_block(forge.padded(esp32())), 1197)
    assert faults(secure_boot(esp32(), broken)) == ["signature_block"]


def test_what_follows_the_first_broken_block_is_not_read() -> None:
    good = forge.ecdsa_block(forge.padded(esp32()))
    data = secure_boot(esp32(), good, flipped(good, 1197), flipped(good, 4))
    assert faults(data) == []


def test_padding_is_nothing_but_padding() -> None:
    data = secure_boot(esp32(), forge.ecdsa_block(forge.padded(esp32())))
    assert faults(flipped(data, len(esp32()) + 3)) == ["trailing_bytes", "signature_digest"]
    assert faults(forge.padded(esp32())) == ["unsigned"]
