"""How a good message becomes a mutant: one function for each way.

Rules:
- An operator gets a good message and a source of chance, and returns bytes; the same chance gives the same bytes.
- Whoever holds one key of a device, but not all that are needed, can do all of this: operators sign with real keys.
- `HARMLESS` are the ways that a device may take; each says why.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.fuzz.messages import DONORS, ELSEWHERE, MESSAGES, Message
from tests.golden import kit
from tests.golden.kit import Key

Operator = Callable[[Message, Random], bytes]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_OUTSIDE = (b"=", b"==", b"+", b"/", b" ", b"\t", b"\r", b"\x00", b".", b"\n", b"\xc3\xa9", b"%41", b"\x7f", b"..")
_LONG = _ALPHABET * 64
_STRANGERS = tuple(Key(f"stranger-{typ[4:-4]}", typ) for typ in (kit.TRIGGER, kit.ARTIFACT, kit.BEAT, kit.KEYS)) + (
    Key("stranger-cosign", kit.COSIGN, "eve"),
)
_HOLDERS = (*kit.HOLDERS, *_STRANGERS)


def edit_bytes(message: Message, chance: Random) -> bytes:
    """Replace, flip, remove or insert a few bytes anywhere."""
    data = bytearray(message.data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place] ^= 1 << chance.randrange(8)
            case 2 if len(data) > 1:
                del data[place]
            case _:
                data.insert(place, chance.randrange(256))
    return bytes(data)


def edit_letters(message: Message, chance: Random) -> bytes:
    """Replace letters of base64url by others of its alphabet, so that every part still decodes."""
    data = bytearray(message.data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(data))
        if data[place] in _ALPHABET:
            data[place] = chance.choice(_ALPHABET)
    return bytes(data)


def edit_last_letter(message: Message, chance: Random) -> bytes:
    """Change the bits of a part's last letter that decode to nothing, or its length."""

    def change(part: bytes) -> bytes:
        if chance.randrange(2) and part:
            return part[:-1] + bytes([chance.choice(_ALPHABET)])
        return part + b"=" * chance.randrange(3) if chance.randrange(2) else part + bytes([chance.choice(_ALPHABET)])

    return _with_part(message, chance, change)


def put_outside_letters(message: Message, chance: Random) -> bytes:
    """Put in what many decoders skip or understand: padding, the other alphabet, white space."""
    place = chance.randrange(len(message.data) + 1)
    width = chance.randrange(2)
    return message.data[:place] + chance.choice(_OUTSIDE) + message.data[place + width :]


def encode_otherwise(message: Message, chance: Random) -> bytes:
    """Write a part in plain base64, with padding, in hexadecimal, in other case, or not encoded."""
    ways: tuple[Callable[[bytes], bytes], ...] = (
        lambda part: part.replace(b"-", b"+").replace(b"_", b"/"),
        lambda part: part + b"=" * (-len(part) % 4),
        lambda part: _decoded(part).hex().encode(),
        bytes.swapcase,
        bytes.upper,
        _decoded,
        kit.b64,
    )
    return _with_part(message, chance, chance.choice(ways))


def cut(message: Message, chance: Random) -> bytes:
    """Leave only a beginning or an end."""
    place = chance.randrange(len(message.data))
    return message.data[:place] if chance.randrange(2) else message.data[place:]


def extend(message: Message, chance: Random) -> bytes:
    """Put something before or behind: bytes, dots, empty lines, parts of this or another message."""
    other = chance.choice(MESSAGES)
    piece = chance.choice(
        (
            b"\n",
            b".",
            b"\r\n",
            b"\x00",
            b"\n\n",
            chance.randbytes(chance.randrange(1, 9)),
            _LONG[: chance.randrange(1, 200)],
            b"\n" + chance.choice(other.lines),
            b"." + chance.choice(chance.choice(other.lines).split(b".")),
            b"\n" + _LONG,
        )
    )
    return message.data + piece if chance.randrange(4) else piece + message.data


def shuffle_lines(message: Message, chance: Random) -> bytes:
    """Remove, repeat or move lines."""
    lines = message.lines
    for _ in range(chance.choice((1, 1, 2))):
        place = chance.randrange(len(lines))
        match chance.randrange(3):
            case 0 if len(lines) > 1:
                del lines[place]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), lines[place])
            case _:
                lines.append(lines.pop(place))
    return b"\n".join(lines)


def shuffle_parts(message: Message, chance: Random) -> bytes:
    """Exchange, repeat or remove parts, within a line or between lines."""
    table = [line.split(b".") for line in message.lines]
    one, other = chance.choice(table), chance.choice(table)
    here, there = chance.randrange(len(one)), chance.randrange(len(other))
    match chance.randrange(4):
        case 0:
            one[here], other[there] = other[there], one[here]
        case 1:
            other[there] = one[here]
        case 2:
            other.insert(there, one[here])
        case _:
            del one[here]
    return b"\n".join(b".".join(parts) for parts in table)


def take_line_of_another(message: Message, chance: Random) -> bytes:
    """Replace or add a line by one that was really signed, but says something else."""
    lines, stolen = message.lines, chance.choice((*DONORS, *chance.choice(MESSAGES).lines))
    place = chance.randrange(len(lines) + 1)
    return b"\n".join([*lines[:place], stolen, *lines[place + chance.randrange(2) :]])


def take_part_of_another(message: Message, chance: Random) -> bytes:
    """Replace a part by the same part of a token that was really signed: its signature, header or payload."""
    lines, stolen = message.lines, chance.choice((*DONORS, *chance.choice(MESSAGES).lines)).split(b".")
    place, part = chance.randrange(len(lines)), chance.randrange(3)
    parts = lines[place].split(b".")
    parts[part] = stolen[part]
    lines[place] = b".".join(parts)
    return b"\n".join(lines)


def edit_claims(message: Message, chance: Random) -> bytes:
    """Change what a payload says and keep the signature."""
    place = _payload_line(message, chance)
    return _with_payload(message, place, kit.compact(_changed(_claims(message, place), chance)))


def write_claims_otherwise(message: Message, chance: Random) -> bytes:
    """Write the same claims as other bytes, and keep the signature."""
    place = _payload_line(message, chance)
    claims = _claims(message, place)
    names = list(claims)
    chance.shuffle(names)
    ways: tuple[bytes, ...] = (
        json.dumps(claims).encode(),
        kit.compact({name: claims[name] for name in names}),
        kit.compact(claims).replace(b'"v":1', b'"v":1.0'),
        kit.compact(claims) + chance.choice((b" ", b"\n", b"\x00")),
        b"\xef\xbb\xbf" + kit.compact(claims),
        kit.compact(claims).replace(b'"iss"', b'"\\u0069ss"'),
    )
    return _with_payload(message, place, chance.choice(ways))


def edit_header(message: Message, chance: Random) -> bytes:
    """Write another header, and keep the signature."""
    place = chance.randrange(len(message.lines))
    return _with_header(message, place, _header(message.signers[place], chance))


def sign_another_header(message: Message, chance: Random) -> bytes:
    """Write another header and sign it with the right key: the form alone must be enough to refuse it."""
    place = chance.randrange(len(message.lines))
    lines, signer = message.lines, message.signers[place]
    _, shown, _ = lines[place].split(b".")
    _, payload, _ = lines[message.first[place]].split(b".")
    header = kit.b64(_header(signer, chance))
    lines[place] = header + b"." + shown + b"." + kit.b64(signer.sign(header + b"." + payload))
    return b"\n".join(lines)


def sign_by_another(message: Message, chance: Random) -> bytes:
    """Sign the right bytes, or changed ones, with a real key of another role or of somebody else."""
    place = chance.randrange(len(message.lines))
    lines, right = message.lines, message.signers[place]
    key = chance.choice(_impostors(right))
    payload = lines[message.first[place]].split(b".")[1]
    shown = lines[place].split(b".")[1]
    if shown and chance.randrange(2):
        payload = shown = kit.b64(kit.compact(_changed(_claims(message, place), chance)))
    header = kit.b64(chance.choice((right.header(), key.header(), key.header(right.typ), right.header(key.typ))))
    lines[place] = header + b"." + shown + b"." + kit.b64(key.sign(header + b"." + payload))
    return b"\n".join(lines)


def sign_by_few(message: Message, chance: Random) -> bytes:
    """Sign every line with one and the same key of the device, one that alone is not enough."""
    key = chance.choice(
        [key for key in kit.HOLDERS if len({*message.signers}) > 1 or key.typ != message.signers[0].typ]
    )
    lines = []
    for place, line in enumerate(message.lines):
        _, shown, _ = line.split(b".")
        payload = message.lines[message.first[place]].split(b".")[1]
        header = kit.b64(chance.choice((key.header(), key.header(message.signers[place].typ))))
        lines.append(header + b"." + shown + b"." + kit.b64(key.sign(header + b"." + payload)))
    return b"\n".join(lines)


def sign_twice(message: Message, chance: Random) -> bytes:
    """Let one key stand for several: its line again, its signature below another name, or a second key of a person."""
    lines = message.lines
    place = chance.randrange(len(lines))
    signer, payload = message.signers[place], lines[message.first[place]].split(b".")[1]
    name = chance.choice(_HOLDERS).kid.encode()
    header = kit.b64(signer.header() if chance.randrange(2) else signer.header().replace(signer.kid.encode(), name))
    again = header + b".." + kit.b64(signer.sign(header + b"." + payload))
    if signer is kit.ann and chance.randrange(2):
        header = kit.b64(kit.ann_again.header())
        again = header + b".." + kit.b64(kit.ann_again.sign(header + b"." + payload))
    other = [number for number, first in enumerate(message.first) if number != place and first == message.first[place]]
    if other and place == message.first[place]:
        lines[other[0]] = again
    else:
        lines.append(again)
    return b"\n".join(lines)


def sign_for_elsewhere(message: Message, chance: Random) -> bytes:
    """Sign rightly what is not for this device, or not for now."""
    place = _payload_line(message, chance)
    changes = chance.choice(ELSEWHERE[message.signers[place].typ])
    return _signed_anew(message, place, kit.compact(_claims(message, place) | changes))


def sign_bad_payload(message: Message, chance: Random) -> bytes:
    """Sign rightly what no parser may take: numbers of other forms, null, names twice, depth, other text."""
    place = _payload_line(message, chance)
    claims = _claims(message, place)
    text = kit.compact(claims)
    name = chance.choice(list(claims))
    one = kit.compact({name: claims[name]})[1:-1]
    numbers = (b"1.0", b"1e0", b"-1", b"-0", b"9007199254740992", b"NaN", b"Infinity", b"1E400", b"9" * 5000, b"01")
    ways = (
        text[:-1] + b"," + one + b"}",
        text.replace(one, one + b"," + one, 1),
        text[:-1] + b',"x":' + chance.choice(numbers) + b"}",
        text[:-1] + b',"x":null}',
        text[:-1] + b',"x":[[[[0]]]]}',
        text[:-1] + b',"x":"' + chance.choice((b"\xff", b"\\ud800", b"\\u0000", b"\\n", b"\x01", b"\xc0\xaf")) + b'"}',
        text[:-1] + b',"crit":["' + chance.choice((b"x", b"rehearse", b"")) + b'"]}',
        text[:-1] + chance.choice((b",}", b"", b"}}", b"} {}", b"}\x00")),
        b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"),
        b"[" + text + b"]",
        text.replace(b'"v":1,', b"", 1),
        text.replace(b'"v":1,', b'"v":1', 1),
    )
    return _signed_anew(message, place, chance.choice(ways))


def turn_signature(message: Message, chance: Random) -> bytes:
    """Use the ways in which a signature of the curve is not unique, or not checked: the twin, zero, the order, DER."""
    order = kit.ORDER

    def turn(part: bytes) -> bytes:
        raw = _decoded(part)
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        pairs = ((r, order - s), (order - r, s), (s, r), (0, 0), (r, 0), (0, s), (1, 1), (order, s), (r, order), (r, 1))
        one, other = chance.choice((*pairs, ((r + order) % 2**256, s), (r, (s + order) % 2**256)))
        wide = one.to_bytes(32, "big") + other.to_bytes(32, "big")
        der = b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:]
        return kit.b64(chance.choice((wide, wide, wide, der, b"\x00" + wide, wide + b"\x00", wide[:63], b"")))

    lines = message.lines
    place = chance.randrange(len(lines))
    head, _, signature = lines[place].rpartition(b".")
    lines[place] = head + b"." + turn(signature)
    return b"\n".join(lines)


def move_payload(message: Message, chance: Random) -> bytes:
    """Put the lines of a token with several signatures in another order, the payload in the line that is now first."""
    lines = message.lines
    groups = [first for number, first in enumerate(message.first) if first != number]
    if not groups:
        return shuffle_parts(message, chance)
    start = groups[0]
    table = [line.split(b".") for line in lines[start:]]
    payload = table[0][1]
    chance.shuffle(table)
    for number, parts in enumerate(table):
        parts[1] = b"" if number else payload
    return b"\n".join([*lines[:start], *(b".".join(parts) for parts in table)])


OPERATORS: Mapping[str, Operator] = {
    operator.__name__: operator
    for operator in (
        edit_bytes,
        edit_letters,
        edit_last_letter,
        put_outside_letters,
        encode_otherwise,
        cut,
        extend,
        shuffle_lines,
        shuffle_parts,
        take_line_of_another,
        take_part_of_another,
        edit_claims,
        write_claims_otherwise,
        edit_header,
        sign_another_header,
        sign_by_another,
        sign_by_few,
        sign_twice,
        sign_for_elsewhere,
        sign_bad_payload,
        turn_signature,
        move_payload,
    )
}
ROUGH = (edit_bytes, edit_letters, put_outside_letters, cut)
"""What may be done to the mutant of another operator once more: nothing here can mend what that one broke, as `extend`
does when it adds the very line of a second person that was taken away."""

RICH = (*ROUGH, extend, edit_last_letter, shuffle_parts, take_part_of_another, edit_claims, sign_by_another)
"""Operators that make so many different mutants that they get four turns where the others get one."""

HARMLESS: Mapping[str, str] = {
    "move_payload": (
        "The signatures of a token are a set: each covers its own header and the one payload, so in another order they "
        "say the same, of the same persons or root keys. The token hash of a keyset or warrant stands nowhere."
    ),
}
"""Operators whose mutants may be taken, if they mean what the message meant; and why that is no harm."""


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _payload_line(message: Message, chance: Random) -> int:
    return chance.choice(sorted({*message.first}))


def _claims(message: Message, place: int) -> kit.Claims:
    claims: kit.Claims = json.loads(_decoded(message.lines[place].split(b".")[1]))
    return claims


def _changed(claims: kit.Claims, chance: Random) -> kit.Claims:
    """Return the claims with one of them changed, removed or added."""
    names = list(claims)
    name = chance.choice(names)
    value = claims[name]
    match chance.randrange(6):
        case 0:
            return {each: claims[each] for each in names if each != name}
        case 1:
            return claims | {chance.choice(("crit", "x", "pol", "req", "dn", "exp", "urg")): chance.choice((1, [], {}))}
        case 2:
            return claims | {name: claims[chance.choice(names)]}
        case _ if isinstance(value, int):
            return claims | {name: chance.choice((value + 1, abs(value - 1), 0, 2**53 - 1, value * 2, str(value)))}
        case _ if isinstance(value, str):
            place = chance.randrange(len(value))
            return claims | {name: value[:place] + chance.choice("aZ09.-_ ") + value[place + 1 :]}
        case _ if isinstance(value, list):
            return claims | {name: chance.choice((value[1:], value * 2, [*value, value[0]], [], value[0]))}
        case _:
            return claims | {name: chance.choice((1, "1", [value]))}


def _with_part(message: Message, chance: Random, change: Callable[[bytes], bytes]) -> bytes:
    lines = message.lines
    place = chance.randrange(len(lines))
    parts = lines[place].split(b".")
    part = chance.choice([number for number, text in enumerate(parts) if text])
    parts[part] = change(parts[part])
    lines[place] = b".".join(parts)
    return b"\n".join(lines)


def _with_payload(message: Message, place: int, payload: bytes) -> bytes:
    lines = message.lines
    header, _, signature = lines[place].split(b".")
    lines[place] = header + b"." + kit.b64(payload) + b"." + signature
    return b"\n".join(lines)


def _with_header(message: Message, place: int, header: bytes) -> bytes:
    lines = message.lines
    lines[place] = kit.b64(header) + b"." + lines[place].partition(b".")[2]
    return b"\n".join(lines)


def _signed_anew(message: Message, place: int, payload: bytes) -> bytes:
    """Return the message with another payload that all its own keys signed."""
    lines, part = message.lines, kit.b64(payload)
    for number, first in enumerate(message.first):
        if first == place:
            signer = message.signers[number]
            signed = kit.b64(signer.header()) + b"." + part
            shown = part if number == place else b""
            lines[number] = kit.b64(signer.header()) + b"." + shown + b"." + kit.b64(signer.sign(signed))
    return b"\n".join(lines)


def _impostors(right: Key) -> list[Key]:
    """Return keys that may not stand for `right`."""
    others = [key for key in _HOLDERS if key.typ != right.typ or key in _STRANGERS]
    return [*others, kit.ann_again] if right is kit.bob else others


def _header(signer: Key, chance: Random) -> bytes:
    kid, typ, key = signer.kid, signer.typ, signer.public
    usual = {"alg": "ES256", "kid": kid, "typ": typ}
    other_kid = chance.choice([each.kid for each in _HOLDERS if each.kid != kid])
    other_typ = chance.choice([each for each in ELSEWHERE if each != typ])
    jwk = {"kty": "EC", "crv": "P-256", "x": key["x"], "y": key["y"]}
    values: tuple[Any, ...] = (
        usual | {"alg": chance.choice(("none", "None", "HS256", "RS256", "ES384", "EdDSA", "es256", ""))},
        usual | {"kid": chance.choice((other_kid, "", kid + " ", kid.upper(), f"../{kid}", 1, None, [kid]))},
        usual | {"typ": chance.choice((other_typ, "JWT", typ.upper(), typ + ";v=1", "ota-checkpoint+jws", ""))},
        usual | {"jwk": jwk},
        usual | {"crit": ["exp"], "exp": 1},
        usual | {"b64": False, "crit": ["b64"]},
        usual | {chance.choice(("jku", "x5u")): "https://evil.test/keys"},
        usual | {"cty": "json"},
        dict(reversed(usual.items())),
        {name: usual[name] for name in chance.sample(sorted(usual), 2)},
        [usual],
    )
    plain = signer.header()
    texts = (
        plain.replace(b'{"alg"', b'{"alg":"none","alg"'),
        plain[:-1] + b',"alg":"none"}',
        plain[:-1] + b',"typ":"' + other_typ.encode() + b'"}',
        plain.replace(b":", b": "),
        b" " + plain,
        plain + b"\n",
        plain.replace(b"kid", b"\\u006bid"),
        plain.replace(b'"', b"'"),
        b"\xef\xbb\xbf" + plain,
        plain + plain,
        plain[:-1],
        b"{}",
    )
    return kit.compact(chance.choice(values)) if chance.randrange(2) else chance.choice(texts)
