"""The parsers of firmware images and partition tables.

Rules:
- They raise nothing: whatever the bytes are, there is an answer, of bounded length.
- One target for each format, so that each has its share.
"""

from __future__ import annotations

from orchestrator.errors import PayloadError
from orchestrator.images import FORMATS, HEAD_BYTES, RAW, SIGNATURES, read_partitions, recognise
from orchestrator.images.findings import MAX_FACTS, MAX_TEXT
from tests.fuzz.target import Target
from tests.images import forge

_WHOLE = 16_384
"""Longest input: what stands behind the first sector of an image is reached too."""


def image_targets() -> list[Target]:
    """Return the targets that read images; they need neither a file nor a server."""
    sealed = forge.secure_boot(forge.esp32(), forge.ecdsa_block(forge.padded(forge.esp32())))
    seeds = {
        "esp32 image": (forge.esp32(), forge.bootloader(), forge.esp32() + b"s" * 512),
        "secure boot image": (sealed,),
        "esp8266 image": (forge.esp8266(), forge.signed(forge.esp8266())),
        "signed image": (forge.esp32() + forge.signed(b"")[:-4].ljust(512, b"\0"), forge.signed(forge.rp2040())),
        "compressed image": (forge.compressed(forge.esp8266()), forge.signed(forge.compressed(forge.esp8266()))),
        "pico image": (forge.rp2040(), forge.rp2350()),
        "uf2": (forge.uf2(),),
        "mcuboot image": (forge.mcuboot(protected=((0x50, b"\7\0\0\0"),)), forge.mcuboot()),
        "swu": (forge.swu(), forge.swu('{"software": {"images": [{"filename": "root.ext4"}]}}')),
        "raucb": (forge.raucb(), forge.verity(), forge.raucb(forge.cms(kind=3))),
    }
    tables = (forge.table()[:0xE0], _TABLE)
    return [
        *(Target(name, _inspect, (), data, 3, _WHOLE) for name, data in seeds.items()),
        Target("partitions", read_partitions, (PayloadError,), tables, 5),
    ]


_TABLE = b"# a table\nnvs, data, nvs, 0x9000, 20K,\notadata, data, ota, , 8K\na, app, ota_0, , 1M, encrypted\n"


def _inspect(data: bytes) -> object:
    findings = forge.found(data, forge.rsa_key(2048).public_key())
    assert findings.format in (RAW, *FORMATS)
    assert recognise(data[:HEAD_BYTES]) in (None, *FORMATS)
    assert findings.signature in ("", *SIGNATURES)
    assert findings.signature or not findings.verified
    assert len(findings.facts) <= MAX_FACTS
    assert len(findings.faults) <= MAX_FACTS
    assert all(len(text) <= MAX_TEXT for _, text in findings.facts)
    assert all(len(str(fault)) < 1000 for fault in (*findings.faults, *findings.warnings))
    return findings
