"""Makes the golden vectors of `otad/1`: `python -m tests.golden.make_vectors` writes them again.

Rules:
- The files are data: a device team runs them against its own verifier and needs nothing else from here.
- Equal input gives equal files; a test fails when they differ from what is written here.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.golden import envelope_cases, field_cases, state_cases, valid_cases
from tests.golden.kit import DEVICE

DIRECTORY = Path(__file__).parent / "vectors"
GROUPS = envelope_cases.GROUPS | field_cases.GROUPS | state_cases.GROUPS | valid_cases.GROUPS


def build() -> dict[str, bytes]:
    """Return the content of every file by its name."""
    files = {}
    for name, make in GROUPS.items():
        group = name.partition("-")[0].replace("T0", "T")
        vectors = [vector.document(group) for vector in make()]
        files[f"{name}.json"] = json.dumps({"device": DEVICE, "vectors": vectors}, indent=1).encode() + b"\n"
    return files


def main() -> None:
    """Write all files and remove those that are no longer made."""
    files = build()
    for path in DIRECTORY.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (DIRECTORY / name).write_bytes(content)


if __name__ == "__main__":
    main()
