"""Keys that never leave a token: signing over PKCS#11, addressed by a URI as of RFC 7512.

Rules:
- Tokens offer plain CKM_ECDSA at least, so SHA-256 is ours; their `r || s` leaves with the low S.
- The PIN comes from a file and is read at each login; a PIN that was refused is never tried again, for tokens lock.
- A token that went away is looked for at the next signature: that is `UnavailableError`, never a lost trigger.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from orchestrator.adapters.signers.file import check_mode, low_s
from orchestrator.errors import ForbiddenError, NotFoundError, OrchestratorError, RequestError, UnavailableError
from orchestrator.wire.token import key_id

MAX_URI_CHARACTERS = 1024
MAX_PIN_BYTES = 256
_P256 = bytes.fromhex("06082a8648ce3d030107")  # the object identifier of the curve in DER
_POINT = bytes.fromhex("044104")  # DER octet string of 65 bytes that begin with 4: an uncompressed point
_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?]|%[0-9A-Fa-f]{2})*")
_WRONG_PIN = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Where a key lies.

    Attributes:
        module: the PKCS#11 library, an absolute path.
        token: label of the token, "" for any.
        serial: serial number of the token, empty for any.
        label: label of the key object, "" for any.
        id: identifier of the key object, empty for any.
        pin_file: file with the PIN, None where the URI names none.
    """

    module: Path
    token: str
    serial: bytes
    label: str
    id: bytes
    pin_file: Path | None


def parse_uri(text: str) -> TokenKey:
    """Read a `pkcs11:` URI such as `pkcs11:token=ota;object=trigger?module-path=/usr/lib/softhsm/libsofthsm2.so`.

    Raises:
        RequestError: it is no such URI, names something that we do not look at, or holds the PIN itself.
    """
    if not text.startswith("pkcs11:") or len(text) > MAX_URI_CHARACTERS:
        raise _bad_uri("begin it with pkcs11: and keep it below 1,024 characters")
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    places = _attributes(path, ";", ("token", "serial", "object", "id", "type"))
    options = _attributes(query, "&", ("module-path", "pin-source"))
    if places.get("type", b"private") != b"private":
        raise _bad_uri("type must be private, for we sign")
    if not places.keys() & {"token", "serial"} or not places.keys() & {"object", "id"}:
        raise _bad_uri("name the token by token= or serial=, and the key by object= or id=")
    module = _path(options.get("module-path", b""), "module-path")
    pin_file = _path(options["pin-source"], "pin-source") if "pin-source" in options else None
    token, label = _text(places.get("token", b"")), _text(places.get("object", b""))
    return TokenKey(module, token, places.get("serial", b""), label, places.get("id", b""), pin_file)


class TokenSigner:
    """A `ports.Signer` whose key stays in a token."""

    def __init__(self, place: TokenKey, pin_file: Path | None) -> None:
        self._place = place
        self._pin_file = place.pin_file or pin_file
        self._lock = threading.Lock()  # a session does one thing at a time
        self._refused = ""
        self._key, (self.x, self.y) = self._open()
        self._kid = key_id(self.x, self.y)

    @classmethod
    def load(cls, uri: str, pin_file: Path | None = None) -> TokenSigner:
        """Log in to the token and find the key.

        Args:
            uri: as of `parse_uri`.
            pin_file: file with the PIN, used where the URI names none.

        Raises:
            RequestError: the URI is wrong, or the key is not of P-256.
            NotFoundError: there is no such module, token, key or PIN file.
            ForbiddenError: the token refuses the PIN, or wants one; or others may read the file with it.
            UnavailableError: the token does not work now.
        """
        return cls(parse_uri(uri), pin_file)

    @property
    def kid(self) -> str:
        """Identifier of the key, derived from its public point."""
        return self._kid

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S.

        Raises:
            UnavailableError: the token does not work now; the next call opens it anew.
        """
        digest = hashlib.sha256(data).digest()
        with self._lock:
            if self._key is None:
                self._open_again()
            try:
                return low_s(bytes(self._key.sign(digest, mechanism=Mechanism.ECDSA)))
            except (pkcs11.PKCS11Error, ValueError) as error:
                self._key = None
                raise self._away(error) from None

    def _open_again(self) -> None:
        try:
            key, point = self._open()
        except OrchestratorError as error:
            raise UnavailableError(error.message, code=error.code) from None
        if point != (self.x, self.y):
            raise UnavailableError(f"{self._name} holds another key by now; put the old one back", code="key_changed")
        self._key = key

    def _open(self) -> tuple[Any, tuple[bytes, bytes]]:
        if self._refused:
            raise ForbiddenError(self._refused, code="pin_refused")
        try:
            session = self._session(_token(self._place))
            key = _one(session, self._place, ObjectClass.PRIVATE_KEY)
            public = _one(session, self._place, ObjectClass.PUBLIC_KEY)
            return key, _point(public, self._name)
        except _WRONG_PIN:
            self._refused = f"{self._name} refuses the PIN; put the right one into the file before you start again"
            raise ForbiddenError(self._refused, code="pin_refused") from None
        except pkcs11.NoSuchToken:
            raise NotFoundError(f"{self._name} is not there; plug it in, or mend token=", code="no_token") from None
        except (pkcs11.MultipleTokensReturned, pkcs11.MultipleObjectsReturned):
            raise RequestError(f"{self._name}: several fit; add serial= or id= to the URI", code="ambiguous") from None
        except pkcs11.NoSuchKey:
            raise self._no_key() from None
        except pkcs11.PKCS11Error as error:
            raise self._away(error) from None

    def _session(self, token: Any) -> Any:
        if self._pin_file is None:
            return token.open()
        try:
            return token.open(user_pin=_pin(self._pin_file))
        except pkcs11.UserAlreadyLoggedIn:  # by the other key that we have in this token; a login is the process's
            return token.open()

    def _no_key(self) -> OrchestratorError:
        if self._pin_file is None:
            return ForbiddenError(f"{self._name} shows no such key without a PIN; name its file", code="pin_missing")
        return NotFoundError(
            f"{self._name} holds no pair of private and public key of that name; mend object= or id=", code="no_key"
        )

    def _away(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"{self._name} does not work now ({type(error).__name__})", code="token_away")

    @property
    def _name(self) -> str:
        return f"token {self._place.token or self._place.serial.decode('ascii', 'replace')!r}"


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise _bad_uri("a PIN never stands in it; put it into a file of mode 0600 and name that as pin-source")
        if name not in known:
            raise _bad_uri(f"{name[:40]!r} is not looked at; we know {', '.join(known)}")
        if not equals or not value or name in found or not _VALUE.fullmatch(value):
            raise _bad_uri(f"{name} must stand there once, with a value in which other signs are written as %XX")
        found[name] = unquote_to_bytes(value)
    return found


def _path(raw: bytes, name: str) -> Path:
    text = _text(raw)
    if text.startswith("file:"):
        text = urlsplit(text).path
    if not text.startswith("/"):
        raise _bad_uri(f"{name} must be an absolute path")
    return Path(text)


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _bad_uri("it is not text") from None
    if not text.isprintable():
        raise _bad_uri("it holds control characters")
    return text


def _bad_uri(reason: str) -> RequestError:
    return RequestError(f"the pkcs11: URI cannot be used: {reason}", code="bad_pkcs11_uri")


def _token(place: TokenKey) -> Any:
    if not place.module.is_file():
        raise NotFoundError(f"there is no PKCS#11 module {place.module}; mend module-path", code="no_module")
    try:
        library = pkcs11.lib(str(place.module))
    except (pkcs11.PKCS11Error, RuntimeError):
        raise RequestError(f"{place.module} is not a PKCS#11 module that can be loaded", code="bad_module") from None
    wanted: dict[str, object] = {"token_label": place.token or None, "token_serial": place.serial or None}
    return library.get_token(**{name: value for name, value in wanted.items() if value})


def _one(session: Any, place: TokenKey, kind: ObjectClass) -> Any:
    find: Callable[..., Any] = session.get_key
    return find(object_class=kind, key_type=KeyType.EC, label=place.label or None, id=place.id or None)


def _point(public: Any, name: str) -> tuple[bytes, bytes]:
    raw = bytes(public[Attribute.EC_POINT])
    if bytes(public[Attribute.EC_PARAMS]) != _P256 or not raw.startswith(_POINT) or len(raw) != 67:
        raise RequestError(f"{name} holds another kind of key; ES256 needs P-256", code="wrong_curve")
    return raw[3:35], raw[35:]


def _pin(path: Path) -> str:
    try:
        with path.open("rb") as file:
            check_mode(os.fstat(file.fileno()), path)
            pin = file.read(MAX_PIN_BYTES + 1).decode().removesuffix("\n")
    except OSError as error:
        text = f"PIN file {path}: {error.strerror}; name it with --pin-file, pin-source= or trust.token_pin_file"
        raise NotFoundError(text, code="no_pin") from None
    except UnicodeDecodeError:
        raise RequestError(f"PIN file {path} is not text", code="bad_pin") from None
    if not pin or "\n" in pin or len(pin) > MAX_PIN_BYTES:
        raise RequestError(f"PIN file {path} must hold the PIN as one line", code="bad_pin")
    return pin
