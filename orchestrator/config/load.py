"""Make the settings out of the file, the environment and the credentials.

Rules:
- The environment lies over the file, the file over the defaults. A secret that no key names is looked for among the
  credentials of systemd.
- Nothing is dropped: every unknown key, unknown `OTA_` variable, wrong value and missing file is a fault, and all
  faults are raised at once, each with its key and its remedy.
- A fault never repeats a value that stood where a secret might have stood.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource

from orchestrator import strict_yaml
from orchestrator.config.settings import ENV_DELIMITER, ENV_PREFIX, Settings
from orchestrator.errors import ConfigError

# Variables of the command line's options; they configure the client, not the daemon.
COMMAND_LINE_NAMES = frozenset({"OTA_CONFIG", "OTA_SERVER", "OTA_SOCKET", "OTA_TOKEN_FILE"})
_MAX_SECRET_BYTES = 64 * 1024
_REQUIRED = {
    "trust.trigger_key_file": "the key that triggers are signed with; `ota keys init` makes one",
    "trust.public_keys_file": "the public keys that devices hold; `ota keys init` writes them",
    "http.operator_token_file": "the bearer token of operators; put 32 random bytes as text into a file of mode 0600",
}
_PAIRS = (
    ("mqtt.username", "mqtt.password_file"),
    ("mqtt.cert_file", "mqtt.key_file"),
    ("s3.access_key_id", "s3.secret_access_key_file"),
    ("download.cdn_origin", "download.cdn_url"),
)
_TLS_KEYS = ("mqtt.ca_file", "mqtt.cert_file", "mqtt.key_file")

_Tree = dict[str, Any]
_Fault = tuple[str, str]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings that the file and the environment make together.

    Args:
        path: the YAML file.
        environ: the environment; `OTA_MQTT__URL` is `mqtt.url`, lists are written with commas.

    Raises:
        ConfigError: with every fault that was found.
    """
    settings, faults = look(path, environ)
    if faults:
        raise ConfigError(faults)
    return settings


def look(path: Path, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the settings as `load` does, with the default in the place of each wrong value, and every fault.

    Raises:
        ConfigError: the file cannot be read, or is no YAML.
    """
    tree = _read(path)
    faults = _lay_over(tree, environ)
    _name_credentials(tree, environ)
    settings, wrong = _build(tree)
    # A check that looks at a value already known to be wrong would only report that fault twice.
    known = {key for key, _ in wrong}
    for key, text, *used in _checks(settings):
        if known.isdisjoint((key, key.partition(".")[0], *used)):
            wrong.append((key, text))
    return settings, [f"{key}: {text}" for key, text in faults + wrong]


def effective(settings: Settings) -> str:
    """Return the settings as YAML that `load` reads back; it holds no secret, for settings hold none."""
    return yaml.safe_dump(settings.model_dump(mode="json", by_alias=True), sort_keys=False)


def read_secret(path: Path) -> str:
    """Return the one line of text that a secret's file holds.

    Raises:
        ConfigError: the file cannot be read, is empty, or is no line of text.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SECRET_BYTES + 1).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not text"]) from None
    if not text.strip() or "\n" in text or len(text) > _MAX_SECRET_BYTES:
        raise ConfigError([f"{path}: must hold the secret as one line of text"])
    return text


def keys() -> list[str]:
    """Return every key, dotted, in the order of `config.yaml`."""
    return list(_leaves(Settings, ""))


def _read(path: Path) -> _Tree:
    try:
        with path.open("rb") as file:
            tree = strict_yaml.parse(file.read(strict_yaml.MAX_BYTES + 1))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); name the file with --config"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"{path}: must hold sections such as `http:` and `mqtt:`"])
    return tree


def _lay_over(tree: _Tree, environ: Mapping[str, str]) -> list[_Fault]:
    """Lay the variables over the tree; return those that name nothing."""
    names = {ENV_PREFIX + key.replace(".", ENV_DELIMITER).upper(): key for key in keys()}
    given = {name: text for name, text in environ.items() if name.startswith(ENV_PREFIX)}
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): text for name, text in given.items() if name in names}
    for section, value in source().items():
        if not isinstance(value, dict):
            tree[section] = value
        elif isinstance(tree.setdefault(section, {}), dict):
            tree[section].update(value)
    return [(name, _unknown(name, names)) for name in sorted(given) if name not in names.keys() | COMMAND_LINE_NAMES]


def _name_credentials(tree: _Tree, environ: Mapping[str, str]) -> None:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    for (section, key), name in Settings.CREDENTIALS.items() if folder else ():
        path = Path(folder or "") / name
        values = tree.setdefault(section, {})
        if isinstance(values, dict) and values.get(key) is None and path.exists():
            values[key] = path


def _build(tree: _Tree) -> tuple[Settings, list[_Fault]]:
    """Return settings in which each wrong value is replaced by its default, and what was wrong."""
    tree = deepcopy(tree)
    try:
        return Settings(**tree), []
    except ValidationError as error:
        faults = [(_dotted(item["loc"]), _sentence(item)) for item in error.errors()]
        for item in error.errors():
            _remove(tree, item["loc"])
        return Settings(**tree), faults


def _remove(tree: _Tree, place: tuple[int | str, ...]) -> None:
    # Settings match names in any case, so the section may stand in the tree with another one.
    section = next((name for name in tree if str(name).lower() == str(place[0]).lower()), place[0])
    key = place[1:2]
    if key and isinstance(tree.get(str(section)), dict):
        tree[str(section)].pop(key[0], None)
    else:
        tree.pop(str(section), None)


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return _unknown(_dotted(item["loc"]), keys())
    if item["type"] in ("model_type", "model_attributes_type"):
        return "must hold keys; remove the section if it has none"
    text = str(item["msg"]).removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should", "must")


def _unknown(name: str, known: Mapping[str, str] | list[str]) -> str:
    file_key = next((key for key in known if key.lower() == f"{name}_file".lower()), None)
    if file_key:
        return f"a secret never stands here; put it into a file of mode 0600 and name that in {file_key}"
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown; did you mean {close[0]}?" if close else "unknown; config.yaml shows every key"


def _checks(settings: Settings) -> Iterator[tuple[str, ...]]:
    """Yield (key, sentence, other keys used) for what no single value shows."""
    values = dict(_flat(settings))
    needless = {
        "trust.trigger_key_file": bool(settings.trust.token_keys),
        "http.operator_token_file": not settings.operators.bootstrap_token,
    }
    for key, meaning in _REQUIRED.items():
        if values[key] is None and not needless.get(key):
            credential = Settings.CREDENTIALS[key.split(".")[0], key.split(".")[1]]
            yield key, f"missing: {meaning}. Name the file here, or load it as the credential {credential}"
    for one, other in _PAIRS:
        if (values[one] is None) != (values[other] is None):
            absent, present = (one, other) if values[one] is None else (other, one)
            yield absent, f"missing, though {present} is given; these two go together", present
    for key in _TLS_KEYS:
        if values[key] is not None and not settings.mqtt.tls:
            yield key, "needs an encrypted connection; let mqtt.url begin with mqtts://", "mqtt.url"
    if settings.mqtt.reconnect_min_s > settings.mqtt.reconnect_max_s:
        yield "mqtt.reconnect_min", "is longer than mqtt.reconnect_max", "mqtt.reconnect_max"
    for key, value in values.items():
        if isinstance(value, Path) and (fault := _unreadable(value)):
            yield key, fault
    for file in settings.certificates.files:
        if fault := _unreadable(file):
            yield "certificates.files", fault
    issuers = settings.client_certificates
    if (issuers.issuer_header is None) != (not issuers.issuer_hashes):
        text = "must stand together with client_certificates.issuer_header; give both, or none"
        yield "client_certificates.issuer_hashes", text, "client_certificates.issuer_header"
    if settings.unsigned_clients.allow and not settings.unsigned_clients.reason.strip():
        yield "unsigned_clients.reason", "missing: say why devices may get what they cannot verify, or do not allow it"
    uploads = settings.hawkbit.uploads
    if uploads is not None and not _is(Path(uploads), Path.is_dir):
        yield "hawkbit.uploads", f"there is no folder {uploads}; make it, with the daemon's user as its owner"
    for folder in settings.sources.file_roots:
        if not folder.is_absolute() or not _is(folder, Path.is_dir):
            yield "sources.file_roots", f"{folder} is not the absolute path of a folder"


def _unreadable(path: Path) -> str | None:
    if not _is(path, Path.is_file):
        return f"there is no file {path}"
    return None if os.access(path, os.R_OK) else f"{path} cannot be read by this user"


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Ask what a path is; one that cannot be, being too long, is nothing."""
    try:
        return kind(path)
    except OSError:
        return False


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{key}.")
        else:
            yield key


def _flat(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name, value in settings:
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{type(value).model_fields[key].alias or key}", item) for key, item in value)
        else:
            yield name, value
