"""Images for MCUboot."""

from __future__ import annotations

import struct

import pytest

from tests.images import forge
from tests.images.forge import facts, faults, flipped, found, mcuboot, put, warnings

PROTECTED = ((0x50, struct.pack("<I", 7)), (0x40, struct.pack("<B3xBBHI", 1, 2, 0, 5, 0)))
TRAILER = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")


def test_a_good_image_says_what_it_is() -> None:
    image = mcuboot(protected=PROTECTED)
    findings = found(image)
    assert (findings.format, findings.chip, findings.version) == ("mcuboot", "", "1.2.3+4")
    assert (findings.security_version, findings.faults, findings.warnings) == (7, (), ())
    assert facts(image)["needs"] == "image 1 at 2.0.5 or later"
    assert facts(image)["signature"] == "ECDSA, not checked"
    assert facts(image)["key hash"] == (b"k" * 32).hex()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_every_changed_byte_that_is_hashed_is_noticed(algorithm: str) -> None:
    image = mcuboot(protected=PROTECTED, algorithm=algorithm)
    end = 512 + 400 + struct.unpack_from("<H", image, 10)[0]
    for at in (4, 20, 600, 512 + 400 - 1, end - 1):
        assert faults(flipped(image, at)) == ["hash"], at


def test_an_image_without_a_hash_is_refused() -> None:
    assert faults(mcuboot(algorithm="")) == ["no_hash"]


def test_what_is_not_signed_encrypted_or_not_bootable_is_looked_at() -> None:
    assert warnings(mcuboot(entries=())) == ["unsigned"]
    encrypted = mcuboot(flags=0x4)
    assert (faults(flipped(encrypted, 600)), warnings(encrypted)) == ([], ["encrypted"])
    assert warnings(mcuboot(flags=0x10)) == ["not_bootable"]


def test_what_follows_the_entries_is_refused() -> None:
    assert faults(mcuboot() + b"x") == ["trailing_bytes"]
    assert faults(mcuboot() + b"\xff" * 99 + TRAILER) == ["padded"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (mcuboot()[:40], "truncated"),
        (mcuboot()[:700], "truncated"),
        (mcuboot()[:-1], "truncated"),
        (put(mcuboot(), 8, struct.pack("<H", 16)), "bad_header"),
        (put(mcuboot(), 12, struct.pack("<I", 300)), "bad_entries"),
        (put(mcuboot(), 10, struct.pack("<H", 8)), "bad_entries"),
        (put(mcuboot(protected=PROTECTED), 10, struct.pack("<H", 8)), "bad_entries"),
        (put(mcuboot(), 914, struct.pack("<H", 3)), "bad_entries"),
        (put(mcuboot(), 918, struct.pack("<H", 9999)), "bad_entries"),
        (put(mcuboot(), 914, struct.pack("<H", 42)), "bad_entries"),
    ],
)
def test_impossible_headers_are_refused(data: bytes, code: str) -> None:
    assert faults(data) == [code]


def test_entries_of_unknown_kinds_and_odd_lengths_change_nothing() -> None:
    odd = ((0x50, b"abc"), (0x40, b"x"), (0xA0, b"vendor"))
    assert faults(mcuboot(protected=odd)) == []
    assert found(mcuboot(protected=odd)).security_version is None


def test_forged_images_are_as_long_as_they_say() -> None:
    assert len(mcuboot(entries=())) == 512 + 400 + 4 + 36
    assert forge.mcuboot()[912:914] == b"\x07\x69"
