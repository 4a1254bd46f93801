"""Whether the daemon can come in at the broker, tried without taking anything from it.

Rules:
- A broker ends the connection of a client that comes a second time: while the daemon runs nobody logs in.
- Its session is resumed as the daemon would, and left as it was: nothing that waits in it is acknowledged, so nothing
  is lost, and it lives on for as long as the daemon asks.
"""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.doctor.party import Address
from orchestrator.errors import UnavailableError

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Session:
    """The daemon's session at the broker, and how it comes in.

    Attributes:
        client_id: its client identifier.
        expiry_s: how long the broker keeps it.
        version_5: whether MQTT 5 is spoken, else 3.1.1.
        username: login, None for none.
        password: its secret.
        cert_file: client certificate, None for none.
        key_file: its key.
    """

    client_id: str
    expiry_s: int
    version_5: bool = True
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cert_file: str | None = None
    key_file: str | None = None


def reach(address: Address, session: Session) -> None:
    """Connect, shake hands by TLS where it is used, and leave. Blocks.

    Raises:
        UnavailableError: nobody answers, or the certificate is not good.
    """
    where = f"{address.host}:{address.port}"
    try:
        with socket.create_connection((address.host, address.port), TIMEOUT_S) as connection:
            if address.tls:
                _context(address, session).wrap_socket(connection, server_hostname=address.host).close()
    except ssl.SSLError as error:
        text = f"TLS with {where} failed: {getattr(error, 'verify_message', '') or error.reason or error}"
        raise UnavailableError(text, code="broker_tls") from None
    except (OSError, UnicodeError) as error:  # the latter for what can be no name of a host
        said = getattr(error, "strerror", None) or error
        raise UnavailableError(f"nobody answers at {where}: {said}", code="no_broker") from None


def come_in(address: Address, session: Session) -> None:
    """Log in as the daemon does, and leave again; only while it does not run. Blocks.

    Args:
        address: where the broker is.
        session: which session to resume, and by which login.

    Raises:
        UnavailableError: the broker cannot be reached, or does not let us in (`broker_refused`).
    """
    protocol = paho.MQTTv5 if session.version_5 else paho.MQTTv311
    # Without MQTT 5 a session is kept because it is not a clean one.
    kept = None if session.version_5 else False
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        session.client_id,
        clean_session=kept,
        protocol=protocol,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = TIMEOUT_S
    if session.username is not None:
        client.username_pw_set(session.username, session.password)
    if address.tls:
        client.tls_set_context(_context(address, session))
    answered, answers = threading.Event(), list[Any]()

    def on_connect(_client: object, _userdata: object, _flags: object, code: Any, _properties: object) -> None:
        answers.append(code)
        answered.set()

    client.on_connect = on_connect
    client.on_disconnect = lambda *_: answered.set()
    where = f"{address.host}:{address.port}"
    try:
        if session.version_5:
            asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            asked.SessionExpiryInterval, asked.ReceiveMaximum = session.expiry_s, 1
            client.connect(address.host, address.port, clean_start=False, properties=asked)
        else:
            client.connect(address.host, address.port)
    except (OSError, ValueError) as error:  # TLS errors are among these
        raise UnavailableError(f"nobody answers at {where}: {error}", code="no_broker") from None
    client.loop_start()
    try:
        answered.wait(TIMEOUT_S)
    finally:
        client.disconnect()
        client.loop_stop()
    if not answers or answers[0].is_failure:
        said = answers[0] if answers else "it ended the connection"
        raise UnavailableError(f"the broker at {where} refused us: {said}", code="broker_refused")


def _context(address: Address, session: Session) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if session.cert_file is not None:
            context.load_cert_chain(session.cert_file, session.key_file)
    except OSError as error:  # TLS errors are among these
        raise UnavailableError(f"the TLS files of mqtt cannot be used: {error}", code="tls_files") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
