"""What operators say of devices: which words are allowed, and what a change makes of what was said before.

Rules:
- A change names what shall be different; what it does not name stays.
- Words are few and short: they are shown in lists, asked by selectors, and kept with every device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.model import Facts
from orchestrator.core.targeting.dialect import DIALECTS, SIGNATURES
from orchestrator.core.targeting.selector import ATTRIBUTE

MAX_WORDS = 32
"""Tags, groups and attributes that one device may have, of each."""

MAX_TEXT = 64
MAX_VALUE = 128
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different.

    Attributes:
        revision: hardware revision; "" forgets it, None leaves it, as with all that follows.
        site: where the device stands.
        time_zone: its time zone.
        groups: all its groups.
        join: groups to add.
        leave: groups to take away.
        tags: all its tags.
        tag: tags to add.
        untag: tags to take away.
        attributes: values by name; None forgets one.
        dialect: what the device speaks.
        enforces: all native signatures that it enforces by itself.
    """

    revision: str | None = None
    site: str | None = None
    time_zone: str | None = None
    groups: tuple[str, ...] | None = None
    join: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None
    tag: tuple[str, ...] = ()
    untag: tuple[str, ...] = ()
    attributes: Mapping[str, str | None] = field(default_factory=dict)
    dialect: str | None = None
    enforces: tuple[str, ...] | None = None


def faults_of(change: Change) -> Iterator[str]:
    """Yield what is wrong with a change, whatever it is made to; the time zone is not looked up here."""
    for name in ("revision", "site", "time_zone"):
        text = getattr(change, name)
        if text is not None and not _is_text(text, MAX_TEXT):
            yield f"{name} is at most {MAX_TEXT} printable characters, without spaces around them"
    for kind, words in (
        ("group", (*(change.groups or ()), *change.join, *change.leave)),
        ("tag", (*(change.tags or ()), *change.tag, *change.untag)),
    ):
        for word in words:
            if not _WORD.fullmatch(word):
                yield f"{word[:80]!r} is no {kind}; write lower-case letters, digits, . _ and -, at most 64"
    if change.dialect is not None and change.dialect not in DIALECTS:
        yield f"dialect {change.dialect[:80]!r} is not known; there are {', '.join(DIALECTS)}"
    for word in change.enforces or ():
        if word not in SIGNATURES:
            yield f"{word[:80]!r} is no signature that a device enforces; there are {', '.join(SIGNATURES)}"
    for name, value in change.attributes.items():
        if not ATTRIBUTE.fullmatch(name):
            yield f"{name[:80]!r} is no attribute; write lower-case letters, digits, _ and -, a letter first"
        if value is not None and not _is_text(value, MAX_VALUE):
            yield f"attribute {name[:32]} is at most {MAX_VALUE} printable characters, without spaces around them"


def changed(before: Facts, change: Change) -> Facts:
    """Return the facts after a change."""
    attributes = {**before.attributes, **change.attributes}
    return Facts(
        groups=_words(before.groups if change.groups is None else change.groups, change.join, change.leave),
        revision=before.revision if change.revision is None else change.revision,
        site=before.site if change.site is None else change.site,
        time_zone=before.time_zone if change.time_zone is None else change.time_zone,
        tags=_words(before.tags if change.tags is None else change.tags, change.tag, change.untag),
        attributes={name: value for name, value in sorted(attributes.items()) if value},
        dialect=before.dialect if change.dialect is None else change.dialect,
        enforces=_words(before.enforces if change.enforces is None else change.enforces, (), ()),
    )


def too_many(facts: Facts) -> str | None:
    """Return of what a device has too much, None if it is well."""
    for name in ("groups", "tags", "attributes"):
        count = len(getattr(facts, name))
        if count > MAX_WORDS:
            return f"{count} {name} are too many; a device has at most {MAX_WORDS}"
    return None


def _words(before: Iterable[str], more: Iterable[str], less: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*before, *more} - set(less)))


def _is_text(text: str, most: int) -> bool:
    return len(text) <= most and text.isprintable() and text == text.strip()
