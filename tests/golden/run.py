"""Runs any verifier against the golden vectors: `python -m tests.golden.run COMMAND...`.

Rules:
- The command is started once. For each vector it reads one JSON line and writes one, as `docs/protocol.md` describes
  in section 11.
- An answer counts if it is what the vector expects, member by member; a verifier that ends or is silent has failed.
- It ends with 0 if all answers were right, with 1 if one was not, with 2 if the command could not be run to the end.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.golden import make_vectors

PATIENCE_S = 10.0
_REQUEST = ("name", "call", "device", "bundle", "clock", "size", "sha256", "transcript")


class Silent(Exception):  # noqa: N818 - what the command is, not a fault of ours
    """The command ended, or gave no answer in time."""


def request_of(vector: Mapping[str, Any]) -> bytes:
    """Return the line that the command reads: the vector without what is expected."""
    return json.dumps({name: vector[name] for name in _REQUEST if name in vector}).encode() + b"\n"


def run(
    command: Sequence[str], vectors: Iterable[Mapping[str, Any]], patience_s: float = PATIENCE_S
) -> list[tuple[Mapping[str, Any], object]]:
    """Return every vector with the answer of the command.

    Args:
        command: program and arguments.
        vectors: as `make_vectors.read` returns them.
        patience_s: seconds to wait for one answer.

    Raises:
        OSError: the command cannot be started.
        Silent: it ended or hangs.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            return [(vector, _ask(child, vector, patience_s)) for vector in vectors]
        finally:
            child.kill()


def _ask(child: subprocess.Popen[bytes], vector: Mapping[str, Any], patience_s: float) -> object:
    assert child.stdin is not None
    assert child.stdout is not None
    line = b""
    try:
        child.stdin.write(request_of(vector))
        child.stdin.flush()
        if select.select([child.stdout], [], [], patience_s)[0]:
            line = child.stdout.readline()
    except BrokenPipeError:
        pass
    if not line:
        raise Silent(f"no answer to {vector['class']} {vector['name']}")
    try:
        return json.loads(line)
    except ValueError:
        return line.decode(errors="replace").strip()


def main(command: Sequence[str]) -> int:
    """Run the command against all vectors, print what was wrong and a line for each class; return the exit code."""
    if not command:
        print("usage: python -m tests.golden.run COMMAND...", file=sys.stderr)
        return 2
    try:
        answers = run(command, make_vectors.read())
    except (OSError, Silent) as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return 2
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for vector, said in answers:
        (right if said == vector["expected"] else wrong)[vector["class"]] += 1
        if said != vector["expected"]:
            print(f"{vector['class']} {vector['name']}: expected {vector['expected']}, got {said}")
    for group in sorted(right | wrong, key=lambda name: (len(name), name)):
        print(f"{group:5} {right[group]:4} right {wrong[group]:4} wrong")
    print(f"{'all':5} {right.total():4} right {wrong.total():4} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
