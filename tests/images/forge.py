"""Images made by the rules of their formats, with nothing of the parsers."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from orchestrator.images import Findings, ImageKey, inspect

SETTINGS = """
software = {
  version = "1.0.7"; /* of the whole */
  hardware-compatibility: [ "1.0", "1.2" ];
  stable : { copy1 : { images: ( { filename = "root.ext4"; sha256 = "%s"; device = "/dev/a"; } ); }; };
  scripts: ( { filename = "post.sh"; type = "shellscript"; } );  # runs last
};
"""
MANIFEST = """[update]
compatible=Test Config
version=2024.03-1

[bundle]
format=verity
verity-hash=00
verity-size=4096

[image.rootfs]
sha256=00
"""


def found(data: bytes, key: ImageKey | None = None) -> Findings:
    """Return what is found in bytes."""
    return inspect(io.BytesIO(data), key=key)


def faults(data: bytes, key: ImageKey | None = None) -> list[str]:
    """Return the codes of the faults."""
    return [fault.code for fault in found(data, key).faults]


def warnings(data: bytes) -> list[str]:
    """Return the codes of the warnings."""
    return [fault.code for fault in found(data).warnings]


def facts(data: bytes, key: ImageKey | None = None) -> dict[str, str]:
    """Return the facts by name."""
    return dict(found(data, key).facts)


def flipped(data: bytes, at: int, bits: int = 1) -> bytes:
    """Return the bytes with one of them changed."""
    changed = bytearray(data)
    changed[at] ^= bits
    return bytes(changed)


def put(data: bytes, at: int, part: bytes) -> bytes:
    """Return the bytes with a part overwritten."""
    return data[:at] + part + data[at + len(part) :]


def filled(data: bytes, length: int, byte: bytes = b"\0") -> bytes:
    """Return the bytes, and others up to a length."""
    return data + byte * (length - len(data))


def xor(data: bytes) -> int:
    """Return the checksum of segments."""
    return reduce(lambda total, byte: total ^ byte, data, 0xEF)


def mpeg2(data: bytes) -> int:
    """Return the CRC-32/MPEG-2, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
    return crc


# The ESP32 family


def descriptor(version: str = "2.1.0", project: str = "door", secure: int = 0) -> bytes:
    """Return `esp_app_desc_t`."""
    strings = [(version, 32), (project, 32), ("12:00:00", 16), ("Nov 21 2026", 16), ("v5.3", 32)]
    fields = b"".join(text.encode().ljust(length, b"\0") for text, length in strings)
    head = struct.pack("<II8x", 0xABCD5432, secure) + fields + b"\x11" * 32
    return head.ljust(256, b"\0")


def esp32(
    chip: int = 9,
    first: bytes | None = None,
    *,
    segments: Sequence[bytes] = (b"\x01\x02\x03\x04" * 9, b"\x05" * 64),
    hashed: bool = True,
    secure: int = 0,
    least: int = 0,
) -> bytes:
    """Return an application image."""
    parts = [descriptor(secure=secure) if first is None else first, *segments]
    header = struct.pack("<BBBBI", 0xE9, len(parts), 2, 0x2F, 0x40080000) + b"\xee\0\0\0"
    header += struct.pack("<HBHH4xB", chip, 0, least, 0xFFFF, int(hashed))
    body = b"".join(struct.pack("<II", 0x3C000020, len(part)) + part for part in parts)
    image = header + body
    image += b"\0" * (15 - len(image) % 16) + bytes([xor(b"".join(parts))])
    return image + (hashlib.sha256(image).digest() if hashed else b"")


def bootloader(chip: int = 9) -> bytes:
    """Return a bootloader image: it has a descriptor of its own."""
    return esp32(chip, b"\x50".ljust(80, b"\0"))


def table() -> bytes:
    """Return a binary partition table."""
    entries = [(1, 2, 0x9000, 0x5000, b"nvs"), (1, 0, 0xE000, 0x2000, b"otadata")]
    entries += [(0, 0x10, 0x10000, 0x140000, b"app0"), (0, 0x11, 0x150000, 0x140000, b"app1")]
    rows = b"".join(struct.pack("<HBBII16sI", 0x50AA, *entry, 0) for entry in entries)
    return filled(rows + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(rows).digest(), 0xC00, b"\xff")


def merged(bootloader_at: int, table_at: int = 0x8000) -> bytes:
    """Return an image for a programmer."""
    image = filled(b"", bootloader_at, b"\xff") + bootloader()
    image = filled(image, table_at, b"\xff") + table()
    return filled(image, 0x10000, b"\xff") + esp32()


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Return a key, always the same within a run."""
    return rsa.generate_private_key(65537, bits)


def padded(image: bytes) -> bytes:
    """Return an image as Secure Boot v2 wants it."""
    return filled(image, -(-len(image) // 4096) * 4096, b"\xff")


def sealed(block: bytes) -> bytes:
    """Return a signature block with its CRC."""
    return filled(block, 1196) + struct.pack("<I", zlib.crc32(filled(block, 1196))) + bytes(16)


def rsa_block(image: bytes) -> bytes:
    """Return a block with RSA-3072; the two numbers that only speed the ROM up are left zero."""
    digest, key = hashlib.sha256(image).digest(), rsa_key(3072)
    numbers = key.public_key().public_numbers()
    signature = key.sign(digest, padding.PSS(padding.MGF1(hashes.SHA256()), 32), utils.Prehashed(hashes.SHA256()))
    body = b"\xe7\2\0\0" + digest + numbers.n.to_bytes(384, "little") + struct.pack("<I", numbers.e)
    return sealed(body + bytes(384 + 4) + signature[::-1])


def ecdsa_block(image: bytes, curve: int = 2) -> bytes:
    """Return a block with P-256 (2), P-384 (3), or of the form of P-192 (1)."""
    long = curve == 3
    digest = (hashlib.sha384 if long else hashlib.sha256)(image).digest()
    key = ec.derive_private_key(77, ec.SECP384R1() if long else ec.SECP256R1())
    length, room = (48, 96) if long else (32, 64)
    hashing = hashes.SHA384() if long else hashes.SHA256()
    r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(hashing))))
    numbers = key.public_key().public_numbers()
    point, signature = (
        b"".join(number.to_bytes(length, "little") for number in pair).ljust(room, b"\0")
        for pair in ((numbers.x, numbers.y), (r, s))
    )
    return sealed(bytes([0xE7, 3, int(long), 0]) + digest + bytes([curve]) + point + signature)


def secure_boot(image: bytes, *blocks: bytes) -> bytes:
    """Return an image with a sector of signatures."""
    return padded(image) + filled(b"".join(blocks), 4096, b"\xff")


# The ESP8266 and the Pico


def esp8266_part(entry: int, load: int, parts: Sequence[bytes]) -> bytes:
    """Return one image, as eboot and the application each are."""
    image = struct.pack("<BBBBI", 0xE9, len(parts), 2, 0x40, entry)
    image += b"".join(struct.pack("<II", load, len(part)) + part for part in parts)
    return image + b"\0" * (15 - len(image) % 16) + bytes([xor(b"".join(parts))])


def esp8266(*, old: bool = False) -> bytes:
    """Return a .bin of the Arduino core; an old one has no CRC, but code in its place."""
    code = bytes(range(256)) * 3
    app = esp8266_part(0x40100000, 0x40201010, ((b"code" * 2 if old else bytes(8)) + code, b"data" * 10))
    image = filled(esp8266_part(0x4010F000, 0x4010F000, (b"eboot---" * 8,)), 0x1000, b"\xaa") + app
    crc = struct.pack("<II", len(image), mpeg2(image))
    return image if old else put(image, 0x1010, crc)


def signed(payload: bytes, bits: int = 2048, *, legacy: bool = False, word: int | None = None) -> bytes:
    """Return a payload with the signature of an Arduino device behind it."""
    key, digest = rsa_key(bits), hashlib.sha256(payload).digest()
    if legacy:
        numbers = key.private_numbers()
        block = b"\0\1" + b"\xff" * (bits // 8 - 35) + b"\0" + digest
        value = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
        signature = value.to_bytes(bits // 8, "big")
    else:
        signature = key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return payload + signature + struct.pack("<I", len(signature) if word is None else word)


def compressed(payload: bytes) -> bytes:
    """Return gzip."""
    return gzip.compress(payload, 9, mtime=0)


VECTORS = struct.pack("<II", 0x20042000, 0x100031ED)


def rp2040(*, loader: bool = True) -> bytes:
    """Return a .bin for the RP2040; one of arduino-pico has an update loader in front."""
    boot2 = (b"\x00\xb5" + b"second stage" * 30)[:252]
    image = filled(boot2 + struct.pack("<I", mpeg2(boot2)) + VECTORS, 0x3000)
    return image + (VECTORS if loader else bytes(8)) + b"sketch" * 40


def picobin(*items: bytes, link: int = 0) -> bytes:
    """Return a block."""
    body = b"".join(items)
    last = struct.pack("<BHB", 0xFF, len(body) // 4, 0)
    return struct.pack("<I", 0xFFFFDED3) + body + last + struct.pack("<iI", link, 0xAB123579)


IMAGE_TYPE = struct.pack("<BBH", 0x42, 1, 0x1021)


def rp2350(*items: bytes, second_links_to: int | None = None) -> bytes:
    """Return a .bin for the RP2350 with two blocks."""
    first, second = 0x124, 0x1800
    image = filled(b"\x55" * first + picobin(*(items or (IMAGE_TYPE,)), link=second - first), second)
    back = (first if second_links_to is None else second_links_to) - second
    ignored = struct.pack("<BHB", 0xFE, 1, 0)
    return image + picobin(ignored, link=back) + b"tail" * 8


def uf2_block(number: int, blocks: int, family: int = 0xE48BFF56, at: int | None = None, flags: int = 0x2000) -> bytes:
    """Return one block with 256 bytes of payload."""
    place = 0x10000000 + 256 * number if at is None else at
    head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, flags, place, 256, number, blocks, family)
    return filled(head + b"\x77" * 256, 508) + struct.pack("<I", 0x0AB16F30)


def uf2(blocks: int = 5, family: int = 0xE48BFF56) -> bytes:
    """Return a UF2 file."""
    return b"".join(uf2_block(number, blocks, family) for number in range(blocks))


# MCUboot


def tlvs(magic: int, entries: Sequence[tuple[int, bytes]]) -> bytes:
    """Return an area of entries."""
    body = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in entries)
    return struct.pack("<HH", magic, len(body) + 4) + body


def mcuboot(
    *,
    protected: Sequence[tuple[int, bytes]] = (),
    entries: Sequence[tuple[int, bytes]] = ((0x01, b"k" * 32), (0x22, b"s" * 70)),
    algorithm: str = "sha256",
    flags: int = 0,
) -> bytes:
    """Return an image; its hash comes before the other entries, none with an empty `algorithm`."""
    program, area = b"program " * 50, tlvs(0x6908, protected) if protected else b""
    header = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 512, len(area), len(program), flags, 1, 2, 3, 4, 0)
    image = filled(header, 512) + program + area
    kind = {"sha256": 0x10, "sha384": 0x11, "sha512": 0x12}.get(algorithm)
    own = [(kind, hashlib.new(algorithm, image).digest())] if kind else []
    return image + tlvs(0x6907, [*own, *entries])


# Archives and bundles


def member(name: str, data: bytes, *, magic: bytes = b"070702", total: int | None = None) -> bytes:
    """Return one member of a cpio archive."""
    numbers = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data) if total is None else total]
    head = magic + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
    return filled(filled(head, -(-len(head) // 4) * 4) + data, -(-len(head) // 4) * 4 + -(-len(data) // 4) * 4)


def cpio(*members: bytes) -> bytes:
    """Return an archive."""
    return filled(b"".join(members) + member("TRAILER!!!", b"", total=0), 8192)


ROOT, POST = b"root file system" * 20, b"#!/bin/sh\n"


def described(text: str | None = None) -> bytes:
    """Return the description of `swu`."""
    return (SETTINGS % hashlib.sha256(ROOT).hexdigest() if text is None else text).encode()


def swu(text: str | None = None) -> bytes:
    """Return an update for SWUpdate."""
    parts = {"sw-description": described(text), "sw-description.sig": b"CMS", "root.ext4": ROOT, "post.sh": POST}
    return cpio(*(member(name, data) for name, data in parts.items()))


def der(tag: int, *contents: bytes) -> bytes:
    """Return one value."""
    content = b"".join(contents)
    length = len(content)
    size = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + size + content


def cms(manifest: str | None = None, kind: int = 2) -> bytes:
    """Return a CMS structure that carries a manifest, or nothing."""
    wrapped = [der(0xA0, der(4, manifest.encode()))] if manifest is not None else []
    oid = bytes.fromhex("06092a864886f70d0107")
    inner = der(0x30, oid + b"\1", *wrapped)
    data = der(0x30, b"\2\1\3", der(0x31), inner, der(0x31, b"\4\2xy" * 40))
    return der(0x30, oid + bytes([kind]), der(0xA0, data))


def squashfs(used: int = 4000) -> bytes:
    """Return the beginning of a squashfs, as long as a block."""
    head = struct.pack("<4s4I6H8Q", b"hsqs", 1, 0, 4096, 0, 1, 12, 0, 1, 4, 0, 0, used, *([0] * 6))
    return filled(head, 4096, b"\x5a")


def raucb(signature: bytes | None = None, *, tree: bytes = b"", **head: Any) -> bytes:
    """Return a bundle, plain unless its CMS says something else."""
    end = cms() if signature is None else signature
    return squashfs(**head) + tree + end + len(end).to_bytes(8, "big")


def verity(manifest: str = MANIFEST) -> bytes:
    """Return a bundle of the format verity."""
    return raucb(cms(manifest), tree=bytes(4096))
