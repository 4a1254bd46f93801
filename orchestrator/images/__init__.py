"""Firmware images: recognised by their bytes, checked by the rules of their format.

Rules:
- Pure parsers: no network, no clock, nothing of ours but `errors`.
- Memory stays bounded, whatever a header claims: pieces of 1 MiB, at most so many entries, no recursion.
- Nothing is written down that was not seen in the bytes.
"""

from orchestrator.images.arduino_trailer import load_key
from orchestrator.images.findings import FORMATS, RAW, Fault, Findings
from orchestrator.images.fit import against, as_declared
from orchestrator.images.intake import Intake
from orchestrator.images.partitions import Partition, Table, read_partitions
from orchestrator.images.recognition import HEAD_BYTES, inspect, recognise

__all__ = [
    "FORMATS",
    "HEAD_BYTES",
    "RAW",
    "Fault",
    "Findings",
    "Intake",
    "Partition",
    "Table",
    "against",
    "as_declared",
    "inspect",
    "load_key",
    "read_partitions",
    "recognise",
]
