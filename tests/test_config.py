from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import config
from orchestrator.config.load import keys
from orchestrator.daemon import given
from orchestrator.errors import ConfigError
from orchestrator.web.certificate_headers import Form, Part
from orchestrator.web.certificates import CertificateSettings

SHIPPED = Path(__file__).parents[1] / "config.yaml"
MISSING = ("trust.trigger_key_file", "trust.public_keys_file", "http.operator_token_file")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The credentials that every daemon needs, as systemd would hand them over."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name in ("trigger-key", "device-keys", "operator-token"):
        (folder / name).write_text("something\n")
    return {"CREDENTIALS_DIRECTORY": str(folder), "HOME": "/root"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def faults_of(file: Path, environ: dict[str, str], text: str = "") -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, environ)
    return caught.value.faults


def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def test_the_shipped_file_names_every_key_in_order() -> None:
    assert leaves(yaml.safe_load(SHIPPED.read_text())) == keys()


def test_the_shipped_file_is_the_defaults(environ: dict[str, str], file: Path) -> None:
    file.write_text("")
    assert config.load(SHIPPED, environ) == config.load(file, environ)


def test_the_shipped_file_alone_lacks_only_the_secrets() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(SHIPPED, {})
    assert [fault.partition(":")[0] for fault in caught.value.faults] == list(MISSING)
    assert caught.value.faults[0] == (
        "trust.trigger_key_file: missing: the key that triggers are signed with; `ota keys init` makes one. "
        "Name the file here, or load it as the credential trigger-key"
    )


def test_what_is_effective_loads_to_the_same(environ: dict[str, str], file: Path) -> None:
    settings = config.load(SHIPPED, environ)
    file.write_text(config.effective(settings))
    assert config.load(file, {}) == settings


def test_values_arrive_in_seconds_and_bytes(environ: dict[str, str], file: Path) -> None:
    file.write_text("sources: {max_artifact_size: 64MiB}\nrecorder: {linger: 20ms}\nmqtt: {keepalive: 2m}\n")
    settings = config.load(file, environ)
    assert settings.sources.max_artifact_size_bytes == 64 * 2**20
    assert (settings.recorder.linger_s, settings.mqtt.keepalive_s) == (0.02, 120.0)


def test_addresses_come_apart(environ: dict[str, str], file: Path) -> None:
    file.write_text('http: {listen: "[::1]:0"}\nmqtt: {url: "mqtts://broker.example.net"}\n')
    settings = config.load(file, environ)
    assert (settings.http.host, settings.http.port) == ("::1", 0)
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.tls) == ("broker.example.net", 8883, True)
    assert settings.store.path == Path("/var/lib/ota-orchestrator/state.db")


def test_the_environment_lies_over_the_file(environ: dict[str, str], file: Path, tmp_path: Path) -> None:
    file.write_text("deployment: one\nhttp: {listen: '127.0.0.1:1'}\nsources: {watch: ['s3://a/']}\n")
    settings = config.load(
        file,
        environ
        | {
            "OTA_DEPLOYMENT": "two",
            "OTA_HTTP__LISTEN": "127.0.0.1:2",
            "OTA_MQTT__RECEIVE_MAXIMUM": "7",
            "OTA_MQTT__SESSION_EXPIRY": "2h",
            "OTA_SOURCES__WATCH": "s3://b/, s3://c/d/",
            "OTA_SOURCES__FILE_ROOTS": str(tmp_path),
            "OTA_SERVER": "http://127.0.0.1:9",
        },
    )
    assert (settings.deployment, settings.http.port, settings.mqtt.receive_maximum) == ("two", 2, 7)
    assert settings.mqtt.session_expiry_s == 7200.0
    assert settings.sources.watch == ("s3://b/", "s3://c/d/")
    assert settings.sources.file_roots == (tmp_path,)


def test_a_named_file_goes_before_the_credential(environ: dict[str, str], file: Path, tmp_path: Path) -> None:
    key = tmp_path / "trigger.pem"
    key.write_text("key")
    file.write_text(f"trust: {{trigger_key_file: {key}}}\n")
    settings = config.load(file, environ)
    assert settings.trust.trigger_key_file == key
    assert settings.trust.public_keys_file == Path(environ["CREDENTIALS_DIRECTORY"]) / "device-keys"


def test_settings_are_frozen(environ: dict[str, str]) -> None:
    settings = config.load(SHIPPED, environ)
    with pytest.raises(ValueError, match="frozen"):
        settings.mqtt.keepalive_s = 1.0


def test_all_faults_at_once(file: Path) -> None:
    text = """
deployment: My Fleet
htp: {}
http: {listn: "127.0.0.1:80", public_url: "ftp://x"}
mqtt: {keepalive: 30, receive_maximum: many, protocol: 5, username: daemon}
recorder: []
"""
    environ = {"OTA_MTQQ__URL": "mqtt://x", "OTA_MQTT__KEEPALIV": "1s", "OTA_S3__ACCESS_KEY_ID": "AK"}
    faults = faults_of(file, environ, text)
    assert faults[:10] == [
        "OTA_MQTT__KEEPALIV: unknown; did you mean OTA_MQTT__KEEPALIVE?",
        "OTA_MTQQ__URL: unknown; did you mean OTA_MQTT__URL?",
        "deployment: must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit",
        "http.public_url: must begin with http:// or https:// and name a host",
        "http.listn: unknown; did you mean http.listen?",
        'mqtt.keepalive: 30 is not a duration; write a number with its unit, such as "30s" or "24h"',
        "mqtt.receive_maximum: must be a valid integer, unable to parse string as an integer",
        "mqtt.protocol: must be '5' or '3.1.1'",
        "recorder: must hold keys; remove the section if it has none",
        "htp: unknown; config.yaml shows every key",
    ]
    assert [fault.partition(":")[0] for fault in faults[10:]] == [
        *MISSING,
        "mqtt.password_file",
        "s3.secret_access_key_file",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "mqtt: {password: hunter2}",
            "mqtt.password: a secret never stands here; put it into a file of mode 0600 and "
            "name that in mqtt.password_file",
        ),
        (
            "s3: {secret_access_key: hunter2}",
            "s3.secret_access_key: a secret never stands here; put it into a file of "
            "mode 0600 and name that in s3.secret_access_key_file",
        ),
        ("mqtt: {username: d, password_file: hunter2}", "mqtt.password_file: must be a path with a slash"),
        ('trust: {trigger_key_file: "-----BEGIN KEY----- hunter2/"}', "trust.trigger_key_file: must be a path"),
        ("mqtt: {url: 'mqtt://d:hunter2@h'}", "mqtt.url: must not hold a user or password"),
        ("s3: {endpoint_url: 'https://a:hunter2@h'}", "s3.endpoint_url: must not hold a user or password"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(environ: dict[str, str], file: Path, text: str, fault: str) -> None:
    (found,) = faults_of(file, environ, text)
    assert found.startswith(fault)
    assert "hunter2" not in found


def test_a_secret_in_the_environment_is_refused_and_not_repeated(environ: dict[str, str], file: Path) -> None:
    (found,) = faults_of(file, environ | {"OTA_MQTT__PASSWORD": "hunter2"})
    assert found.startswith("OTA_MQTT__PASSWORD: a secret never stands here;")
    assert found.endswith("OTA_MQTT__PASSWORD_FILE")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("http: {listen: 8080}", "http.listen: must be a valid string"),
        ("http: {listen: localhost}", "http.listen: must be an address and a port"),
        ('http: {listen: "127.0.0.1:99999"}', "http.listen: must be an address and a port"),
        ("http: {public_url: 'https://h/'}", "http.public_url: must be a base such as https://updates.example.net"),
        ("http: {public_url: 'https://[h'}", "http.public_url: is not a URL"),
        ("http: {max_connections: 0}", "http.max_connections: must be greater than or equal to 1"),
        ("mqtt: {url: '127.0.0.1:1883'}", "mqtt.url: must begin with mqtt:// or mqtts:// and name a host"),
        ("mqtt: {url: 'mqtt://h/topic'}", "mqtt.url: must be mqtt://host:port or mqtts://host:port and no more"),
        ("mqtt: {keepalive: 1s}", "mqtt.keepalive: must be greater than or equal to 5"),
        ("mqtt: {reconnect_min: 0s}", "mqtt.reconnect_min: must be more than nothing"),
        ("mqtt: {reconnect_min: 2m}", "mqtt.reconnect_min: is longer than mqtt.reconnect_max"),
        ("mqtt: {ca_file: /dev/null/x, url: 'mqtts://h'}", "mqtt.ca_file: there is no file /dev/null/x"),
        ("store: {url: 'sqlite:///state.db'}", "store.url: must be sqlite:// and then an absolute path"),
        ("sources: {watch: ['http://x/']}", "sources.watch.0: must begin with s3:// or file://"),
        ("sources: {file_roots: [here]}", "sources.file_roots: here is not the absolute path of a folder"),
        ("certificates: {files: [./none.pem]}", "certificates.files: there is no file none.pem"),
        ("conductor: {ceiling_share: 0.2}", "conductor.ceiling_share: 0.2 is not a share; write a percentage"),
        ("conductor: {ceiling_share: 101%}", "conductor.ceiling_share: '101%' is not a share"),
        ("gates: {origins: ['https://h.example/x']}", "gates.origins.0: must be an origin such as https://metrics."),
        ("gates: {origins: ['ftp://h.example']}", "gates.origins.0: must begin with http:// or https://"),
        ("gates: {origins: ['https://ann@h.example']}", "gates.origins.0: must not hold a user or password"),
        ("gates: {networks: [10.0.0.1/8]}", "gates.networks.0: must be a network such as 10.0.0.0/8"),
        ("conductor: {outage_floor: 0}", "conductor.outage_floor: must be greater than or equal to 1"),
        ("conductor: {ceiling_floor: 0}", "conductor.ceiling_floor: must be greater than or equal to 1"),
        ("sources: {max_artifact_size: 5}", "sources.max_artifact_size: 5 is not a size"),
        ("trust: {token_keys: [trigger.pem]}", "trust.token_keys.0: must be a URI such as pkcs11:"),
        ("trust: {token_keys: ['pkcs11:a?pin-value=1234']}", "trust.token_keys.0: must not hold a PIN;"),
        ("download: {presign_lifetime: 8d}", 'download.presign_lifetime: must be between "1s" and "5d"'),
        ("download: {cdn_url: 'https://h'}", "download.cdn_origin: missing, though download.cdn_url is given"),
        ("download: {cdn_url: 'https://h', cdn_origin: 's3://b'}", "download.cdn_origin: must be s3://bucket/ or"),
        ("download: {site_at_once: -1}", "download.site_at_once: must be greater than or equal to 0"),
        ("download: {site_turn: 0s}", "download.site_turn: must be more than nothing"),
        ("dispatcher: {batch: 51}", "dispatcher.batch: must be less than or equal to 50"),
        ("recorder: {linger: 2s}", "recorder.linger: must be less than or equal to 1"),
        ("log: {level: loud}", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("http:", "http: must hold keys; remove the section if it has none"),
        ("mqtt: {keepalive_s: 60s}", "mqtt.keepalive_s: unknown; did you mean mqtt.keepalive?"),
    ],
)
def test_each_wrong_value_is_one_fault(environ: dict[str, str], file: Path, text: str, fault: str) -> None:
    (found,) = faults_of(file, environ, text)
    assert found.startswith(fault)


def test_a_section_that_is_no_mapping_stays_a_fault_under_the_environment(environ: dict[str, str], file: Path) -> None:
    assert faults_of(file, environ | {"OTA_HTTP__LISTEN": "127.0.0.1:1"}, "http: 5") == [
        "http: must hold keys; remove the section if it has none"
    ]


def test_tls_files_need_tls_and_come_in_pairs(environ: dict[str, str], file: Path, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("x")
    assert faults_of(file, environ, f"mqtt: {{cert_file: {tmp_path}/cert.pem}}") == [
        "mqtt.key_file: missing, though mqtt.cert_file is given; these two go together",
        "mqtt.cert_file: needs an encrypted connection; let mqtt.url begin with mqtts://",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2\n", "line 2: duplicate key 'a'"),
        ("http: [\n", "line 2: "),
        ("- a\n", "must hold sections such as `http:` and `mqtt:`"),
    ],
)
def test_a_broken_file_is_one_fault(environ: dict[str, str], file: Path, text: str, fault: str) -> None:
    (found,) = faults_of(file, environ, text)
    assert found.startswith(f"{file}: {fault}")


def test_a_missing_file_is_a_fault(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file or directory\); name the file"):
        config.load(tmp_path / "none.yaml", environ)


def test_a_secret_is_read_without_its_line_break(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret with spaces \n")
    assert config.read_secret(tmp_path / "token") == "s3cret with spaces "


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "must hold the secret as one line"),
        (b" \n", "must hold the secret as one line"),
        (b"a\nb\n", "must hold the secret as one line"),
        (b"a" * 70_000, "must hold the secret as one line"),
        (b"\xff", "is not text"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, data: bytes | None, fault: str) -> None:
    if data is not None:
        (tmp_path / "token").write_bytes(data)
    with pytest.raises(ConfigError, match=fault):
        config.read_secret(tmp_path / "token")


def test_without_the_shared_account_no_token_file_is_needed(file: Path, environ: dict[str, str]) -> None:
    (Path(environ["CREDENTIALS_DIRECTORY"]) / "operator-token").unlink()
    assert [fault.partition(":")[0] for fault in faults_of(file, environ)] == ["http.operator_token_file"]
    file.write_text("operators: {bootstrap_token: false, socket_users: [1000, 1001]}\n")
    settings = config.load(file, environ)
    assert (settings.http.operator_token_file, settings.operators.socket_users) == (None, (1000, 1001))


def test_the_admin_socket_is_an_absolute_path_and_its_users_are_numbers(file: Path, environ: dict[str, str]) -> None:
    text = "operators: {socket: admin.sock, socket_users: [ann], approve_above: 0.5}\n"
    assert [fault.partition(":")[0] for fault in faults_of(file, environ, text)] == [
        "operators.approve_above",
        "operators.socket",
        "operators.socket_users.0",
    ]


def test_checkpoints_go_to_an_absolute_path(environ: dict[str, str], file: Path) -> None:
    file.write_text("audit: {checkpoint_file: /srv/ota/checkpoints}\n")
    assert config.load(file, environ).audit.checkpoint_file == "/srv/ota/checkpoints"
    assert "audit.checkpoint_file: must be an absolute path" in faults_of(
        file, environ, "audit: {checkpoint_file: checkpoints}"
    )


def test_who_lets_devices_have_what_they_cannot_verify_says_why(environ: dict[str, str], file: Path) -> None:
    for text in ("{allow: true}", "{allow: true, reason: ' '}"):
        [fault] = faults_of(file, environ, f"unsigned_clients: {text}")
        assert fault.startswith("unsigned_clients.reason: missing: say why devices may get what they cannot verify")
    file.write_text("unsigned_clients: {allow: true, reason: a laboratory}")
    assert config.load(file, environ).unsigned_clients.reason == "a laboratory"


def test_client_certificates_are_read(environ: dict[str, str], file: Path) -> None:
    file.write_text(
        "client_certificates:\n  proxies: [127.0.0.1/32, 'fd00::/8']\n  header: X-Controller-ID\n  form: name\n"
        "  verify_header: null\n  issuer_header: X-Authority-1\n  issuer_hashes: ['AB:CD:EF:01']\n"
    )
    known = given.certificates(config.load(file, environ))
    assert known.settings == CertificateSettings(
        (ip_network("127.0.0.1/32"), ip_network("fd00::/8")),
        "x-controller-id",
        Form.NAME,
        Part.COMMON_NAME,
        "",
        "x-authority-1",
        ("ab:cd:ef:01",),
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("proxies: [everywhere]", "proxies.0"),
        ("header: 'X Client'", "header"),
        ("verify_header: ''", "verify_header"),
        ("form: pem", "form"),
        ("identifier: serial", "identifier"),
        ("issuer_header: x-authority-1", "issuer_hashes"),
        ("issuer_hashes: [deadbeef]", "issuer_hashes"),
        ("issuer_hashes: [hash]", "issuer_hashes.0"),
    ],
)
def test_faults_of_client_certificates(environ: dict[str, str], file: Path, text: str, key: str) -> None:
    [fault] = faults_of(file, environ, f"client_certificates: {{{text}}}")
    assert fault.startswith(f"client_certificates.{key}: ")


def test_a_section_in_another_case_with_a_wrong_value_is_a_clear_error(file: Path) -> None:
    file.write_text("loG:\n  level: infoo\n  format: auto\n")
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    assert any("level" in fault for fault in refused.value.faults)


@pytest.mark.parametrize("key", ["sources.file_roots", "certificates.files"])
def test_a_path_that_no_file_system_can_hold_is_a_fault_and_no_crash(file: Path, key: str) -> None:
    section, name = key.split(".")
    file.write_text(yaml.safe_dump({section: {name: ["/" + "9" * 300]}}))
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    assert any(fault.startswith(key) for fault in refused.value.faults)
