"""What the updaters on devices do with a signature, from their description alone: whole numbers and hashes."""

from __future__ import annotations

import hashlib
from typing import Final

DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
P256: Final = (
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None


def word_updater(file: bytes, n: int, e: int = 65537, *, legacy: bool = False) -> bytes | None:
    """Return the payload that an ESP8266 or a Pico installs, None where it refuses.

    It reads the last word, which is as long as the modulus of its key; takes that many bytes before it for the
    signature; and wants the padded hash of all before that (legacy: without the name of the hash).
    """
    length = (n.bit_length() + 7) // 8
    if int.from_bytes(file[-4:], "little") != length:
        return None
    payload, signature = file[: -4 - length], int.from_bytes(file[-4 - length : -4], "big")
    hashed = (b"" if legacy else DIGEST_INFO) + hashlib.sha256(payload).digest()
    wanted = b"\0\1" + b"\xff" * (length - 3 - len(hashed)) + b"\0" + hashed
    holds = signature < n and pow(signature, e, n) == int.from_bytes(wanted, "big")
    return payload if holds else None


def pss_updater(file: bytes, n: int, algorithm: str, e: int = 65537) -> bool:
    """Say whether an ESP32 with an RSA key takes a file: RFC 8017, 9.1.2, with the longest salt."""
    length = (n.bit_length() + 7) // 8
    payload, signature = file[:-512], file[-512:][:length]
    digest = hashlib.new(algorithm, payload).digest()
    encoded = pow(int.from_bytes(signature, "big"), e, n).to_bytes(length, "big")
    split = length - len(digest) - 1
    masked, tested, last = encoded[:split], encoded[split:-1], encoded[-1]
    mask = _mgf1(tested, split, algorithm)
    block = bytes(a ^ b for a, b in zip(masked, mask, strict=True))
    block = bytes([block[0] & 0x7F]) + block[1:]
    salt = block[1:]  # the longest: no zeros before the 01
    again = hashlib.new(algorithm, bytes(8) + digest + salt).digest()
    return last == 0xBC and masked[0] < 0x80 and block[0] == 1 and again == tested


def p256_updater(file: bytes, public: tuple[int, int], algorithm: str) -> bool:
    """Say whether an ESP32 with a key on P-256 takes a file."""
    payload, der = file[:-512], file[-512:]
    assert der[0] == 0x30
    assert not any(der[2 + der[1] :])
    r_bytes = der[3]
    r, s = int.from_bytes(der[4 : 4 + r_bytes], "big"), int.from_bytes(der[6 + r_bytes : 2 + der[1]], "big")
    _, order, x, y = P256
    number = int.from_bytes(hashlib.new(algorithm, payload).digest()[:32], "big")
    inverse = pow(s, -1, order)
    total = _add(_times(number * inverse % order, (x, y)), _times(r * inverse % order, public))
    return total is not None and total[0] % order == r


def p256_public(private: int) -> tuple[int, int]:
    """Return the point of a private number."""
    point = _times(private, (P256[2], P256[3]))
    assert point is not None
    return point


def _mgf1(seed: bytes, length: int, algorithm: str) -> bytes:
    mask, counter = b"", 0
    while len(mask) < length:
        mask += hashlib.new(algorithm, seed + counter.to_bytes(4, "big")).digest()
        counter += 1
    return mask[:length]


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    p = P256[0]
    if one[0] == other[0]:
        if (one[1] + other[1]) % p == 0:
            return None
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, p)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, p)
    x = (slope * slope - one[0] - other[0]) % p
    return x, (slope * (one[0] - x) - one[1]) % p


def _times(number: int, point: Point) -> Point:
    total: Point = None
    while number:
        if number & 1:
            total = _add(total, point)
        point, number = _add(point, point), number >> 1
    return total
