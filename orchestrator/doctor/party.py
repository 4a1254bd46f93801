"""One client at a broker, for people who ask what the broker really does.

Rules:
- A party is blocking: each call returns when the broker answered, or after `PATIENCE_S`.
- It never comes back by itself: a connection that the broker ended is an answer.
- What it hears is kept, newest last, up to `KEPT` messages that `keep` lets through.
"""

from __future__ import annotations

import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from orchestrator.errors import UnavailableError

PATIENCE_S = 5.0
KEPT = 10_000
WINDOW = 100
_WITH_WILL = 4


class Heard(NamedTuple):
    """A message that arrived.

    Attributes:
        topic: full topic.
        payload: raw bytes.
        retained: whether the broker says that it replayed it.
    """

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker listens.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: whether to use TLS.
        ca_file: authorities to trust, None for the system's.
    """

    host: str
    port: int
    tls: bool = False
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Who somebody is at the broker.

    Attributes:
        name: login and client identifier.
        password: its secret, None with a certificate.
        cert_file: client certificate, None with a password.
        key_file: its key.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    cert_file: str | None = None
    key_file: str | None = None


class Party:
    """A connected client; use it as a context.

    Args:
        address: where the broker is.
        login: who it is, None for nobody.
        client_id: another client identifier than the login.
        will: topic and payload of a last will.
        session_s: how long the broker shall keep the session afterwards; 0 for none.
        resume: whether to go on with the session that the broker has.
        keep: which messages to keep.

    Raises:
        UnavailableError: the broker cannot be reached, or does not let this client in (`broker_refused`).
    """

    def __init__(
        self,
        address: Address,
        login: Login | None,
        *,
        client_id: str | None = None,
        will: tuple[str, bytes] | None = None,
        session_s: int = 0,
        resume: bool = False,
        keep: Callable[[Heard], bool] = lambda _: True,
    ) -> None:
        self._heard: deque[Heard] = deque(maxlen=KEPT)
        self._keep = keep
        self._changed = threading.Condition()
        self._answers: dict[object, Any] = {}
        self._ended = False
        self._client = self._build(address, login, client_id)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1)
        self._connect(address, session_s, resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def heard(self) -> list[Heard]:
        """What arrived so far."""
        with self._changed:
            return list(self._heard)

    @property
    def ended(self) -> bool:
        """Whether the connection is no more."""
        with self._changed:
            return self._ended

    def forget(self) -> None:
        """Forget what arrived so far."""
        with self._changed:
            self._heard.clear()

    def subscribe(self, topic: str, *, replay: bool = False) -> bool:
        """Subscribe at QoS 1; returns whether the broker granted it.

        Args:
            topic: the filter.
            replay: whether retained messages shall be replayed.
        """
        options = SubscribeOptions(qos=1, retainHandling=0 if replay else 2)
        _, mid = self._client.subscribe(topic, options=options)
        codes = self._await(("subscribed", mid))
        return codes is not None and not any(code.is_failure for code in codes)

    def unsubscribe(self, topic: str) -> None:
        """End a subscription."""
        _, mid = self._client.unsubscribe(topic)
        self._await(("unsubscribed", mid))

    def say(self, topic: str, *payloads: bytes, retain: bool = False) -> bool:
        """Publish at QoS 1; returns whether the broker acknowledged every message without an error."""
        mids, well = deque[int](), True
        for payload in payloads:
            mids.append(self._client.publish(topic, payload, qos=1, retain=retain).mid)
            if len(mids) >= WINDOW:
                well &= self._published(mids.popleft())
        for mid in mids:
            well &= self._published(mid)
        return well

    def hears(self, payload: bytes) -> bool:
        """Wait until a message with this payload has arrived; returns whether it has."""
        return self.hears_all({payload})

    def hears_all(self, payloads: set[bytes]) -> bool:
        """Wait until messages with all of these payloads have arrived; returns whether they have."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._ended or payloads <= {item.payload for item in self._heard}, PATIENCE_S
            ) and payloads <= {item.payload for item in self._heard}

    def leave(self, *, with_will: bool = False) -> None:
        """Disconnect; `with_will` asks the broker to publish the last will all the same."""
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL) if with_will else None
        self._client.disconnect(reasoncode=reason)
        self._client.loop_stop()

    def _build(self, address: Address, login: Login | None, client_id: str | None) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id if client_id is not None else login.name if login else "",
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(WINDOW)
        if login is not None and login.password is not None:
            client.username_pw_set(login.name, login.password)
        if address.tls:
            client.tls_set_context(_tls_context(address, login))
        client.on_message = self._on_message
        client.on_connect = lambda _c, _u, _f, code, _p: self._answer("connected", code)
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._answer(("subscribed", mid), codes)
        client.on_unsubscribe = lambda _c, _u, mid, _codes, _p: self._answer(("unsubscribed", mid), True)
        client.on_publish = lambda _c, _u, mid, code, _p: self._answer(("published", mid), code)
        client.on_disconnect = lambda _c, _u, _f, _code, _p: self._end()
        return client

    def _connect(self, address: Address, session_s: int, resume: bool) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session_s
        where = f"{address.host}:{address.port}"
        try:
            self._client.connect(address.host, address.port, clean_start=not resume, properties=properties)
        except ssl.SSLError as error:
            text = f"TLS with the broker at {where} failed: {error}"
            raise UnavailableError(text, code="broker_refused") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"no broker answers at {where}: {error}", code="no_broker") from error
        self._client.loop_start()
        code = self._await("connected")
        if code is None or code.is_failure:
            self.leave()
            text = f"the broker at {where} refused us: {code or 'it ended the connection'}"
            raise UnavailableError(text, code="broker_refused")

    def _published(self, mid: int) -> bool:
        code = self._await(("published", mid))
        return code is not None and not code.is_failure

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        heard = Heard(message.topic, bytes(message.payload), bool(message.retain))
        if self._keep(heard):
            with self._changed:
                self._heard.append(heard)
                self._changed.notify_all()

    def _answer(self, what: object, value: object) -> None:
        with self._changed:
            self._answers[what] = value
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _await(self, what: object) -> Any:
        """Return the broker's answer, or None if it ended the connection or gave none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or what in self._answers, PATIENCE_S)
            return self._answers.pop(what, None)


def _tls_context(address: Address, login: Login | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if login is not None and login.cert_file is not None:
            context.load_cert_chain(login.cert_file, login.key_file)
    except (OSError, ssl.SSLError) as error:
        raise UnavailableError(f"the TLS files cannot be used: {error}", code="tls_files") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
