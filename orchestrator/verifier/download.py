"""The download, judged from what a server answered: the reference for the rules of `docs/protocol.md`, section 9.

Rules:
- Pure: a transcript goes in, a reason comes out. What fetches is up to the device, and so is when to stop.
- Nothing is held that is longer than the artifact: a chunk is measured before it is taken.
- A part continues the object that the first part came from, or nothing of it counts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from orchestrator.verifier.device import Device, check_url
from orchestrator.verifier.reasons import Refused, require

MAX_REDIRECTS, MAX_RESTARTS = 2, 3
STALL_S, LONGEST_S = 60, 86_400  # without a byte; altogether, if the trigger sets no `dl`

DOWNLOAD_REASONS: Mapping[str, str] = {
    "too_many_redirects": "More than two redirects in a row.",
    "artifact_missing": "The server does not have the artifact.",
    "download_refused": "The server answered with something that is not the artifact.",
    "encoded": "The bytes are transformed on the way, so that their number says nothing.",
    "size_mismatch": "The length that the server announces is not the one that the trigger names.",
    "bad_range": "The part is not the one asked for, or not of an object of the right size.",
    "object_changed": "The part is of another object than the part before.",
    "too_much_data": "More bytes came than were announced.",
    "stalled": "No byte came for 60 seconds.",
    "deadline_passed": "The download took longer than it may.",
    "link_lost": "The connection ended before the last byte.",
    "hash_mismatch": "The bytes are not those that the trigger names.",
    "flash_mismatch": "What was read back is not what was written.",
}

_REDIRECTS = (301, 302, 303, 307, 308)
_MISSING = (404, 410)
_RANGE = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16})")


def judge(transcript: Mapping[str, Any], size: int, sha256: str, device: Device) -> str:
    """Return why the download must fail, "" if the artifact is there.

    Args:
        transcript: `url` asked for first; `answers`, each with `at` (seconds since the start), `status`, `headers`
            (names in lower case) and `chunks` of `[at, text, times]`; `dl` and `flash` (what was read back) optionally.
        size: bytes to download.
        sha256: hash of these bytes in base64url.
        device: who downloads.
    """
    try:
        body = _fetch(transcript, size, sha256, device)
        require("flash_mismatch", _hash(transcript.get("flash", body).encode("latin-1")) == sha256, "read back")
    except Refused as refusal:
        return refusal.code
    return ""


def _fetch(transcript: Mapping[str, Any], size: int, sha256: str, device: Device) -> str:
    start, ends_at, problem = transcript["url"], transcript.get("dl", LONGEST_S), "link_lost"
    url, body, tag, seen_at, redirects, restarts = start, "", "", 0, 0, 0
    check_url(url, device)
    for answer in transcript["answers"]:
        _check_time(answer["at"], seen_at, ends_at)
        headers, seen_at = answer["headers"], answer["at"]
        if answer["status"] in _REDIRECTS:
            redirects += 1
            require("too_many_redirects", redirects <= MAX_REDIRECTS, url)
            require("download_refused", "location" in headers, "a redirect to nowhere")
            url = _target(url, headers["location"])
            check_url(url, device)
            continue
        begin, end = _span(answer["status"], headers, len(body), size)
        found = headers.get("etag", "")
        require("object_changed", not (begin and tag and found) or found == tag, f"{found} is not {tag}")
        body, tag, url, redirects = body[:begin], "" if found.startswith("W/") else found, start, 0
        for at, text, times in answer["chunks"]:
            _check_time(at, seen_at, ends_at)
            seen_at = at if text else seen_at
            require("too_much_data", len(body) + len(text) * times <= end, f"{end} announced")
            body += text * times
        if len(body) == size:
            if _hash(body.encode("latin-1")) == sha256:
                return body
            restarts, body, problem = restarts + 1, "", "hash_mismatch"
            require("hash_mismatch", restarts <= MAX_RESTARTS, "again and again")
    raise Refused(problem, f"{len(body)} of {size} bytes")


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:  # brackets that do not match, or letters that become others
        raise Refused("url_malformed", ascii(location[:80])) from None


def _check_time(at: int, seen_at: int, ends_at: int) -> None:
    require("deadline_passed", at <= ends_at or seen_at + STALL_S < ends_at, f"after {ends_at} s")
    require("stalled", at - seen_at <= STALL_S, f"since {seen_at} s")


def _span(status: int, headers: Mapping[str, str], held: int, size: int) -> tuple[int, int]:
    """Return where the bytes of an answer begin and end."""
    require("artifact_missing", status not in _MISSING, status)
    require("bad_range", status != 416, status)
    require("download_refused", status in (200, 206), status)
    require("encoded", headers.get("content-encoding", "identity") == "identity", "content-encoding")
    begin, end = 0, size
    if status == 206:
        part = _RANGE.fullmatch(headers.get("content-range", ""))
        begin, last, total = (int(number) for number in part.groups()) if part else (0, 0, 0)
        end = last + 1
        require("bad_range", total == size and begin == held and begin < end <= size, "content-range")
    require("size_mismatch", headers.get("content-length", str(end - begin)) == str(end - begin), "content-length")
    return begin, end


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
