"""What a device is provisioned with, in the forms that builds of firmware take.

Rules:
- All of it is public, and all of it comes from the document of public keys, so that the forms cannot differ.
- The C header is ASCII and needs no other header than `stdint.h`.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.keys import ROLES, document_of, public_pem, role_of
from orchestrator.verifier import Keyset, PublicKey

_BYTES_PER_LINE = 12
_STRUCT = """\
struct ota_key {
    const char *kid;
    uint8_t typ;             /* one of OTA_KEY_* */
    uint8_t x[32], y[32];    /* point on P-256, big-endian */
    uint64_t nbf, exp;       /* epoch seconds; exp 0: no end */
    const char *who;         /* cosigners only, else "" */
    const char *hw;          /* models of an artifact key with a space between, "" for all */
};"""


def as_json(keyset: Keyset) -> str:
    """Return the document of public keys."""
    return document_of(keyset).decode()


def as_pem(keyset: Keyset) -> str:
    """Return the public keys in PEM, each below a line that says what it is."""
    return "".join(f"# {role_of(key.typ)} {key.kid} {key.who}".rstrip() + "\n" + _pem(key) for key in _keys(keyset))


def as_c_header(keyset: Keyset) -> str:
    """Return a C header with the deployment, the key epoch, the thresholds and the keys."""
    types = [f"#define OTA_KEY_{role.upper()} {number}" for number, role in enumerate(ROLES, start=1)]
    lines = [
        "/* Made by `ota keys export`; public. */",
        "#ifndef OTA_KEYS_H",
        "#define OTA_KEYS_H",
        "#include <stdint.h>",
        "",
        *types,
        "",
        f'#define OTA_DEPLOYMENT "{keyset.iss}"',
        f"#define OTA_KEY_EPOCH {keyset.ep}ULL",
        f"#define OTA_NEED_ROOT {keyset.need_root}",
        f"#define OTA_NEED_COSIGN {keyset.need_cosign}",
        f"#define OTA_KEY_COUNT {len(keyset.keys)}",
        "",
        _STRUCT,
        "",
        "static const struct ota_key ota_keys[OTA_KEY_COUNT] = {",
        *(_c_key(key) for key in _keys(keyset)),
        "};",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _keys(keyset: Keyset) -> list[PublicKey]:
    return list(keyset.keys.values())


def _c_key(key: PublicKey) -> str:
    fields = [
        f'.kid = "{key.kid}"',
        f".typ = OTA_KEY_{role_of(key.typ).upper()}",
        f".x = {_c_bytes(key.x)}",
        f".y = {_c_bytes(key.y)}",
        f".nbf = {key.nbf}ULL",
        f".exp = {key.exp or 0}ULL",
        f'.who = "{key.who}"',
        f'.hw = "{" ".join(key.hw)}"',
    ]
    return "    {\n" + "".join(f"        {field},\n" for field in fields) + "    },"


def _c_bytes(raw: bytes) -> str:
    words = [f"0x{byte:02x}" for byte in raw]
    rows = [", ".join(words[start : start + _BYTES_PER_LINE]) for start in range(0, len(words), _BYTES_PER_LINE)]
    return "{" + ",\n              ".join(rows) + "}"


def _pem(key: PublicKey) -> str:
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.x + key.y)
    return public_pem(point).decode()
