"""Firmware images: recognised by their bytes, checked by the rules of their format.

Rules:
- Pure parsers: no network, no clock, nothing of ours but `errors`.
- Memory stays bounded, whatever a header claims: pieces of 1 MiB, at most so many entries, no recursion.
- Nothing is written down that was not seen in the bytes.
"""

from orchestrator.images.findings import FORMATS, RAW, SIGNATURES, Fault, Findings
from orchestrator.images.fit import against, as_declared, as_signed, signature_of
from orchestrator.images.image_keys import ImageKey, ImagePrivateKey, load_key, load_private_key
from orchestrator.images.intake import Intake
from orchestrator.images.partitions import Partition, Table, read_partitions
from orchestrator.images.recognition import HEAD_BYTES, inspect, recognise
from orchestrator.images.signing import SIGNABLE, trailer_for

__all__ = [
    "FORMATS",
    "HEAD_BYTES",
    "RAW",
    "SIGNABLE",
    "SIGNATURES",
    "Fault",
    "Findings",
    "ImageKey",
    "ImagePrivateKey",
    "Intake",
    "Partition",
    "Table",
    "against",
    "as_declared",
    "as_signed",
    "inspect",
    "load_key",
    "load_private_key",
    "read_partitions",
    "recognise",
    "signature_of",
    "trailer_for",
]
