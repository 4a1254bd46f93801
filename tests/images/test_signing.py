"""Signatures for devices: made as the updaters take them, checked by the key, hostile trailers refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.targeting import dialect
from orchestrator.errors import RequestError
from orchestrator.images import (
    SIGNABLE,
    SIGNATURES,
    Findings,
    ImageKey,
    ImagePrivateKey,
    arduino_trailer,
    as_signed,
    load_key,
    load_private_key,
    signature_of,
    trailer_for,
)
from tests.images import forge
from tests.images.forge import compressed, esp32, esp8266, found, rp2040, rp2350, rsa_key, signed
from tests.images.updaters import p256_public, p256_updater, pss_updater, word_updater

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "arduino_signatures.json").read_text())
P256 = ec.derive_private_key(77, ec.SECP256R1())
P384 = ec.derive_private_key(77, ec.SECP384R1())


def golden_rsa() -> rsa.RSAPrivateKey:
    p, q = (int(GOLDEN["rsa"][name], 16) for name in "pq")
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    speed = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *speed, public).private_key()


def golden_p256() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(GOLDEN["p256"]["d"], 16), ec.SECP256R1())


def made(folder: Path, data: bytes, word: str, key: ImagePrivateKey, algorithm: str = "sha256") -> bytes:
    path = folder / "fw.bin"
    path.write_bytes(data)
    return data + trailer_for(path, word, key, algorithm=algorithm)


def held(data: bytes, key: ImageKey) -> Findings:
    findings = found(data, key=key)
    assert findings.verified == (not findings.faults), findings
    return findings


# Made by us, taken by devices


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize(
    ("word", "payload"),
    [
        ("esp8266", esp8266()),
        ("esp8266-legacy", esp8266()),
        ("esp8266", compressed(esp8266())),
        ("esp8266-legacy", compressed(esp8266())),
        ("pico", rp2040()),
        ("pico", rp2350()),
        ("pico", compressed(rp2040())),
    ],
)
def test_an_updater_with_a_length_word_takes_it(tmp_path: Path, word: str, payload: bytes, bits: int) -> None:
    key = rsa_key(bits)
    n = key.public_key().public_numbers().n
    legacy = word == "esp8266-legacy"
    data = made(tmp_path, payload, word, key)
    assert len(data) == len(payload) + bits // 8 + 4
    assert word_updater(data, n, legacy=legacy) == payload
    assert word_updater(data, n, legacy=not legacy) is None
    findings = held(data, key.public_key())
    assert (findings.signature, findings.signed_bytes, findings.format) == (word, len(payload), word)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_an_esp32_with_an_rsa_key_takes_it(tmp_path: Path, bits: int, algorithm: str) -> None:
    key, image = rsa_key(bits), esp32()
    data = made(tmp_path, image, "esp32-arduino", key, algorithm)
    n = key.public_key().public_numbers().n
    assert (len(data), data[: len(image)], data[len(image) + bits // 8 :]) == (
        len(image) + 512,
        image,
        bytes(512 - bits // 8),
    )
    assert pss_updater(data, n, algorithm)
    assert not pss_updater(data, n, "sha384" if algorithm == "sha256" else "sha256")
    findings = held(data, key.public_key())
    assert (findings.signature, findings.signed_bytes) == ("esp32-arduino", len(image))
    assert dict(findings.facts)["signature form"] == f"RSA-{bits} over {algorithm}"


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_an_esp32_with_a_key_on_a_curve_takes_it(tmp_path: Path, algorithm: str) -> None:
    data = made(tmp_path, esp32(), "esp32-arduino", P256, algorithm)
    assert p256_updater(data, p256_public(77), algorithm)
    assert not p256_updater(forge.flipped(data, 99), p256_public(77), algorithm)
    for key in (P256, P384):
        findings = held(made(tmp_path, esp32(), "esp32-arduino", key, algorithm), key.public_key())
        assert dict(findings.facts)["signature form"] == f"P-{key.key_size} over {algorithm}"


# Made by OpenSSL


@pytest.mark.parametrize(
    ("word", "payload"), [("esp8266", esp8266()), ("esp8266-legacy", esp8266()), ("pico", rp2040())]
)
def test_equal_bytes_get_the_signature_of_openssl(tmp_path: Path, word: str, payload: bytes) -> None:
    golden = GOLDEN[word]
    assert hashlib.sha256(payload).hexdigest() == golden["payload_sha256"]
    data = made(tmp_path, payload, word, golden_rsa())
    assert data[len(payload) :] == bytes.fromhex(golden["signature"]) + b"\0\1\0\0"


@pytest.mark.parametrize(
    ("name", "key", "form"),
    [
        ("esp32-arduino-rsa-sha256", golden_rsa().public_key(), "RSA-2048 over sha256"),
        ("esp32-arduino-rsa-sha512", golden_rsa().public_key(), "RSA-2048 over sha512"),
        ("esp32-arduino-p256-sha256", golden_p256().public_key(), "P-256 over sha256"),
    ],
)
def test_signatures_of_openssl_are_verified(name: str, key: ImageKey, form: str) -> None:
    assert hashlib.sha256(esp32()).hexdigest() == GOLDEN[name]["payload_sha256"]
    data = esp32() + bytes.fromhex(GOLDEN[name]["signature"]).ljust(512, b"\0")
    findings = held(data, key)
    assert dict(findings.facts)["signature form"] == form
    assert findings.verified
    assert [fault.code for fault in held(forge.flipped(data, 99), key).faults][-1] == "signature"


# What is not signed


@pytest.mark.parametrize(
    ("data", "word", "code", "hint"),
    [
        (signed(esp8266()), "esp8266", "already_signed", "256 bytes of RSA"),
        (signed(compressed(esp8266())), "esp8266", "already_signed", "as the build made it"),
        (signed(rp2040()), "pico", "already_signed", "256 bytes of RSA"),
        (esp32() + b"s" * 512, "esp32-arduino", "already_signed", "512 bytes"),
        (compressed(signed(esp8266())), "esp8266", "bad_image", "compress first, then sign"),
        (compressed(esp8266()) + b"more", "esp8266", "bad_image", "follow the gzip"),
        (compressed(esp8266()) * 2, "esp8266", "bad_image", "another member"),
        (compressed(esp32()), "esp32-arduino", "bad_image", "no updater for the ESP32 takes gzip"),
        (signed(esp8266(), word=260), "esp8266", "bad_image", "counts itself"),
        (forge.flipped(esp8266(), 0x1100), "esp8266", "bad_image", "bytes were changed"),
        (forge.merged(0x1000), "esp32-arduino", "bad_image", "for a programmer"),
        (forge.uf2(), "pico", "bad_image", "its bytes are uf2"),
        (esp32(), "esp8266", "bad_image", "its bytes are esp32"),
        (b"text", "pico", "bad_image", "nothing that is known"),
        (b"text", "raw", "not_signable", "--format with one of esp8266"),
        (forge.mcuboot(), "mcuboot", "not_signable", "imgtool sign"),
        (esp32(), "esp32", "not_signable", "espsecure sign-data"),
    ],
)
def test_what_no_device_should_get_is_not_signed(tmp_path: Path, data: bytes, word: str, code: str, hint: str) -> None:
    with pytest.raises(RequestError) as refused:
        made(tmp_path, data, word, rsa_key(2048))
    assert refused.value.code == code
    assert hint in refused.value.message


def test_keys_and_hashes_that_a_device_does_not_know_are_refused(tmp_path: Path) -> None:
    for word in SIGNABLE:
        if word == "esp32-arduino":
            continue
        data = rp2040() if word == "pico" else esp8266()
        for key, algorithm, code in ((P256, "sha256", "wrong_key"), (rsa_key(2048), "sha384", "wrong_hash")):
            with pytest.raises(RequestError) as refused:
                made(tmp_path, data, word, key, algorithm)
            assert refused.value.code == code
    with pytest.raises(RequestError, match="md5"):
        made(tmp_path, esp32(), "esp32-arduino", P256, "md5")


# Keys


def pem_of(key: Any, encryption: Any = None) -> bytes:
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    assert isinstance(data, bytes)
    return data


def test_private_keys_are_those_that_devices_know() -> None:
    for key in (rsa_key(2048), P256, P384):
        loaded = load_private_key(pem_of(key))
        assert loaded.public_key() == key.public_key()
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert load_key(key.public_key().public_bytes(*form)) == key.public_key()
    with pytest.raises(RequestError) as refused:
        load_private_key(pem_of(P256, BestAvailableEncryption(b"x")))
    assert refused.value.code == "encrypted_key"
    weak, long = rsa_key(1024), ec.derive_private_key(7, ec.SECP521R1())
    other = ed25519.Ed25519PrivateKey.generate()
    for pem in (pem_of(weak), pem_of(long), pem_of(other), b"", b"-----BEGIN PRIVATE KEY-----\nAA==\n"):
        with pytest.raises(RequestError) as refused:
            load_private_key(pem)
        assert refused.value.code == "bad_key"


# Hostile trailers

RSA2048 = golden_rsa()
PAYLOADS = (esp8266(), compressed(esp8266()))
TAKEN = {
    "esp8266": bytes.fromhex(GOLDEN["esp8266"]["signature"]) + b"\0\1\0\0",
    "esp8266-legacy": bytes.fromhex(GOLDEN["esp8266-legacy"]["signature"]) + b"\0\1\0\0",
}


def test_a_number_beyond_the_modulus_is_no_signature() -> None:
    public, room = RSA2048.public_key(), (1 << 2048) - RSA2048.public_key().public_numbers().n
    for number in range(1000):
        digest = hashlib.sha256(bytes([number % 256, number // 256])).digest()
        signature = arduino_trailer.trailer_of(digest, RSA2048, legacy=False)[:256]
        assert arduino_trailer.kind_of(signature, digest, public) == arduino_trailer.CURRENT
        value = int.from_bytes(signature, "big")
        if value < room:
            again = (value + public.public_numbers().n).to_bytes(256, "big")
            assert arduino_trailer.kind_of(again, digest, public) == arduino_trailer.FOREIGN
            return
    pytest.fail("no signature leaves room for another multiple")


@st.composite
def trailers(draw: st.DrawFn) -> bytes:
    """What may stand behind an image: good trailers with changes, and lengths and padding of any kind."""
    lengths = st.sampled_from([0, 1, 4, 255, 256, 260, 384, 512, 516, 0xFFFFFFFF])
    good = [*TAKEN.values()] + [
        bytes.fromhex(GOLDEN[name]["signature"]).ljust(512, b"\0") for name in GOLDEN if name.startswith("esp32-")
    ]
    match draw(st.integers(0, 3)):
        case 0:
            data = draw(st.sampled_from(good))
            return forge.put(data, draw(st.integers(0, len(data) - 1)), draw(st.binary(min_size=1, max_size=3)))[
                : len(data)
            ]
        case 1:
            body = draw(st.binary(max_size=80)).ljust(draw(lengths) % 1024, draw(st.sampled_from([b"\0", b"\xff"])))
            return body + struct.pack("<I", draw(lengths))
        case 2:
            der = (
                b"\x30"
                + bytes([draw(st.integers(0, 255)), 2, draw(st.integers(0, 255))])
                + draw(st.binary(max_size=90))
            )
            return der.ljust(512, b"\0")
        case _:
            return draw(st.binary(max_size=16)) + draw(st.sampled_from(good))


@settings(max_examples=300, deadline=None)
@given(trailers())
def test_a_word_trailer_holds_only_if_a_device_takes_it(trailer: bytes) -> None:
    n = RSA2048.public_key().public_numbers().n
    for payload in PAYLOADS:
        data = payload + trailer
        findings = found(data, RSA2048.public_key())
        now, before = word_updater(data, n) == payload, word_updater(data, n, legacy=True) == payload
        assert findings.verified == (now or before)
        assert (findings.signature == "esp8266-legacy") == before
        assert findings.verified or findings.faults or not trailer


@settings(max_examples=300, deadline=None)
@given(trailers(), st.booleans())
def test_a_padded_trailer_holds_only_if_it_is_the_owners(trailer: bytes, curve: bool) -> None:
    key: ImageKey = golden_p256().public_key() if curve else RSA2048.public_key()
    data = esp32() + trailer
    findings = found(data, key)
    good = {bytes.fromhex(GOLDEN[name]["signature"]).ljust(512, b"\0") for name in GOLDEN if name.startswith("esp32-")}
    assert not findings.verified or trailer in good
    assert findings.verified or findings.faults or not trailer
    assert signature_of(findings, "esp32") == ("esp32-arduino" if findings.verified else "")
    found(data)


@pytest.mark.parametrize(
    "trailer",
    [
        bytes(512),
        b"\1".ljust(512, b"\0"),
        b"s" * 200 + bytes(312),
        b"s" * 300 + bytes(212),
        b"\x30\6\2\1\1\2\1\1x".ljust(512, b"\0"),
        b"\x30\6\2\0\2\2\1\1".ljust(512, b"\0"),
        b"\x30\x80\2\1\1\2\1\1\0\0".ljust(512, b"\0"),
        b"\x30\7\2\1\1\2\1\1\1".ljust(512, b"\0"),
    ],
)
def test_512_bytes_that_are_no_signature_are_a_fault(trailer: bytes) -> None:
    findings = found(esp32() + trailer)
    assert [fault.code for fault in findings.faults] == ["signature"]
    assert findings.signature == ""


def test_what_follows_a_signature_is_zeros() -> None:
    for name, key in (("rsa", RSA2048.public_key()), ("p256", golden_p256().public_key())):
        good = bytes.fromhex(GOLDEN[f"esp32-arduino-{name}-sha256"]["signature"]).ljust(512, b"\0")
        assert found(esp32() + good, key).verified
        assert not found(esp32() + good[:-1] + b"\1", key).verified


def test_a_signature_that_ends_in_zeros_is_recognised(tmp_path: Path) -> None:
    """The hash of the image steers the last byte: one image in 256 has a signature that ends in zero."""
    for number in range(4096):
        image = esp32(segments=(struct.pack("<I", number),))
        data = made(tmp_path, image, "esp32-arduino", P256)
        if data[len(image) + 1 + data[len(image) + 1]] == 0:
            assert held(data, P256.public_key()).verified
            assert found(data).signature == "esp32-arduino"
            return
    pytest.fail("no signature ends in zero")


def test_a_key_of_another_kind_made_nothing_here() -> None:
    for data in (signed(esp8266()), signed(rp2040()), signed(compressed(esp8266()))):
        assert [fault.code for fault in held(data, P256.public_key()).faults] == ["signature"]
    legacy = signed(rp2040(), legacy=True)
    assert [fault.code for fault in held(legacy, rsa_key(2048).public_key()).faults] == ["signature"]


# Which signature an image has


SEALED = forge.secure_boot(esp32(), forge.rsa_block(forge.padded(esp32())), forge.ecdsa_block(forge.padded(esp32())))


@pytest.mark.parametrize(
    ("data", "declared", "word"),
    [
        (esp32(), "esp32", ""),
        (SEALED, "esp32", "esp32-secure-boot-v2"),
        (SEALED, "raw", "esp32-secure-boot-v2"),
        (esp32() + bytes(4) + b"s" * 64, "esp32", ""),
        (esp32() + b"s" * 512, "esp32-arduino", "esp32-arduino"),
        (esp32() + b"s" * 512, "esp32", "esp32-arduino"),
        (esp8266(), "esp8266", ""),
        (signed(esp8266()), "esp8266", "esp8266"),
        (signed(esp8266()), "esp8266-legacy", "esp8266-legacy"),
        (signed(esp8266()), "raw", "esp8266"),
        (signed(compressed(esp8266())), "esp8266", "esp8266"),
        (compressed(signed(esp8266())), "raw", ""),
        (signed(esp8266(), word=260), "raw", ""),
        (signed(rp2040()), "pico", "pico"),
        (signed(rp2040()), "esp8266", ""),
        (rp2350(), "pico", ""),
        (forge.uf2(), "uf2", ""),
        (forge.mcuboot(), "mcuboot", "mcuboot"),
        (forge.mcuboot(entries=()), "mcuboot", ""),
        (forge.mcuboot(entries=((0x22, b""),)), "mcuboot", ""),
        (forge.flipped(forge.mcuboot(), 600), "raw", ""),
        (forge.swu(), "swu", "swupdate"),
        (forge.cpio(forge.member("sw-description", forge.described("a=1;"))), "swu", ""),
        (forge.raucb(), "raucb", "rauc"),
        (forge.verity(), "raucb", "rauc"),
        (forge.raucb(forge.cms(kind=3)), "raucb", "rauc"),
        (b"text", "raw", ""),
    ],
)
def test_the_signature_is_named_by_its_form(data: bytes, declared: str, word: str) -> None:
    assert signature_of(found(data), declared) == word


def test_the_words_are_those_that_devices_enforce() -> None:
    assert set(SIGNATURES) == set(dialect.SIGNATURES)
    assert set(SIGNABLE) < set(SIGNATURES)


def test_what_a_signature_covers_is_said() -> None:
    assert found(SEALED).signed_bytes == len(forge.padded(esp32()))
    assert found(forge.raucb()).signed_bytes == 4096
    assert found(forge.verity()).signed_bytes == 0
    assert found(forge.mcuboot()).signed_bytes == 512 + 400
    protected = ((0x50, struct.pack("<I", 7)),)
    assert found(forge.mcuboot(protected=protected)).signed_bytes == 512 + 400 + 12


def test_secure_boot_names_its_keys_and_is_held_against_one() -> None:
    findings = found(SEALED)
    assert [len(digest) for digest in findings.key_digests] == [64, 64]
    assert not findings.verified
    for key in (rsa_key(3072), P256):
        assert found(SEALED, key.public_key()).verified
    for other in (rsa_key(2048), P384):
        findings = found(SEALED, other.public_key())
        assert not findings.verified
        assert [fault.code for fault in as_signed(findings)] == ["unverified"]


def test_a_block_that_does_not_hold_names_no_key() -> None:
    block = forge.rsa_block(forge.padded(esp32()))
    forged = forge.secure_boot(esp32(), forge.sealed(forge.flipped(block, 820)[:1196]))
    findings = found(forged, rsa_key(3072).public_key())
    assert (findings.signature, findings.key_digests, findings.verified) == ("", (), False)


def test_the_key_of_an_mcuboot_image_is_named() -> None:
    assert found(forge.mcuboot()).key_digests == ((b"k" * 32).hex(),)


def test_an_image_that_the_key_did_not_sign_is_no_answer_to_it() -> None:
    key = RSA2048.public_key()
    assert [fault.code for fault in as_signed(found(esp8266(), key))] == ["unverified"]
    assert [fault.code for fault in as_signed(found(forge.mcuboot(), key))] == ["unverified"]
    assert as_signed(found(esp8266() + TAKEN["esp8266"], key)) == ()
    other = found(signed(esp8266()), key)
    assert ([fault.code for fault in other.faults], as_signed(other)) == (["signature"], ())


def test_a_cms_that_nobody_signed_is_refused() -> None:
    oid = bytes.fromhex("06092a864886f70d0107")
    inner = forge.der(0x30, oid + b"\1")
    for last in (forge.der(0x31), forge.der(0x30, b"\4\1x"), b""):
        parts = forge.der(0x30, b"\2\1\3", forge.der(0x31), inner, last)
        findings = found(forge.raucb(forge.der(0x30, oid + b"\2", forge.der(0xA0, parts))))
        assert ([fault.code for fault in findings.faults], findings.signature) == (["unsigned"], "")
    many = forge.der(0x30, b"\2\1\3" * 20, forge.der(0x31, b"\4\1x"))
    findings = found(forge.raucb(forge.der(0x30, oid + b"\2", forge.der(0xA0, many))))
    assert findings.signature == ""
