"""YAML as people write it by hand, read without silent traps.

Rules:
- Refused: duplicate keys, anchors, aliases, tags, several documents, deep nesting, large files, keys that are not text.
- Every refusal names its line; nothing is guessed and nothing is dropped.
- `parse` stops at the first fault; `read` goes on after those that leave the rest readable, and knows where each value
  stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_TIMESTAMP = "tag:yaml.org,2002:timestamp"  # a day is the text that it is written as

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file, both counted from 1."""

    line: int
    column: int


class FaultError(ValueError):
    """What is wrong in a file, and where.

    Attributes:
        problem: what is wrong.
        mark: where; None where no place can be named.
    """

    def __init__(self, problem: str, mark: Mark | None = None) -> None:
        super().__init__(f"line {mark.line}: {problem}" if mark else problem)
        self.problem = problem
        self.mark = mark


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds, and where.

    Attributes:
        value: dict, list, str, int, float, bool or None; what `faults` name is not in it.
        values: where each value begins, by its path; that of an absent value (`key:`) is its key's.
        keys: where each key begins, by the path of its value.
        faults: duplicate keys and keys that are not text.
    """

    value: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    faults: tuple[FaultError, ...] = ()


def parse(data: bytes) -> Any:
    """Return the plain value (dict, list, str, int, float, bool, None) that `data` holds.

    Args:
        data: UTF-8 text of at most `MAX_BYTES`.

    Raises:
        FaultError: one sentence with the line and the fault.
    """
    document = read(data)
    if document.faults:
        raise document.faults[0]
    return document.value


def read(data: bytes) -> Document:
    """Return what `data` holds, with the place of everything.

    Args:
        data: UTF-8 text of at most `MAX_BYTES`.

    Raises:
        FaultError: the rest cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise FaultError(f"{len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        return _Reader(data.decode("utf-8")).read()
    except UnicodeDecodeError as error:
        raise FaultError(f"byte {error.start} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        raise FaultError(error.problem or error.context or "not YAML", _mark(at) if at else None) from None
    except yaml.YAMLError as error:
        raise FaultError(f"not YAML: {str(error).splitlines()[0]}") from None


class _Reader:
    """Turns the nodes of one text into a document."""

    def __init__(self, text: str) -> None:
        self._loader = _StrictLoader(text)
        self._values: dict[Path, Mark] = {}
        self._keys: dict[Path, Mark] = {}
        self._faults: list[FaultError] = []

    def read(self) -> Document:
        node = self._loader.get_single_node()
        value = None if node is None else self._value(node, ())
        return Document(value, self._values, self._keys, tuple(self._faults))

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = self._keys[path] if _absent(node) and path in self._keys else _mark(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, at)) for at, item in enumerate(node.value)]
        _check_text(node)
        if node.tag == _TIMESTAMP:
            return node.value
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            raise FaultError(f"{node.value!r:.40} is not understood: {error}", _mark(node.start_mark)) from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            mark = _mark(key.start_mark)
            _check_text(key)
            if key.tag != "tag:yaml.org,2002:str":
                self._faults.append(FaultError("a key must be text; quote it", mark))
            elif key.value in found:
                first = self._keys[*path, key.value]
                self._faults.append(FaultError(f"duplicate key {key.value!r}; it stands in line {first.line}", mark))
            else:
                self._keys[*path, key.value] = mark
                found[key.value] = self._value(item, (*path, key.value))
        return found


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses what would otherwise be quietly reinterpreted."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not allowed", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _check_text(node: yaml.Node) -> None:
    """Refuse half of a surrogate pair, which an escape can write and no encoding can carry."""
    if isinstance(node.value, str) and any("\ud800" <= character <= "\udfff" for character in node.value):
        raise FaultError("half of a surrogate pair is no text", _mark(node.start_mark))


def _absent(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.start_mark.index == node.end_mark.index


def _mark(mark: yaml.Mark) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)
