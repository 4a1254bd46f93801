"""Our verifier as a command for the runner: `python -m tests.golden.ours` answers one JSON line for each that it reads.

Rules:
- A request is what `docs/protocol.md` describes in section 11, and so is the answer.
- Nothing is judged here: state is read, the verifier is asked, its answer is written.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from orchestrator.verifier import (
    Component,
    Device,
    Refused,
    judge,
    load_keys,
    load_keyset,
    take_beat,
    take_keyset,
    verify,
)


def read_device(state: Mapping[str, Any]) -> Device:
    keys = json.dumps({"v": 1, "iss": state["iss"], "ep": state["ep"], "keys": state["keys"]}).encode()
    marks = {name: state[name] for name in ("need_root", "need_cosign", "floor", "beat_iat")}
    return Device(
        id=state["id"],
        groups=tuple(state["groups"]),
        model=state["model"],
        iss=state["iss"],
        ep=state["ep"],
        keys=load_keys(keys),
        components={entry["name"]: Component(**entry) for entry in state["components"]},
        allowed_origins=tuple(state["allowed_origins"]),
        loopback=state["loopback"],
        **marks,
    )


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our verifier says to a request."""
    try:
        return _CALLS[request["call"]](request)
    except Refused as refusal:
        return {"reason": refusal.code}


def _bundle(request: Mapping[str, Any]) -> dict[str, Any]:
    verdict = verify(request["bundle"].encode("latin-1"), read_device(request["device"]), request["clock"])
    component = dataclasses.asdict(verdict.component)
    return {"kind": verdict.kind, "token_hash": verdict.token_hash, "component": component}


def _keyset(request: Mapping[str, Any]) -> dict[str, Any]:
    after = take_keyset(request["bundle"].encode("latin-1"), read_device(request["device"]), request["clock"])
    return {
        "kind": "keyset",
        "ep": after.ep,
        "kids": sorted(after.keys),
        "need_root": after.need_root,
        "need_cosign": after.need_cosign,
        "floor": after.floor,
        "beat_iat": after.beat_iat,
        "components": [dataclasses.asdict(part) for part in after.components.values()],
    }


def _beat(request: Mapping[str, Any]) -> dict[str, Any]:
    after = take_beat(request["bundle"].encode("latin-1"), read_device(request["device"]), request["clock"])
    return {"kind": "beat", "floor": after.floor, "beat_iat": after.beat_iat}


def _document(request: Mapping[str, Any]) -> dict[str, Any]:
    held = load_keyset(request["bundle"].encode("latin-1"))
    return {
        "kind": "document",
        "iss": held.iss,
        "ep": held.ep,
        "kids": sorted(held.keys),
        "need_root": held.need_root,
        "need_cosign": held.need_cosign,
    }


def _download(request: Mapping[str, Any]) -> dict[str, Any]:
    device = read_device(request["device"])
    reason = judge(request["transcript"], request["size"], request["sha256"], device)
    return {"reason": reason} if reason else {"kind": "downloaded"}


_CALLS = {"bundle": _bundle, "keyset": _keyset, "beat": _beat, "document": _document, "download": _download}


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
