"""Images for the RP2040 and the RP2350, and UF2."""

from __future__ import annotations

import struct

import pytest

from tests.images import forge
from tests.images.forge import (
    IMAGE_TYPE,
    facts,
    faults,
    flipped,
    found,
    rp2040,
    rp2350,
    rsa_key,
    signed,
    uf2,
    uf2_block,
    warnings,
)


def test_an_image_of_arduino_pico_is_good() -> None:
    findings = found(rp2040())
    assert (findings.format, findings.chip, findings.faults, findings.warnings) == ("pico", "rp2040", (), ())
    assert facts(rp2040())["update loader"] == "of arduino-pico, sketch at 0x3000"


def test_a_changed_second_stage_is_refused() -> None:
    assert faults(flipped(rp2040(), 100)) == ["boot2_crc"]


def test_a_sketch_without_the_update_loader_is_looked_at() -> None:
    assert (faults(rp2040(loader=False)), warnings(rp2040(loader=False))) == ([], ["no_update_loader"])


def test_blocks_in_an_image_for_the_rp2040_say_nothing() -> None:
    image = forge.put(rp2040(), 0x200, forge.picobin(struct.pack("<BBH", 0x03, 2, 0) + b"addr", link=8))
    assert (found(image).chip, faults(image)) == ("rp2040", [])


def test_a_signed_image_is_checked_with_the_key() -> None:
    data = signed(rp2040())
    assert faults(data, rsa_key(2048).public_key()) == []
    assert facts(data)["signature"] == "256 bytes of RSA behind the payload"
    assert faults(flipped(data, 0x3050), rsa_key(2048).public_key()) == ["signature"]


def test_a_pico_never_took_legacy_signatures() -> None:
    assert faults(signed(rp2040(), legacy=True), rsa_key(2048).public_key()) == ["signature"]


def test_an_image_for_the_rp2350_names_chip_and_version() -> None:
    version = struct.pack("<BBBBHHHH", 0x48, 3, 0, 1, 7, 2, 9, 0x4E)
    findings = found(rp2350(IMAGE_TYPE, version))
    assert (findings.format, findings.chip, findings.version, findings.faults) == ("pico", "rp2350", "2.7", ())
    assert findings.security_version == 9
    assert facts(rp2350()) == {"kind": "program", "processor": "Arm", "blocks": "2", "signature": "none"}
    riscv = struct.pack("<BBH", 0x42, 1, 0x9101)
    assert facts(rp2350(riscv))["processor"] == "RISC-V"
    assert facts(rp2350(riscv))["try before you buy"] == "yes"


@pytest.mark.parametrize("to", [0x1800 + 4 * 500, 0x1801, -4])
def test_blocks_that_do_not_come_round_are_refused(to: int) -> None:
    assert faults(rp2350(second_links_to=to))[0] in ("block_loop", "bad_block")


def test_a_loop_without_the_first_block_ends() -> None:
    assert faults(rp2350(second_links_to=0x1800)) == ["block_loop"]


def test_blocks_without_an_image_type_are_refused() -> None:
    assert faults(rp2350(struct.pack("<BBH", 0x03, 2, 0) + b"addr")) == ["no_image_type"]


@pytest.mark.parametrize("at", [0x124, 0x128 + 1, 0x12C + 1, 0x134])
def test_a_broken_first_block_is_no_block(at: int) -> None:
    assert found(flipped(rp2350(), at)).format == "raw"


def test_a_broken_second_block_is_refused() -> None:
    assert faults(flipped(rp2350(), 0x1800)) == ["bad_block"]
    assert faults(rp2350()[:0x1806]) == ["bad_block"]


def test_uf2_is_read_and_warned_of() -> None:
    findings = found(uf2())
    assert (findings.format, findings.chip, findings.faults) == ("uf2", "rp2040", ())
    assert warnings(uf2()) == ["uf2"]
    assert found(uf2(family=0xE48BFF59)).chip == "rp2350"
    assert facts(uf2(family=0x12345678))["families"] == "12345678"


def test_the_block_before_an_rp2350_is_numbered_by_itself() -> None:
    absolute = uf2_block(0, 2, 0xE48BFF57, 0x10FFFF00)
    assert faults(absolute + uf2(family=0xE48BFF59)) == []


def test_comments_and_files_without_a_family_are_read() -> None:
    assert faults(uf2_block(0, 1, 0, 0, flags=1) + uf2()) == []
    assert facts(uf2_block(0, 1, 0, flags=0))["families"] == "none"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (uf2()[:-1], "truncated"),
        (uf2()[:-512], "missing_blocks"),
        (uf2()[512:], "block_order"),
        (uf2_block(0, 2) + uf2_block(0, 2), "block_order"),
        (uf2_block(0, 2) + uf2_block(1, 3), "block_order"),
        (uf2_block(0, 2) + uf2_block(1, 2, at=0x10000200), "gap"),
        (uf2_block(2, 2), "bad_block"),
        (flipped(uf2(), 511), "raw"),
        (flipped(uf2(), 1023), "bad_block"),
        (forge.put(uf2(), 16, struct.pack("<I", 477)), "bad_block"),
        (forge.put(uf2(), 16, bytes(4)), "bad_block"),
        (b"".join(uf2_block(0, 1, family) for family in range(1, 11)), "bad_block"),
    ],
)
def test_blocks_that_are_missing_or_out_of_order_are_refused(data: bytes, code: str) -> None:
    assert (faults(data) or [found(data).format]) == [code]
