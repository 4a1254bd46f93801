"""The documents that DDI clients read. Compact, for some of them have buffers of a kilobyte.

Rules:
- Ids are positive 31-bit integers, written as texts; a poll always says when to come back, below a day and never 0.
- One chunk with one artifact, with all three hashes and both kinds of link; nothing that would have to be escaped.
- The link to a recall has no query: clients append to it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from typing import Any

from orchestrator.core.model import Artifact, Update
from orchestrator.core.pace.requirement import Standing

MAX_ID = 2**31 - 1
_DAY_S = 86_400
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_ENDINGS = {"swu": "swu", "swupdate": "swu", "raucb": "raucb", "rauc": "raucb"}
_MAX_NAME = 48

View = dict[str, Any]


def base(sleep_s: float, links: dict[str, str]) -> View:
    """Return the answer to a poll."""
    found: View = {"config": {"polling": {"sleep": sleep(sleep_s)}}}
    return found | ({"_links": {name: {"href": href} for name, href in links.items()}} if links else {})


def deployment(update: Update, artifact: Artifact, folder: str) -> View:
    """Return what is to be installed.

    Args:
        update: the update.
        artifact: what it brings.
        folder: URL of the place of the device below which the artifact lies.
    """
    return {"id": str(update.id), "deployment": _brought(update, artifact, folder)}


def question(update: Update, artifact: Artifact, folder: str) -> View:
    """Return what the user of a device is asked about; see `deployment`."""
    return {"id": str(update.id), "confirmation": _brought(update, artifact, folder)}


def consents(standing: Standing | None, links: dict[str, str]) -> View:
    """Return whether the user of a device agrees to everything, and where to say otherwise."""
    if standing is None:
        said: View = {"active": False}
    else:
        said = {"active": True, "initiator": standing.initiator, "remark": standing.remark}
        said["activatedAt"] = int(standing.at * 1000)
    return {"autoConfirm": said, "_links": {name: {"href": href} for name, href in links.items()}}


def can_name(update: Update, artifact: Artifact) -> bool:
    """Say whether clients can be told of an update: its number fits, and the hashes that they check are known."""
    return update.id <= MAX_ID and bool(artifact.sha1)


def cancellation(update: Update) -> View:
    """Return what is to be stopped."""
    return {"id": str(update.id), "cancelAction": {"stopId": str(update.id)}}


def file_name(artifact: Artifact) -> str:
    """Return the name under which a client knows an artifact; its ending tells SWUpdate whether to install it."""
    ending = _ENDINGS.get(artifact.format) or _ENDINGS.get(artifact.signature) or "bin"
    return f"{_plain(f'{artifact.name}-{artifact.version}')}.{ending}"


def sleep(seconds: float) -> str:
    """Return a pause as clients read it: hours, minutes and seconds."""
    whole = min(max(round(seconds), 1), _DAY_S - 1)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _brought(update: Update, artifact: Artifact, folder: str) -> View:
    link = {"href": f"{folder}/softwaremodules/{update.id}/artifacts/{file_name(artifact)}"}
    sha256 = urlsafe_b64decode(artifact.sha256 + "=").hex()
    offered = {
        "filename": file_name(artifact),
        "hashes": {"sha1": artifact.sha1, "md5": artifact.md5, "sha256": sha256},
        "size": artifact.size_bytes,
        "_links": {"download": link, "download-http": link},
    }
    version, name = _plain(artifact.version), _plain(artifact.name)
    chunk = {"part": "bApp", "version": version, "name": name, "artifacts": [offered]}
    return {"download": "forced", "update": "forced", "chunks": [chunk]}


def _plain(text: str) -> str:
    return _PLAIN.sub("-", text)[:_MAX_NAME] or "-"
