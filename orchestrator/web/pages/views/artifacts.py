"""The page of artifacts: what was recognised in each, who vouches for it, and the releases made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.web.pages import words

View = dict[str, Any]

MOST = 80
"""Artifacts that are shown, and releases, the newest ones: a page of more would not be there at once."""
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_RAW = "raw"
_BYTES_ARE = {"": "imported before it was kept; import it again", _RAW: "no format that is known"}
"""What to say of bytes in which no format was recognised."""


def page(artifacts: Sequence[View], releases: Sequence[View], plans: Sequence[tuple[str, str, str]]) -> View:
    """Return what the template of the artifacts shows.

    Args:
        artifacts: `views.artifact_line` of each with `sec`, `min_from` and `leaves`, newest first.
        releases: `views.release_line` of each, newest first.
        plans: release, name and phase of every rollout, newest first.
    """
    made: dict[str, list[str]] = {}
    for release in releases:
        for sha256 in release["artifacts"]:
            made.setdefault(sha256, []).append(release["name"])
    names = {item["sha256"]: item["name"] for item in artifacts}
    return {
        "artifacts": [_artifact(item, made.get(item["sha256"], [])) for item in artifacts[:MOST]],
        "more": len(artifacts[MOST:]),
        "count": len(artifacts),
        "releases": [_release(item, names, plans) for item in releases[:MOST]],
        "releases_count": len(releases),
        "more_releases": len(releases[MOST:]),
    }


def size(count: int) -> str:
    """Return a size with its unit."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f}\u202f{name}"
    return f"{words.number(count)}\u202fB"


def _artifact(item: View, releases: Sequence[str]) -> View:
    return item | {
        "size": size(item["size_bytes"]),
        "short": item["sha256"][:12],
        "is": item["recognised"] if _is_known(item) else item["format"],
        "known": _is_known(item),
        "content": _content(item),
        "remarks": item["warnings"],
        "doubts": _doubts(item),
        "limits": _limits(item),
        "releases": list(releases),
    }


def _is_known(item: View) -> bool:
    return item["recognised"] not in ("", _RAW)


def _content(item: View) -> str:
    """Return what its bytes are, and what its statement declares where that is another word."""
    found = _BYTES_ARE.get(item["recognised"]) or str(item["recognised"])
    says_so = item["format"] in (_RAW, item["recognised"])
    return found if says_so else f"{found}; its statement declares {item['format']}"


def _doubts(item: View) -> list[str]:
    found = []
    if item["format"] == _RAW:
        found.append("its statement declares no format, so nothing about its content was required")
    if not item["signature"]:
        found.append("no native signature: devices that verify no trigger cannot tell who made it")
    return found


def _limits(item: View) -> list[str]:
    found = []
    if item["min_from"]:
        found.append(f"from release counter {item['min_from']} on")
    if item["leaves"]:
        found.append(f"may take the place of the newer {', '.join(str(rel) for rel in item['leaves'])}")
    if item["sec"]:
        found.append(f"security epoch {item['sec']}")
    return found


def _release(item: View, names: dict[str, str], plans: Sequence[tuple[str, str, str]]) -> View:
    rollouts = [{"name": name, "phase": phase} for release, name, phase in plans if release == item["name"]]
    made_of = [names.get(sha256, sha256[:12]) for sha256 in item["artifacts"]]
    return item | {"made_of": made_of, "rollouts": rollouts}
