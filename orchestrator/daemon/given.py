"""What the settings give: secrets read, keys opened, and the settings of each adapter.

Rules:
- Nothing is decided here; a value that is missing where it is needed was refused when the configuration was checked.
- A key is opened once, and only the keyring says for what it is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import config
from orchestrator.adapters.asker import AskerSettings, settings_of
from orchestrator.adapters.certificates import file_expires_at, peer_expires_at
from orchestrator.adapters.checkpoints import CheckpointFile
from orchestrator.adapters.files import FileSource
from orchestrator.adapters.keys import load_device_keys
from orchestrator.adapters.mqtt import MqttSettings
from orchestrator.adapters.reach import Network
from orchestrator.adapters.s3 import S3Settings, S3Source
from orchestrator.adapters.shelf import FolderShelf
from orchestrator.adapters.signers import open_signer
from orchestrator.config import Settings
from orchestrator.core.pace.budget import Budget
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.rate import Pace
from orchestrator.core.trust.expiry import Expiry
from orchestrator.engine.offers.sealer import SealerSettings
from orchestrator.engine.reports.outage import Loss
from orchestrator.engine.reports.recorder import RecorderSettings
from orchestrator.engine.trust.approvals import Rules
from orchestrator.engine.trust.expiry import Source
from orchestrator.engine.trust.footing import check_footing
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import ConfigError
from orchestrator.ports import Signer
from orchestrator.ports.keysets import Footing
from orchestrator.verifier import TRIGGER
from orchestrator.web.certificate_headers import Form, Part
from orchestrator.web.certificates import Certificates, CertificateSettings
from orchestrator.web.context import CdnSettings, DdiSettings
from orchestrator.web.management.settings import Management


def keyring(
    settings: Settings,
    stored: Iterable[tuple[int, bytes]],
    now: Callable[[], float],
    last: Footing | None = None,
    accepted: int | None = None,
) -> Keyring:
    """Return the keyring, after checking that devices would take what we sign.

    Args:
        settings: checked.
        stored: the keysets that were taken.
        now: the clock.
        last: on which keyset the daemon stood, None before its first start.
        accepted: number of a keyset that devices hold, as a person says.

    Raises:
        OrchestratorError: a key cannot be opened, none of them is good, or devices were given another keyset.
    """
    held = load_device_keys(needed(settings.trust.public_keys_file))
    made = Keyring(held, stored, signers(settings), now)
    check_footing(made.keyset, last, accepted)
    faults = [f"trust.trigger_key_file: {' '.join(found)}"] if (found := made.faults(TRIGGER)) else []
    if held.iss != settings.deployment:
        faults.append(f"deployment: the devices of trust.public_keys_file belong to {held.iss}; name the same here")
    if faults:
        raise ConfigError(faults)
    return made


def signers(settings: Settings) -> list[Signer]:
    """Open every private key that triggers and beats may be signed with; those of tokens come after those in files."""
    trust = settings.trust
    files = (trust.trigger_key_file, trust.next_trigger_key_file, trust.beat_key_file)
    opened: list[Signer] = [open_signer(path) for path in files if path is not None]
    return opened + [open_signer(uri, trust.token_pin_file) for uri in trust.token_keys]


def checkpoints(settings: Settings) -> tuple[Signer | None, CheckpointFile]:
    """Return who signs checkpoints of the audit log, and where they are kept."""
    key = settings.audit.checkpoint_key_file
    return None if key is None else open_signer(key), CheckpointFile(settings.checkpoint_path)


def expiring(settings: Settings, keys: Keyring) -> dict[str, Source]:
    """Return who knows what expires when, by name."""
    return {
        "keys": lambda: [Expiry(name, ends_at) for name, ends_at in keys.expiries()],
        **certificates_in_use(settings),
    }


def certificates_in_use(settings: Settings) -> dict[str, Source]:
    """Return who knows when each certificate ends, by name."""
    mqtt, s3 = settings.mqtt, settings.s3
    found: dict[str, Source] = {}
    if mqtt.tls:
        found["broker"] = partial(_peer, "certificate of the broker", mqtt.host, mqtt.port)
    if s3.endpoint_url and s3.endpoint_url.startswith("https://"):
        url = urlsplit(s3.endpoint_url)
        found["s3"] = partial(_peer, "certificate of S3", url.hostname or "", url.port or 443)
    for path in (*((mqtt.cert_file,) if mqtt.cert_file else ()), *settings.certificates.files):
        found[str(path)] = partial(_file, path)
    return found


def _peer(name: str, host: str, port: int) -> list[Expiry]:
    return [Expiry(name, peer_expires_at(host, port))]


def _file(path: Path) -> list[Expiry]:
    return [Expiry(f"certificate {path}", file_expires_at(path))]


def sources(settings: Settings) -> tuple[FileSource, S3Source]:
    """Return where artifacts come from."""
    secret = settings.s3.secret_access_key_file
    s3 = S3Settings(
        endpoint_url=settings.s3.endpoint_url,
        region=settings.s3.region,
        access_key_id=settings.s3.access_key_id,
        secret_access_key=config.read_secret(secret) if secret else None,
        addressing_style=settings.s3.addressing_style,
        timeout_s=settings.s3.timeout_s,
        attempts=settings.s3.attempts,
    )
    uploads = () if settings.hawkbit.uploads is None else (Path(settings.hawkbit.uploads),)
    return FileSource((*settings.sources.file_roots, *uploads)), S3Source(s3)


def mqtt(settings: Settings) -> MqttSettings:
    """Return how to reach the broker."""
    given = settings.mqtt
    return MqttSettings(
        host=given.host,
        port=given.port,
        client_id=given.client_id,
        username=given.username,
        password=config.read_secret(given.password_file) if given.password_file else None,
        tls=given.tls,
        ca_file=_text(given.ca_file),
        cert_file=_text(given.cert_file),
        key_file=_text(given.key_file),
        keepalive_s=int(given.keepalive_s),
        session_expiry_s=int(given.session_expiry_s),
        receive_maximum=given.receive_maximum,
        version_5=given.protocol == "5",
        reconnect_min_s=given.reconnect_min_s,
        reconnect_max_s=given.reconnect_max_s,
    )


def recording(settings: Settings) -> RecorderSettings:
    """Return how reports are taken in."""
    given = settings.recorder
    pace = Pace(given.device_burst, given.device_interval_s)
    loss = Loss(settings.conductor.outage_share, settings.conductor.outage_floor)
    return RecorderSettings(given.batch, given.linger_s, settings.devices.enrolment == "hello", pace, loss)


def asking(settings: Settings) -> AskerSettings:
    """Return which services may be asked."""
    return settings_of(settings.gates.origins, settings.gates.networks)


def posting(settings: Settings) -> tuple[Network, ...]:
    """Return the networks that are not public and to which events may go."""
    return tuple(map(ip_network, settings.webhooks.networks))


def sealing(settings: Settings) -> SealerSettings:
    """Return how triggers are made."""
    return SealerSettings(
        deployment=settings.deployment,
        public_url=settings.http.public_url.rstrip("/"),
        lifetime_s=settings.trust.trigger_lifetime_s,
        batch=settings.dispatcher.batch,
        ahead=settings.dispatcher.sealed_ahead,
    )


def ceiling(settings: Settings) -> Ceiling:
    """Return how many devices may be offered a release per hour, and how many may be in flight."""
    budget = Budget(settings.rollouts.in_flight, settings.rollouts.reserved)
    return Ceiling(settings.conductor.ceiling_share, settings.conductor.ceiling_floor, budget)


def rules(settings: Settings) -> Rules:
    """Return when approvals are asked for."""
    given = settings.operators
    return Rules(given.two_persons == "always", given.approve_above, given.approval_lifetime_s)


def operator_token(settings: Settings) -> str:
    """Return the token of the shared account, "" where it is off."""
    if not settings.operators.bootstrap_token:
        return ""
    return config.read_secret(needed(settings.http.operator_token_file))


def certificates(settings: Settings) -> Certificates:
    """Return who reads what proxies say of client certificates."""
    known = settings.client_certificates
    return Certificates(
        CertificateSettings(
            tuple(map(ip_network, known.proxies)),
            known.header,
            Form(known.form),
            Part(known.identifier),
            known.verify_header or "",
            known.issuer_header or "",
            known.issuer_hashes,
        )
    )


def ddi(settings: Settings) -> DdiSettings:
    """Return how clients of hawkBit's API are served."""
    known, file = settings.ddi, settings.ddi.gateway_token_file
    token = "" if file is None else config.read_secret(file)
    return DdiSettings(known.tenant, known.poll_interval_s, known.version_attribute, token)


def management(settings: Settings) -> Management | None:
    """Return how hawkBit's Management API is served, None for not at all."""
    known = settings.hawkbit
    if not known.management:
        return None
    shelf = None if known.uploads is None else FolderShelf(Path(known.uploads))
    return Management(shelf, settings.sources.max_artifact_size_bytes, known.model, known.enforces)


def cdn(settings: Settings) -> CdnSettings:
    """Return where devices are sent instead of to the bucket."""
    return CdnSettings(settings.download.cdn_origin or "", settings.download.cdn_url or "")


def needed(path: Path | None) -> Path:
    """Return a path that the check of the configuration has made sure of."""
    assert path is not None, "the configuration was checked"
    return path


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
