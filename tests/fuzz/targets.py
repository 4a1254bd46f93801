"""All targets of the fuzzer: every parser that reads bytes which others wrote.

Rules:
- Each part of the work is measured in `share`, so that the slow ones do not take all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.dialect_targets import dialect_targets
from tests.fuzz.file_targets import file_targets
from tests.fuzz.image_targets import image_targets
from tests.fuzz.served_targets import served_targets
from tests.fuzz.target import Target
from tests.fuzz.wire_targets import wire_targets


@contextmanager
def open_targets(folder: Path) -> Iterator[dict[str, Target]]:
    """Return all targets by name; files are written below `folder`, and the application serves from there."""
    with served_targets(folder) as served, dialect_targets(folder / "dialects") as spoken:
        found = [*wire_targets(), *file_targets(folder), *image_targets(), *served, *spoken]
        yield {target.name: target for target in found}
