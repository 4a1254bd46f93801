"""Makes the golden vectors of `otad/1`: `python -m tests.golden.make_vectors` writes them again.

Rules:
- The files are data: a device team runs them against its own verifier and needs nothing else from here.
- Equal input gives equal files; a test fails when they differ from what is written here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.golden import (
    download_cases,
    envelope_cases,
    field_cases,
    keyset_cases,
    state_cases,
    valid_cases,
    warrant_cases,
)
from tests.golden.kit import DEVICE, SECURED

DIRECTORY = Path(__file__).parent
GROUPS = envelope_cases.GROUPS | field_cases.GROUPS | state_cases.GROUPS | valid_cases.GROUPS
SECURED_GROUPS = keyset_cases.GROUPS | warrant_cases.GROUPS


def build() -> dict[str, bytes]:
    """Return the content of every file by its path in this directory."""
    files = {}
    for name, make in (GROUPS | SECURED_GROUPS).items():
        vectors = [vector.document(_class(name)) for vector in make()]
        files[f"vectors/{name}.json"] = _file(SECURED if name in SECURED_GROUPS else DEVICE, vectors)
    for name, record in download_cases.GROUPS.items():
        vectors = [transcript.document(_class(name)) for transcript in record()]
        files[f"downloads/{name}.json"] = _file(DEVICE, vectors)
    return files


def read() -> list[dict[str, Any]]:
    """Return every vector that is written, each with its whole device state."""
    found = []
    for path in written():
        document = json.loads(path.read_bytes())
        for vector in document["vectors"]:
            found.append(vector | {"device": document["device"] | vector["device"]})
    return found


def written() -> list[Path]:
    return sorted(DIRECTORY.glob("*/*.json"))


def _class(name: str) -> str:
    return name.partition("-")[0].replace("T0", "T")


def _file(device: dict[str, Any], vectors: list[dict[str, Any]]) -> bytes:
    return json.dumps({"device": device, "vectors": vectors}, indent=1).encode() + b"\n"


def main() -> None:
    """Write all files and remove those that are no longer made."""
    files = build()
    for path in written():
        if str(path.relative_to(DIRECTORY)) not in files:
            path.unlink()
    for name, content in files.items():
        (DIRECTORY / name).parent.mkdir(exist_ok=True)
        (DIRECTORY / name).write_bytes(content)


if __name__ == "__main__":
    main()
