"""The parsers of what devices get and say, and of the words in it.

Rules:
- The golden vectors are the seeds of messages: what is behind the first checks is reached too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from orchestrator import units
from orchestrator.adapters import keysets
from orchestrator.adapters.signers import pkcs11
from orchestrator.core.trust.audit import Checkpoint
from orchestrator.errors import PayloadError, RequestError, TrustError
from orchestrator.verifier import ARTIFACT, BEAT, COSIGN, KEYS, TRIGGER, Refused, check_url, load_keyset
from orchestrator.verifier.fields import read_claims
from orchestrator.web.certificate_headers import Form, Part, name_in
from orchestrator.web.dialects.ddi_feedback import (
    decode_confirmation,
    decode_feedback,
    decode_standing,
    installed_in,
    version_in,
)
from orchestrator.wire import checkpoint, report, retry_after, topics
from orchestrator.wire.endpoints import decode_endpoints
from tests.fuzz.messages import DEVICE, hear_beat, take_bundle, take_keys
from tests.fuzz.target import Target, as_text
from tests.golden import kit, make_vectors

DEVICE_ID = "door-17"


def wire_targets() -> list[Target]:
    """Return the targets that need neither a file nor a server."""
    return [*_messages(), *_payloads(), *_uplink(), *_words(), *_certificates()]


def said(**more: Any) -> bytes:
    """Return a payload of a device."""
    return kit.compact({"v": 1, "dev": DEVICE_ID, **more})


CONFIRMED = said(att="7.1", boot="b1", n=3, kind="confirmed", rel=5, ver="1.0", seq=9, bat=80)
FAILED = said(att="7.1", boot="b1", n=4, kind="failed", code="hash_mismatch", msg="two\nlines", pct=3, sha="abc")
FACTS = {"bat": 3, "charging": True, "free": 9, "slot": 8, "link": "wifi", "metered": False, "uptime": 7, "later": 6}
HELLO = said(model="esp32-c3", ver="1.0", rel=4, boot="b1", boots=7, groups=["eu"], bat=3, facts=FACTS, eps=2)


MOVE = kit.compact(
    {
        "v": 1,
        "iss": "my-fleet",
        "mqtt": ["mqtts://broker.example:8883", "mqtt://[::1]:1883"],
        "http": ["https://ota.example.net"],
        "origins": ["https://cdn.example.net", "http://127.0.0.1:80"],
    }
)


FEEDBACK = kit.compact(
    {
        "id": 7,
        "time": "20261121T181000",
        "status": {
            "result": {"progress": {"cnt": 0, "of": 1, "percentage": 3}, "finished": "none"},
            "execution": "proceeding",
            "details": ["All Chunks Installed.", "x"],
        },
    }
)
ATTRIBUTES = kit.compact({"mode": None, "data": {"version": "1.0", "board": "b"}})


def make_checkpoint(n: int = 7) -> bytes:
    """Return a checkpoint of the entry `n`."""
    signed = checkpoint.signing_input("audit-1", Checkpoint(n, "ab" * 32, 1_900_000_000.5, 1200))
    return signed + b"." + kit.b64(kit.beat_key.sign(signed))


def _messages() -> list[Target]:
    return [
        Target("bundle", take_bundle, (Refused,), _vectors("bundle"), 60, 8192),
        Target("keyset", take_keys, (Refused,), _vectors("keyset"), 40, 8192),
        Target("beat", hear_beat, (Refused,), _vectors("beat"), 40),
        Target("keys document", load_keyset, (Refused,), _vectors("document"), 40, 10_000),
        Target("keyset draft", keysets.parse_draft, (RequestError, TrustError), _drafts(), 20, 10_000),
        Target("checkpoint", checkpoint.read, (PayloadError,), (make_checkpoint(),), 60),
        Target("ddi feedback", decode_feedback, (PayloadError,), (FEEDBACK, FEEDBACK.replace(b'"none"', b"null")), 60),
        Target("ddi attributes", partial(version_in, attribute="version"), (PayloadError,), (ATTRIBUTES,), 40),
        Target("ddi installation", installed_in, (PayloadError,), (b'{"name":"a","version":"1.0"}',), 20),
        Target("ddi confirmation", decode_confirmation, (PayloadError,), (b'{"confirmation":"denied","code":1}',), 20),
        Target("ddi agreement", decode_standing, (PayloadError,), (b'{"initiator":"a","remark":"b"}',), 20),
        Target("endpoints", partial(decode_endpoints, deployment="my-fleet"), (PayloadError,), (MOVE,), 60, 8192),
    ]


def _vectors(call: str) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(v["bundle"].encode("latin-1") for v in make_vectors.read() if v["call"] == call))


def _drafts() -> tuple[bytes, ...]:
    lines = kit.several(kit.roots[1:3], kit.keyset())
    return (lines, lines + b"\n", lines.split(b"\n")[0], kit.compact(kit.keyset()), json.dumps(kit.keyset()).encode())


def _payloads() -> list[Target]:
    examples: dict[str, tuple[kit.Claims, ...]] = {
        TRIGGER: (kit.offer({"ast": kit.STATED}), kit.recall()),
        ARTIFACT: (kit.statement(), kit.statement({"dn": [4], "req": [{"comp": "radio", "rel": 2}], "crit": ["dn"]})),
        COSIGN: (kit.warrant(),),
        BEAT: (kit.beat(),),
        KEYS: (kit.keyset(),),
    }
    return [
        Target(f"payload {typ}", partial(read_claims, typ=typ), (Refused,), tuple(map(kit.compact, each)))
        for typ, each in examples.items()
    ]


def _uplink() -> list[Target]:
    payload = (PayloadError,)
    tops = (b"ota/v1/d/door-17/report", b"ota/v1/d/x/state", b"ota/v1/keys/4", b"ota/v1/g/all/beat", b"ota/v1/d/x/cmd")
    return [
        Target("report", partial(report.decode_report, device=DEVICE_ID), payload, (CONFIRMED, FAILED), 60),
        Target("hello", partial(report.decode_hello, device=DEVICE_ID), payload, (HELLO,), 60),
        Target("state", partial(report.decode_state, device=DEVICE_ID), payload, (said(online=True),), 40),
        Target("topic", _read_topic, payload, tops, 60),
    ]


def _words() -> list[Target]:
    uris = (
        b"pkcs11:token=ota;object=trigger?module-path=/usr/lib/libsofthsm2.so&pin-source=file:/run/pin",
        b"pkcs11:serial=%01%02;id=%20;type=private?module-path=/x",
    )
    places = (b"https://fw.example.net/v1/dl/x", b"http://127.0.0.1:80/x", b"https://[::1]/", b"https://u@h:1/x?y")
    waits = (b"120", b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994")
    quantities: dict[str, tuple[Callable[[object], object], tuple[bytes, ...]]] = {
        "duration": (units.parse_duration, (b"30s", b"1.5h", b"10ms")),
        "size": (units.parse_size, (b"64MiB", b"4096B")),
        "share": (units.parse_share, (b"20%", b"0.5%")),
    }
    return [
        Target("token address", lambda data: pkcs11.parse_uri(as_text(data)), (RequestError,), uris, 40),
        Target("retry after", lambda data: retry_after.wait_s(as_text(data), 784_111_777.0), (), waits, 20, 200),
        Target("download address", lambda data: check_url(as_text(data), DEVICE), (Refused,), places, 40),
        *(
            Target(name, lambda data, parse=parse: parse(as_text(data)), (ValueError,), seeds, 10)  # type: ignore[misc]
            for name, (parse, seeds) in quantities.items()
        ),
    ]


def _certificates() -> list[Target]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEVICE_ID)])
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, datetime(2026, 1, 1), datetime(2046, 1, 1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(DEVICE_ID)]), critical=False)
    signed = made.sign(key, None)
    pem, der = (signed.public_bytes(form) for form in (serialization.Encoding.PEM, serialization.Encoding.DER))
    subject = b"CN=door-17,O=Example\\, Inc.+OU=\\D0\\9F"
    said = b'By=spiffe://x;Hash=ab;Cert="%2D";Subject="' + subject + b'";URI=;DNS=door-17'
    seeds = {
        Form.CERTIFICATE: (quote(pem).encode(), base64.b64encode(der), b":" + base64.b64encode(der) + b":"),
        Form.SUBJECT: (subject, b"2.5.4.3=door-17, C=DE"),
        Form.XFCC: (said, b"DNS=door-17;Subject=CN"),
    }

    def read(data: bytes, form: Form) -> object:
        names = []
        for part in Part:
            with suppress(PayloadError):
                names.append(name_in(as_text(data), form, part))
        if not names:
            raise PayloadError("no name")
        return names

    return [
        Target(f"certificate as {form}", partial(read, form=form), (PayloadError,), texts, 20)
        for form, texts in seeds.items()
    ]


def _read_topic(data: bytes) -> object:
    topic = as_text(data)
    return topics.may_lie_retained(topic), topics.is_command(topic), topics.parse_uplink(topic)
