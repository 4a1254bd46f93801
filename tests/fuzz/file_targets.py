"""The parsers of files: keys, leases and checkpoints, and what people write by hand.

Rules:
- A parser that gets a path gets one, below the folder given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator import config, strict_yaml
from orchestrator.adapters import checkpoints, keys
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import lease
from orchestrator.errors import ConfigError, ConflictError, RequestError, TrustError
from orchestrator.plans import read_plan
from orchestrator.sim import behaviour, credentials
from tests.fuzz.target import Target, as_text, on_file
from tests.fuzz.wire_targets import make_checkpoint
from tests.golden import kit
from tests.web.site import PLAN

ROOT = Path(__file__).parents[2]
YAML_S = 0.3
"""PyYAML looks 1,024 characters ahead at every open bracket, before we see the first one."""
LOGIN = b'{"device":"door-17","model":"esp32-c3","mqtt_password":"x","token":"y"}\n'
HELD = b'{"upto":2000,"fence":3,"audit_n":7,"audit_hash":"' + b"ab" * 32 + b'"}\n'


def file_targets(folder: Path) -> list[Target]:
    """Return the targets that read files; these are written below `folder`."""
    return [*_key_files(folder), *_records(folder), *_by_hand(folder)]


def _key_files(folder: Path) -> list[Target]:
    private, other = ec.derive_private_key(7, ec.SECP256R1()), ec.derive_private_key(7, ec.SECP384R1())
    edwards = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    public = keys.public_pem(private.public_key())
    unknown = public.replace(b"MFkwEwYHKoZIzj0CAQ", b"MFkwEwYHKoZIzj0CAg")
    signs = (keys.pem_of(private), keys.pem_of(other))
    shown = (
        public,
        keys.public_pem(other.public_key()),
        unknown,
        edwards.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    refused = (RequestError,)
    return [
        Target("private key", on_file(folder / "key", FileSigner.load), refused, signs, 10),
        Target("public key", on_file(folder / "public", keys.load_public_key), refused, shown, 10),
        Target("checkpoint key", on_file(folder / "witness", checkpoints.load_checkpoint_key), refused, shown, 10),
        Target(
            "device keys",
            on_file(folder / "keys", keys.load_device_keys),
            (TrustError,),
            (kit.compact({"v": 1, "iss": "test-fleet", "ep": 3, "keys": kit.SECURED["keys"]}),),
            10,
        ),
    ]


def _records(folder: Path) -> list[Target]:
    lines = b"".join(make_checkpoint(n) + b"\n" for n in range(3))
    x, y = int.from_bytes(kit.beat_key.x, "big"), int.from_bytes(kit.beat_key.y, "big")
    witness = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    known = on_file(folder / "checkpoints", lambda path: checkpoints.load_checkpoints(path, witness))
    return [
        Target("lease", on_file(folder / "lease", lease.read), (ConflictError,), (HELD,), 20),
        Target("checkpoints", known, (), (lines, lines[:-9]), 10),
        Target("logins", on_file(folder / "logins", credentials.load), (ConfigError,), (LOGIN, LOGIN * 3), 20),
    ]


def _by_hand(folder: Path) -> list[Target]:
    settings = _excerpts("config.yaml")
    fleet = _excerpts("docs/examples/fleet.yaml")
    plan = (*_excerpts("docs/examples/plan.yaml"), *_plans())
    given = b"OTA_MQTT__URL=mqtt://h:1\nOTA_SOURCES__FILE_ROOTS=/a,/b\nOTA_HTTP__LISTEN=[::1]:80\nOTA_X=1"
    faulty = (ConfigError,)
    return [
        Target("yaml", strict_yaml.parse, (ValueError,), (*settings, *fleet, *plan), 10, 1024, YAML_S),
        Target(
            "config", on_file(folder / "config", lambda path: config.load(path, {})), faulty, settings, 4, 1024, YAML_S
        ),
        Target("environment", lambda data: config.load(Path(os.devnull), _variables(data)), faulty, (given,), 4, 1024),
        Target("secret", on_file(folder / "secret", config.read_secret), faulty, (b"abc\n", b"abc", b"a b\r\n"), 10),
        Target("plan", read_plan, faulty, plan, 8, 1024, YAML_S),
        Target("fleet", on_file(folder / "fleet", behaviour.load), faulty, fleet, 6, 1024, YAML_S),
        Target("id pattern", _make_ids, faulty, (b"sim-{:05d}", b"{}", b"a{0}b", b"x-{:x}"), 10, 64),
    ]


def _excerpts(name: str) -> tuple[bytes, ...]:
    """Return a YAML file of ours without its comments: whole, and section by section."""
    document = yaml.safe_load((ROOT / name).read_bytes())
    pieces = [document, *({key: value} for key, value in document.items())]
    return tuple(yaml.safe_dump(piece, sort_keys=False).encode() for piece in pieces)


def _plans() -> Iterator[bytes]:
    """Yield small plans that are good: the least one, and one with each section of the example."""
    document = yaml.safe_load((ROOT / "docs/examples/plan.yaml").read_bytes())
    yield yaml.safe_dump(PLAN).encode()
    yield from (yaml.safe_dump(PLAN | {key: value}).encode() for key, value in document.items())


def _variables(data: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in as_text(data).split("\n"))
    return {name: value for name, _, value in pairs}


def _make_ids(data: bytes) -> object:
    return behaviour.altered(behaviour.Behaviour(), {"id_pattern": as_text(data)}).device_ids()
