"""Images of the ESP8266: plain, signed, compressed, and the orders of both that break a device."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.errors import RequestError
from orchestrator.images import gzipped, load_key
from orchestrator.images.checksums import crc32_mpeg2, xor_of
from tests.images import forge
from tests.images.forge import compressed, esp8266, facts, faults, flipped, found, put, rsa_key, signed, warnings

PUBLIC = rsa_key(2048).public_key()


def test_a_good_image_says_what_it_is() -> None:
    findings = found(esp8266())
    assert (findings.format, findings.chip, findings.version) == ("esp8266", "esp8266", "")
    assert (findings.faults, findings.warnings) == ((), ())
    assert facts(esp8266()) == {
        "flash mode": "DIO",
        "flash size": "4 MiB",
        "CRC": esp8266()[0x1014:0x1018][::-1].hex(),
        "signature": "none",
    }


def test_checksums_are_those_of_the_chips() -> None:
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7
    for data in (b"", b"a", b"abc" * 77, bytes(range(256))):
        assert crc32_mpeg2(data) == forge.mpeg2(data)
        assert xor_of(data) ^ 0xEF == forge.xor(data)


def test_every_changed_byte_of_the_application_is_noticed() -> None:
    image = esp8266()
    assert [at for at in range(0x1000, len(image)) if not faults(flipped(image, at))] == []


def test_a_changed_byte_names_what_does_not_hold() -> None:
    assert faults(flipped(esp8266(), 0x14)) == ["checksum", "crc"]
    assert faults(flipped(esp8266(), 0x800)) == ["crc"]
    assert faults(flipped(esp8266(), 0x1100)) == ["checksum", "crc"]
    assert faults(flipped(esp8266(), 0x1014)) == ["checksum", "crc"][1:]
    assert faults(flipped(esp8266(), 0x1010)) == ["crc"]


def test_an_old_core_has_no_crc() -> None:
    assert (faults(esp8266(old=True)), warnings(esp8266(old=True))) == ([], ["no_crc"])


@pytest.mark.parametrize("length", [0x1001, 0x1100, 0x134F])
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    assert faults(esp8266()[:length]) == ["truncated"]


def test_an_image_for_another_bootloader_is_refused() -> None:
    sdk = struct.pack("<BBBBI", 0xEA, 4, 0, 0, 0x40100004) + struct.pack("<II", 0, 16) + bytes(16)
    assert faults(sdk) == ["not_arduino"]
    assert faults(esp8266()[:0x1000]) == ["not_arduino"]
    assert faults(put(esp8266(), 0x1001, b"\0")) == ["bad_segment"]


@pytest.mark.parametrize("bits", [2048, 4096])
def test_a_signed_image_is_told_by_the_length_behind_it(bits: int) -> None:
    data = signed(esp8266(), bits)
    assert faults(data) == []
    assert facts(data)["signature"] == f"{bits // 8} bytes of RSA behind the payload"


def test_the_form_of_the_signature_shows_with_the_key() -> None:
    now, before = signed(esp8266()), signed(esp8266(), legacy=True)
    assert (found(now, PUBLIC).format, faults(now, PUBLIC)) == ("esp8266", [])
    assert (found(before, PUBLIC).format, faults(before, PUBLIC)) == ("esp8266-legacy", [])
    assert (found(before).format, faults(before)) == ("esp8266", [])


@pytest.mark.parametrize("data", [signed(esp8266(), 4096), flipped(signed(esp8266()), -20)])
def test_a_signature_of_another_key_or_over_other_bytes_is_refused(data: bytes) -> None:
    assert faults(data, PUBLIC) == ["signature"]


def test_a_length_that_counts_itself_is_refused() -> None:
    assert faults(signed(esp8266(), word=260)) == ["trailer_length"]


@pytest.mark.parametrize("behind", [b"x", b"\0\1\0\0", b"y" * 256, b"z" * 300 + b"\0\1\0\0"])
def test_other_bytes_behind_the_image_are_refused(behind: bytes) -> None:
    assert faults(esp8266() + behind) == ["trailing_bytes"]


def test_a_compressed_image_is_what_it_unpacks_to() -> None:
    data = compressed(esp8266())
    findings = found(data)
    assert (findings.format, findings.chip, findings.faults, findings.warnings) == ("esp8266", "esp8266", (), ())
    assert facts(data)["compressed"] == f"gzip, {len(esp8266())} bytes unpacked"
    assert facts(data)["signature"] == "none"


def test_compressed_then_signed_is_for_those_that_enforce_it() -> None:
    data = signed(compressed(esp8266()))
    assert (faults(data, PUBLIC), warnings(data)) == ([], ["gzip_signed"])
    legacy = signed(compressed(esp8266()), legacy=True)
    assert found(legacy, PUBLIC).format == "esp8266-legacy"


def test_signed_then_compressed_is_refused() -> None:
    assert faults(compressed(signed(esp8266()))) == ["signed_then_gzip"]
    assert faults(compressed(signed(forge.rp2040()))) == ["signed_then_gzip"]


@pytest.mark.parametrize("behind", [b"\0", b"x" * 256, compressed(b"more"), b"y" * 256 + b"\4\1\0\0"])
def test_bytes_behind_gzip_are_refused(behind: bytes) -> None:
    assert faults(compressed(esp8266()) + behind)[0] in ("gzip_trailing_bytes", "trailer_length")
    assert len(faults(compressed(esp8266()) + behind)) == 1


def test_gzip_that_does_not_hold_is_refused() -> None:
    data = compressed(esp8266())
    assert faults(flipped(data, -1)) == ["bad_gzip"]
    assert faults(flipped(data, -6)) == ["bad_gzip"]
    assert faults(data[:-9]) == ["truncated"]


def test_a_changed_image_inside_gzip_is_refused() -> None:
    assert faults(compressed(flipped(esp8266(), 0x1100))) == ["checksum", "crc"]
    assert faults(compressed(esp8266()[:0x1100])) == ["truncated"]


def test_gzip_is_not_for_the_esp32() -> None:
    assert faults(compressed(forge.esp32())) == ["gzip_on_esp32"]
    assert found(compressed(forge.esp32(secure=4))).security_version == 4


def test_gzip_of_anything_else_is_nothing_that_we_know() -> None:
    assert found(compressed(b"text" * 999)).format == "raw"
    assert found(b"\x1f\x8b" + b"\0" * 99).format == "raw"


def test_unpacking_ends_where_no_device_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "MOST_INFLATED_BYTES", 1 << 21)
    assert faults(compressed(esp8266() + bytes(3 << 20))) == ["gzip_too_large"]


def test_only_a_key_that_devices_know_is_a_key() -> None:
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert load_key(PUBLIC.public_bytes(*form)) == PUBLIC
    long = ec.derive_private_key(7, ec.SECP521R1()).public_key().public_bytes(*form)
    weak = rsa_key(1024).public_key().public_bytes(*form)
    for pem in (long, weak, b"", b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(RequestError):
            load_key(pem)
