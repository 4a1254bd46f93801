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
    BrokerUrl,
    Count,
    Duration,
    FilePath,
    Folders,
    Identifier,
    Interval,
    Listen,
    Prefixes,
    PresignLifetime,
    Size,
    StoreUrl,
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
        max_connections: open connections, beyond which new ones are refused.
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
    """

    url: StoreUrl = "sqlite:////var/lib/ota-orchestrator/state.db"

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
        public_keys_file: the public keys that devices hold; credential `device-keys` if absent.
        trigger_lifetime_s: how long a device may act on a trigger.
        epoch: key epoch, raised when the trigger key is replaced.
    """

    trigger_key_file: FilePath = None
    public_keys_file: FilePath = None
    trigger_lifetime_s: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 86400.0
    epoch: Count = 1


class Download(Section):
    """How devices get the bytes: the daemon redirects them to a presigned URL, or serves a local file itself.

    Attributes:
        presign_lifetime_s: how long a presigned URL works.
    """

    presign_lifetime_s: PresignLifetime = 900.0


class Devices(Section):
    """How devices become known.

    Attributes:
        enrolment: `hello` registers a device when it first says hello, `closed` only those added by an operator.
    """

    enrolment: Literal["hello", "closed"] = "hello"


class Recorder(Section):
    """The loop that turns reports into facts.

    Attributes:
        batch: most reports in one transaction.
        linger_s: how long a batch may wait to fill.
    """

    batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    linger_s: Annotated[Duration, Field(le=1)] = 0.01


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
    """

    link_grace_s: Duration = 60.0


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
        ("trust", "public_keys_file"): "device-keys",
    }

    deployment: Identifier = "my-fleet"
    http: Http = Http()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    s3: S3 = S3()
    sources: Sources = Sources()
    trust: Trust = Trust()
    download: Download = Download()
    devices: Devices = Devices()
    recorder: Recorder = Recorder()
    dispatcher: Dispatcher = Dispatcher()
    conductor: Conductor = Conductor()
    log: Log = Log()

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
