"""The settings of the daemon: frozen sections with their limits and defaults.

Rules:
- A key in the file is the field without its unit (`keepalive` is `keepalive_s`): there the value carries the unit.
- No secret is ever a value here: the fields that end in `_file` name the files that hold them.
- What one value alone can get wrong is checked in `values`; what several of them, or the file system, can, in `load`.
- `config.yaml` shows every key with its default; a test keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestrator.config.values import (
    AbsolutePath,
    BrokerUrl,
    Count,
    Duration,
    FilePath,
    Files,
    Folders,
    Hashes,
    HeaderName,
    Identifier,
    Interval,
    Listen,
    Networks,
    Origins,
    Prefix,
    Prefixes,
    PresignLifetime,
    Share,
    Signatures,
    Size,
    StoreUrl,
    TokenUris,
    Users,
    WebUrl,
)

ENV_PREFIX = "OTA_"
ENV_DELIMITER = "__"


def key_of(field: str) -> str:
    """Return the key under which a field stands in the file."""
    return field.removesuffix("_s").removesuffix("_bytes")


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=key_of)


class Http(Section):
    """The HTTP side: operators and devices.

    Attributes:
        listen: address and port to listen on; port 0 takes a free one.
        public_url: base under which devices reach us; it is signed into every trigger as the download locator.
        operator_token_file: file with the bearer token of operators; credential `operator-token` if absent.
        max_connections: open connections, beyond which idle ones make room, and without any new ones are refused.
    """

    listen: Listen = "127.0.0.1:8080"
    public_url: WebUrl = "http://127.0.0.1:8080"
    operator_token_file: FilePath = None
    max_connections: Count = 4096

    @property
    def host(self) -> str:
        """Address part of `listen`, without brackets."""
        return urlsplit(f"//{self.listen}").hostname or ""

    @property
    def port(self) -> int:
        """Port part of `listen`."""
        return urlsplit(f"//{self.listen}").port or 0


class Metrics(Section):
    """What watches over the daemon.

    Attributes:
        listen: address and port of a listener of its own for `/metrics`, `/healthz` and `/readyz`, which asks for no
            token; None for none. Behind `http.listen`, who may read gets the same.
    """

    listen: Listen | None = None

    @property
    def host(self) -> str:
        """Address part of `listen`, without brackets."""
        return urlsplit(f"//{self.listen or ''}").hostname or ""

    @property
    def port(self) -> int:
        """Port part of `listen`."""
        return urlsplit(f"//{self.listen or ''}").port or 0


class Mqtt(Section):
    """The broker and our session on it.

    Attributes:
        url: `mqtt://host:port` or, with TLS, `mqtts://host:port`.
        client_id: fixed client identifier; the broker keeps our session under it.
        username: login, or None for anonymous and for client certificates.
        password_file: file with the password; credential `mqtt-password` if absent.
        ca_file: certificates that may have signed the broker's; the system's own if absent.
        cert_file: our client certificate.
        key_file: private key of that certificate.
        keepalive_s: longest silence on the connection.
        session_expiry_s: how long the broker keeps reports for us while we are away.
        receive_maximum: reports in our hands that are not yet acknowledged.
        protocol: MQTT version.
        reconnect_min_s: first pause after a lost connection; it doubles each time, with jitter.
        reconnect_max_s: longest pause.
    """

    url: BrokerUrl = "mqtt://127.0.0.1:1883"
    client_id: Identifier = "ota-orchestrator"
    username: str | None = None
    password_file: FilePath = None
    ca_file: FilePath = None
    cert_file: FilePath = None
    key_file: FilePath = None
    keepalive_s: Annotated[Duration, Field(ge=5, le=65535)] = 60.0
    session_expiry_s: Duration = 86400.0
    receive_maximum: Annotated[int, Field(ge=1, le=65535)] = 4000
    protocol: Literal["5", "3.1.1"] = "5"
    reconnect_min_s: Interval = 1.0
    reconnect_max_s: Interval = 60.0

    @property
    def host(self) -> str:
        """Host of the broker."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the broker; 1883 or, with TLS, 8883 where the URL names none."""
        return urlsplit(self.url).port or (8883 if self.tls else 1883)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"


class Store(Section):
    """Where the state is kept.

    Attributes:
        url: `sqlite://` and an absolute path.
        keep_s: how long what single devices said and got is kept after the end of their rollout.
    """

    url: StoreUrl = "sqlite:////var/lib/ota-orchestrator/state.db"
    keep_s: Annotated[Duration, Field(ge=7 * 86400)] = 365 * 86400.0

    @property
    def path(self) -> Path:
        """File of the database."""
        return Path(self.url.removeprefix("sqlite:///"))


class S3(Section):
    """The S3 service that artifacts come from.

    Attributes:
        endpoint_url: base of a service other than AWS.
        region: region that requests are signed for.
        access_key_id: identifier of the access key; None for the usual AWS chain (roles, environment).
        secret_access_key_file: file with the secret of that key; credential `s3-secret` if absent.
        addressing_style: `path` puts the bucket in the path, `virtual` in the host name.
        timeout_s: for connecting and for each read.
        attempts: tries of one request, the first included.
    """

    endpoint_url: WebUrl | None = None
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key_file: FilePath = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    timeout_s: Interval = 10.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 4


class Sources(Section):
    """What may be imported, and what is imported by itself.

    Attributes:
        file_roots: folders below which `file://` artifacts may lie.
        watch: prefixes (`s3://bucket/prefix/`, `file:///folder/`) that are looked through for signed artifacts.
        watch_interval_s: pause between two looks.
        max_artifact_size_bytes: larger artifacts are refused unread.
    """

    file_roots: Folders = ()
    watch: Prefixes = ()
    watch_interval_s: Interval = 60.0
    max_artifact_size_bytes: Size = 2 * 2**30


class Trust(Section):
    """Keys, and how long a trigger holds.

    Attributes:
        trigger_key_file: private key that triggers are signed with; credential `trigger-key` if absent.
        next_trigger_key_file: its successor, which signs once devices accept the first no more; credential
            `next-trigger-key` if absent.
        beat_key_file: private key that beats are signed with; credential `beat-key` if absent.
        token_keys: `pkcs11:` URIs of private keys in tokens, used like those in files and after them.
        token_pin_file: PIN of tokens whose URI names none; credential `token-pin` if absent.
        public_keys_file: the public keys that devices hold; credential `device-keys` if absent.
        trigger_lifetime_s: how long a device may act on a trigger.
        moving_beat_s: pause between two beats while devices move to other endpoints; each waits for one there.
    """

    trigger_key_file: FilePath = None
    next_trigger_key_file: FilePath = None
    beat_key_file: FilePath = None
    token_keys: TokenUris = ()
    token_pin_file: FilePath = None
    public_keys_file: FilePath = None
    trigger_lifetime_s: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 86400.0
    moving_beat_s: Annotated[Duration, Field(ge=1, le=3600)] = 60.0


class Download(Section):
    """How devices get the bytes: the daemon redirects them to a presigned URL, or serves a local file itself.

    Attributes:
        presign_lifetime_s: how long a presigned URL works.
        cdn_origin: prefix of the addresses of artifacts that a CDN has; the last character is a slash.
        cdn_url: base to which the rest of such an address is added; the two go together.
        site_at_once: devices of one site that may download at once; 0 for no limit.
        site_turn_s: how long a device that was sent elsewhere, or broke off, counts among them.
    """

    presign_lifetime_s: PresignLifetime = 900.0
    cdn_origin: Prefix | None = None
    cdn_url: WebUrl | None = None
    site_at_once: Annotated[int, Field(ge=0)] = 0
    site_turn_s: Interval = 600.0


class Devices(Section):
    """How devices become known.

    Attributes:
        enrolment: `hello` registers a device when it first says hello, `closed` only those added by an operator.
        poll_interval_s: when those that poll shall ask again, where their dialect has no rhythm of its own.
    """

    enrolment: Literal["hello", "closed"] = "hello"
    poll_interval_s: Annotated[Duration, Field(ge=1, le=7 * 86400)] = 300.0


class UnsignedClients(Section):
    """Devices that verify no trigger, and images without a native signature that they enforce.

    Attributes:
        allow: whether such devices may be offered such images.
        reason: why; shown wherever it matters, and kept in the audit log.
    """

    allow: bool = False
    reason: Annotated[str, Field(max_length=200)] = ""


class ClientCertificates(Section):
    """What TLS proxies before us say of the client certificates of devices.

    Attributes:
        proxies: networks of the proxies whose word is taken; empty for nobody's.
        header: header with the certificate, or with its name.
        form: what stands there: the `certificate`, Envoy's `xfcc`, the `subject`, or the bare `name`.
        identifier: which name of the certificate is the identifier of the device.
        verify_header: header that says SUCCESS of a certificate that was verified; None where the proxy passes on
            verified ones alone.
        issuer_header: header with the hash of the issuer; None where that is not looked at.
        issuer_hashes: the issuers that count.
    """

    proxies: Networks = ()
    header: HeaderName = "x-client-cert"
    form: Literal["certificate", "xfcc", "subject", "name"] = "certificate"
    identifier: Literal["common_name", "dns_name"] = "common_name"
    verify_header: HeaderName | None = "x-client-verify"
    issuer_header: HeaderName | None = None
    issuer_hashes: Hashes = ()


class Ddi(Section):
    """hawkBit's API for devices of the dialect `ddi`.

    Attributes:
        tenant: what stands first in the paths of clients, in any case.
        poll_interval_s: when they ask again.
        version_attribute: the attribute by which they say what they run.
        gateway_token_file: file with a token that speaks for any such device; credential `ddi-gateway-token` if
            absent, and without that no token does.
    """

    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "DEFAULT"
    poll_interval_s: Annotated[Duration, Field(ge=1, lt=86400)] = 300.0
    version_attribute: Annotated[str, Field(min_length=1, max_length=128)] = "version"
    gateway_token_file: FilePath = None


class Hawkbit(Section):
    """hawkBit's Management API, for tools that were written around it.

    Attributes:
        management: whether it is served at all.
        uploads: absolute path of a folder for uploads; None where none are taken.
        model: hardware model of new targets; None where devices are enrolled by `ota device add` alone.
        enforces: native signatures that the clients of new targets enforce by themselves.
    """

    management: bool = False
    uploads: AbsolutePath = None
    model: Identifier | None = None
    enforces: Signatures = ()


class EspIdf(Section):
    """Devices of the dialect `esp-idf`.

    Attributes:
        redirects: whether their images may be fetched from where they lie; else the bytes go through the daemon.
    """

    redirects: bool = False


class Recorder(Section):
    """The loop that turns reports into facts.

    Attributes:
        batch: most reports in one transaction.
        linger_s: how long a batch may wait to fill.
        device_burst: messages that a device may send at once on one topic; 0 for no limit.
        device_interval_s: time after which it may send one more.
    """

    batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    linger_s: Annotated[Duration, Field(le=1)] = 0.01
    device_burst: Annotated[int, Field(ge=0, le=10_000)] = 20
    device_interval_s: Interval = 5.0


class Dispatcher(Section):
    """The loop that publishes triggers.

    Attributes:
        batch: most triggers claimed at once, and so most that a halt cannot stop any more.
        sealed_ahead: triggers that are signed and waiting.
    """

    batch: Annotated[int, Field(ge=1, le=50)] = 50
    sealed_ahead: Annotated[int, Field(ge=1, le=10_000)] = 200


class Conductor(Section):
    """The loop that steps rollouts.

    Attributes:
        link_grace_s: after our own broken link to the broker, how long silence of devices is not judged.
        ceiling_share: share of the registered devices that all rollouts together may offer a release per hour.
        ceiling_floor: devices that they may offer it in any case.
        outage_share: share of the connected devices that must go away together for an outage; 1 for never.
        outage_floor: and at least so many.
    """

    link_grace_s: Duration = 60.0
    ceiling_share: Share = 0.2
    ceiling_floor: Count = 500
    outage_share: Share = 0.2
    outage_floor: Count = 20


class Gates(Section):
    """Services that stages may ask.

    Attributes:
        origins: those that may be asked at all.
        networks: networks that are not public, and in which their names may lie all the same.
    """

    origins: Origins = ()
    networks: Networks = ()


class Webhooks(Section):
    """Destinations of events; which ones there are is said by `ota webhook`.

    Attributes:
        networks: networks that are not public, and in which they may lie all the same, also without TLS.
    """

    networks: Networks = ()


class Rollouts(Section):
    """What all rollouts together may have in flight.

    Attributes:
        in_flight: devices that may be updating at once, over all rollouts.
        reserved: share of them that is kept for rollouts of urgency security or emergency.
    """

    in_flight: Count = 50_000
    reserved: Share = 0.2


class Certificates(Section):
    """The watch over what expires: certificates of the broker, of S3 and of our own, and keys.

    Attributes:
        files: certificates to watch besides those of the connections, such as that of the proxy before us.
        watch_interval_s: pause between two looks.
    """

    files: Files = ()
    watch_interval_s: Interval = 21600.0


class Audit(Section):
    """The audit log: what vouches for it, and where that is kept.

    Attributes:
        checkpoint_key_file: private key that checkpoints are signed with; credential `checkpoint-key` if absent.
            Without one the log is chained, but nothing vouches for it.
        checkpoint_file: file that checkpoints are added to; beside the database if absent.
    """

    checkpoint_key_file: FilePath = None
    checkpoint_file: AbsolutePath = None


class Operators(Section):
    """Who may operate, and when a second person must agree.

    Attributes:
        bootstrap_token: whether the token of `http.operator_token_file` opens the shared account `operator`.
        two_persons: `registered` asks for approvals once two persons may give them, `always` does at once.
        approve_above: a start that reaches a larger share of the fleet needs an approval; 1 for never.
        approval_lifetime_s: how long a proposal can be approved and used.
        socket: absolute path of the admin socket; None for none.
        socket_users: users, by number, besides root and our own who are admins there.
        request_rate: requests a second that an account may make for ever; 0 for no limit. To stop is never refused.
        request_burst: requests that it may make at once.
    """

    bootstrap_token: bool = True
    two_persons: Literal["registered", "always"] = "registered"
    approve_above: Share = 1.0
    approval_lifetime_s: Interval = 3600.0
    socket: AbsolutePath = None
    socket_users: Users = ()
    request_rate: Annotated[int, Field(ge=0, le=10_000)] = 50
    request_burst: Count = 500


class Log(Section):
    """What is logged, and how.

    Attributes:
        level: least level that is written.
        format: `json`, `pretty`, or `auto`: pretty on a terminal, else JSON.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


class Settings(BaseSettings):
    """Everything an operator may set; made by `load`.

    Attributes:
        deployment: name of this deployment, signed into every trigger as its issuer.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        enable_decoding=False,
    )
    CREDENTIALS: ClassVar[dict[tuple[str, str], str]] = {
        ("http", "operator_token_file"): "operator-token",
        ("mqtt", "password_file"): "mqtt-password",
        ("s3", "secret_access_key_file"): "s3-secret",
        ("trust", "trigger_key_file"): "trigger-key",
        ("trust", "next_trigger_key_file"): "next-trigger-key",
        ("trust", "beat_key_file"): "beat-key",
        ("trust", "token_pin_file"): "token-pin",
        ("trust", "public_keys_file"): "device-keys",
        ("audit", "checkpoint_key_file"): "checkpoint-key",
        ("ddi", "gateway_token_file"): "ddi-gateway-token",
    }

    deployment: Identifier = "my-fleet"
    http: Http = Http()
    metrics: Metrics = Metrics()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    s3: S3 = S3()
    sources: Sources = Sources()
    trust: Trust = Trust()
    download: Download = Download()
    devices: Devices = Devices()
    client_certificates: ClientCertificates = ClientCertificates()
    ddi: Ddi = Ddi()
    hawkbit: Hawkbit = Hawkbit()
    esp_idf: EspIdf = EspIdf()
    unsigned_clients: UnsignedClients = UnsignedClients()
    recorder: Recorder = Recorder()
    dispatcher: Dispatcher = Dispatcher()
    conductor: Conductor = Conductor()
    gates: Gates = Gates()
    webhooks: Webhooks = Webhooks()
    rollouts: Rollouts = Rollouts()
    certificates: Certificates = Certificates()
    audit: Audit = Audit()
    operators: Operators = Operators()
    log: Log = Log()

    @property
    def checkpoint_path(self) -> Path:
        """File of the checkpoints of the audit log: the one that is named, or the one beside the database."""
        beside = self.store.path.with_name(f"{self.store.path.name}.checkpoints")
        return Path(self.audit.checkpoint_file or beside)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller alone: `load` lays file and environment over each other."""
        return (init_settings,)
