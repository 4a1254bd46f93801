"""What surrounds and feeds the daemon, looked at from its own files, whether it runs or not.

Rules:
- Each look stands alone: what cannot be looked at is a result that says so, and the next look goes on.
- Nothing is changed, and nothing is taken from a daemon that runs: neither its session at the broker nor its lock.
- Texts come from our own errors, which hold no secret; presigned addresses are used and never told.
"""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from orchestrator import config
from orchestrator.adapters.s3 import S3Source
from orchestrator.adapters.store.backup import examine, schemas
from orchestrator.adapters.store.offline import snapshot_of
from orchestrator.config import Settings
from orchestrator.core.trust.expiry import DAY_S, THRESHOLDS_DAYS
from orchestrator.daemon import given
from orchestrator.doctor import clocks, entrance, files
from orchestrator.doctor.party import Address
from orchestrator.doctor.results import Result, fault, unknown, warning, well
from orchestrator.engine.trust.expiry import Source
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.ports.keysets import Footing

CREDENTIALS = Path("/run/credentials/ota-orchestrator.service")
"""Where systemd keeps the secrets of a running service; root may read there."""
HTTP_TIMEOUT_S = 5.0
_S3 = "s3://"
_PUBLIC = "device-keys"


@dataclass(frozen=True, slots=True)
class _Place:
    """What all looks share.

    Attributes:
        settings: as far as they could be read.
        running: whether a daemon works on the database; None where that cannot be seen.
        now: the clock.
    """

    settings: Settings
    running: bool | None
    now: Callable[[], float]


def look(path: Path, environ: Mapping[str, str], now: Callable[[], float] = time.time) -> Iterator[Result]:
    """Look at everything in turn, and yield what was found as it comes. Blocks.

    Args:
        path: the configuration.
        environ: the environment, as for `config.load`.
        now: the clock.
    """
    known = dict(environ)
    if "CREDENTIALS_DIRECTORY" not in known and CREDENTIALS.is_dir():
        known["CREDENTIALS_DIRECTORY"] = str(CREDENTIALS)
    try:
        settings, faults = config.look(path, known)
    except ConfigError as error:
        yield fault("config", error.message, "name the daemon's file with --config; without it nothing else is known")
        return
    yield from _config(path, faults, credentials="CREDENTIALS_DIRECTORY" in known)
    wrong = {fault_.partition(":")[0].partition(".")[0] for fault_ in faults}
    place = _Place(settings, None if "store" in wrong else _running(settings), now)
    for name, sections, each in _LOOKS:
        if bad := wrong.intersection(sections):
            yield unknown(name, f"not looked at, for the configuration of {', '.join(sorted(bad))} has faults")
            continue
        try:
            yield from each(place)
        except OrchestratorError as error:
            yield unknown(name, error.message)


def _config(path: Path, faults: list[str], *, credentials: bool) -> Iterator[Result]:
    if not faults:
        yield well("config", f"{path} has no faults")
    for text in faults:
        if not credentials and "load it as the credential" in text:
            remedy = "ask again as root while the daemon runs, so that its credentials can be seen"
            yield unknown("config", text, remedy)
        else:
            yield fault("config", text, "mend it, and see `ota check-config`")


def _running(settings: Settings) -> bool | None:
    """Look whether somebody has the lock of the database, and let go of it at once if nobody has."""
    try:
        with Path(f"{settings.store.path}.lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def _daemon(place: _Place) -> Iterator[Result]:
    if place.running is None:
        yield unknown(
            "daemon", f"whether it runs is not known: {place.settings.store.path}.lock cannot be read", _AS_ROOT
        )
        return
    if not place.running:
        yield warning("daemon", "it does not run", "systemctl start ota-orchestrator, unless that is what you want")
        return
    listening = place.settings.http
    if not listening.port:
        yield unknown("daemon", "it runs; on which port it listens is not written anywhere")
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening.host, listening.host)
    asked = http.client.HTTPConnection(host, listening.port, timeout=HTTP_TIMEOUT_S)
    try:
        asked.request("GET", "/readyz")
        status = asked.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        yield fault("daemon", f"it runs, but does not answer at {listening.listen}: {type(error).__name__}", _LOGS)
    else:
        if status == 200:
            yield well("daemon", f"it runs, and is ready at {listening.listen}")
        else:
            yield fault("daemon", "it runs, and says that it cannot do its work", "`ota status` says why")
    finally:
        asked.close()


def _store(place: _Place) -> Iterator[Result]:
    path = place.settings.store.path
    if not path.parent.is_dir():
        yield fault("store.disk", f"the folder {path.parent} does not exist", "create it, for the daemon's user")
        return
    size_bytes = path.stat().st_size if path.is_file() else 0
    yield files.room("store.disk", path.parent, size_bytes)
    if not path.is_file():
        yield warning("store", f"there is no database {path}", "`ota serve` makes it on its first start")
        return
    yield files.secret_file("store.file", path)
    try:
        schema, audit_n = examine(path, f"the database {path}")
    except OrchestratorError as error:
        remedy = "stop the daemon, keep a copy of the file, and put the last good backup back: `ota restore FILE`"
        yield fault("store.integrity", error.message, remedy)
        return
    yield well("store.integrity", f"the database is whole, with {audit_n} as its last audit entry")
    known = schemas()
    if schema == known[0]:
        yield well("store.schema", f"schema {schema}, that of this program")
    elif schema in known:
        yield warning(
            "store.schema", f"schema {schema} is older than {known[0]}", "`ota serve` brings it up; back up first"
        )
    else:
        text = f"schema {schema[:64]!r} is not known to this program, which has {known[0]}"
        yield fault("store.schema", text, "run the newer version that brought it up")


def _broker(place: _Place) -> Iterator[Result]:
    mqtt = place.settings.mqtt
    wanted = given.mqtt(place.settings)
    address = Address(mqtt.host, mqtt.port, mqtt.tls, wanted.ca_file)
    session = entrance.Session(
        wanted.client_id,
        wanted.session_expiry_s,
        wanted.version_5,
        wanted.username,
        wanted.password,
        wanted.cert_file,
        wanted.key_file,
    )
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        entrance.reach(address, session)
    except OrchestratorError as error:
        yield fault(
            "broker.reach", error.message, "see that the broker runs, and mqtt.url, mqtt.ca_file and the firewall"
        )
        return
    yield well("broker.reach", f"{where} answers{', and its certificate is good' if mqtt.tls else ''}")
    if place.running is not False:
        text = "the login is not tried while a daemon may run: the broker would end its connection"
        yield unknown("broker.login", text, "`ota status` says whether it is connected")
        return
    try:
        entrance.come_in(address, session)
    except OrchestratorError as error:
        yield fault("broker.login", error.message, "see mqtt.username, its password or certificate, and docs/broker.md")
    else:
        yield well("broker.login", f"{where} lets the daemon in; `ota doctor broker` proves what devices may do there")


def _s3(place: _Place) -> Iterator[Result]:
    settings = place.settings
    prefixes = [prefix for prefix in settings.sources.watch if prefix.startswith(_S3)]
    artifact = _newest_in_s3(settings.store.path)
    if not prefixes and artifact is None:
        yield unknown("s3", "nothing in S3 is used: no prefix is watched, and no imported artifact lies there")
        return
    patient = settings.model_copy(update={"s3": settings.s3.model_copy(update={"attempts": 1, "timeout_s": 5.0})})
    local, source = given.sources(patient)
    del local
    try:
        for prefix in prefixes:
            yield asyncio.run(_list(source, prefix))
        if artifact is None:
            yield unknown("s3.read", "no imported artifact lies in S3, so nothing can be fetched")
        else:
            yield from asyncio.run(_fetch(source, artifact))
    finally:
        source.close()


def _newest_in_s3(database: Path) -> str | None:
    if not database.is_file():
        return None
    with snapshot_of(database) as tx:
        return next((artifact.uri for artifact in tx.artifacts() if artifact.uri.startswith(_S3)), None)


async def _list(source: S3Source, prefix: str) -> Result:
    try:
        async for _ in source.list(prefix):
            break
    except OrchestratorError as error:
        return fault("s3.list", error.message, _S3_REMEDY)
    return well("s3.list", f"{prefix} can be listed")


async def _fetch(source: S3Source, uri: str) -> list[Result]:
    try:
        found = await source.stat(uri)
        url = await source.download_url(found.locator, valid_s=60)
    except OrchestratorError as error:
        return [fault("s3.head", error.message, _S3_REMEDY)]
    return [well("s3.head", f"{uri} is there"), await asyncio.to_thread(_presigned, uri, url)]


def _presigned(uri: str, url: str) -> Result:
    """Fetch one byte as a device would."""
    # The environment's proxy is for the internet; a service beside us is asked as the daemon asks it.
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    try:
        with opener.open(Request(url, headers={"Range": "bytes=0-0"}), timeout=HTTP_TIMEOUT_S) as answer:
            answer.read(1)
    except OSError as error:  # URLError and HTTPError are among these; their texts may hold the address
        said = getattr(error, "code", None) or type(error).__name__
        remedy = "see that the key of s3.access_key_id may read, and that the address devices get is the bucket's"
        return fault("s3.presigned", f"a presigned address of {uri} does not work: {said}", remedy)
    return well("s3.presigned", f"a presigned address of {uri} works")


def _clocks(place: _Place) -> Iterator[Result]:
    yield clocks.synchronised()
    s3 = place.settings.s3
    if s3.endpoint_url or any(prefix.startswith(_S3) for prefix in place.settings.sources.watch):
        url = s3.endpoint_url or f"https://s3.{s3.region}.amazonaws.com"
        yield clocks.beside("clock.s3", url, place.now)


def _keys(place: _Place) -> Iterator[Result]:
    settings = place.settings
    if settings.trust.public_keys_file is None:
        yield unknown("keys", "trust.public_keys_file is not known, so keys cannot be judged", _AS_ROOT)
        return
    try:
        stored, last = _submitted(settings.store.path)
    except OrchestratorError as error:
        yield unknown("keys", error.message, "see `store` above; keys are judged by what it holds")
        return
    try:
        keyring = given.keyring(settings, stored, place.now, last)
    except OrchestratorError as error:
        yield fault("keys", error.message, "`ota keys` and docs/keys.md say how keys are made and replaced")
        return
    yield well("keys", f"devices accept what the daemon signs, under keyset {keyring.epoch}")
    yield from _ends("keys", given.expiring(settings, keyring)["keys"], place.now())


def _submitted(database: Path) -> tuple[list[tuple[int, bytes]], Footing | None]:
    """Return the keysets that were taken, and on which one the daemon stood."""
    if not database.is_file():
        return [], None
    with snapshot_of(database) as tx:
        return list(tx.keysets()), tx.footing()


def _certificates(place: _Place) -> Iterator[Result]:
    for name, source in given.certificates_in_use(place.settings).items():
        yield from _ends(f"certificate.{name}", source, place.now())


def _ends(name: str, source: Source, now: float) -> Iterator[Result]:
    try:
        found = source()
    except OrchestratorError as error:
        yield unknown(name, error.message)
        return
    for item in found:
        days = (item.expires_at - now) / DAY_S
        if days <= 0:
            yield fault(name, f"{item.name} ended {-days:.0f} days ago", "replace it now")
        elif days <= THRESHOLDS_DAYS[0]:
            yield warning(name, f"{item.name} ends in {days:.0f} days", "replace it")
        else:
            yield well(name, f"{item.name} is good for {days:.0f} more days")


def _secrets(place: _Place) -> Iterator[Result]:
    for (section, key), name in Settings.CREDENTIALS.items():
        path = getattr(getattr(place.settings, section), key)
        if path is not None:
            judge = files.public_file if name == _PUBLIC else files.secret_file
            yield judge(f"file.{name}", path)
    if place.settings.mqtt.key_file is not None:
        yield files.secret_file("file.mqtt-key", place.settings.mqtt.key_file)


_AS_ROOT = "ask again as root or as the daemon's user"
_LOGS = "journalctl -u ota-orchestrator -n 50"
_S3_REMEDY = "see s3 in the configuration, and the rights of its key in the bucket's policy"
_LOOKS: tuple[tuple[str, tuple[str, ...], Callable[[_Place], Iterator[Result]]], ...] = (
    ("daemon", ("http", "store"), _daemon),
    ("store", ("store",), _store),
    ("broker", ("mqtt",), _broker),
    ("s3", ("s3", "sources", "store"), _s3),
    ("clock", ("s3", "sources"), _clocks),
    ("keys", ("trust", "deployment", "store"), _keys),
    ("certificate", ("mqtt", "s3", "certificates"), _certificates),
    ("file", (), _secrets),
)
"""What is looked at, in this order, and the sections of the configuration that each look needs."""
