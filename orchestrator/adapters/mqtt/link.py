"""One connection to the broker: paho's protocol engine on our event loop.

Rules:
- A link lives for one connection; a new connection is a new link with a fresh paho client, so that
  nothing of paho's is repeated behind our back. The broker keeps the session.
- Received messages are never acknowledged here.
- The one private name of paho that we use is `_create_socket`; a test pins it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from orchestrator.adapters.mqtt.stream import BufferedSocket
from orchestrator.errors import UnavailableError

PACKETS_PER_TURN = 250
"""Packets decoded before other tasks of the loop get their turn."""

WINDOW = 1000
"""Publications under way at once."""


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker.

    Attributes:
        host: name or address.
        port: TCP port.
        client_id: fixed, so that the broker finds our session again.
        username: login, None for none.
        password: its secret, None for none.
        tls: whether to use TLS.
        ca_file: file of the authorities to trust, None for the system's.
        cert_file: client certificate, None for none.
        key_file: its key.
        keepalive_s: seconds between signs of life.
        session_expiry_s: how long the broker keeps our session while we are away (MQTT 5).
        receive_maximum: messages that may be unacknowledged (MQTT 5).
        version_5: MQTT 5; otherwise 3.1.1.
        connect_timeout_s: for the connection and for the answer to CONNECT.
        reconnect_min_s: first pause before a new connection.
        reconnect_max_s: longest pause.
    """

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keepalive_s: int = 30
    session_expiry_s: int = 86_400
    receive_maximum: int = 4000
    version_5: bool = True
    connect_timeout_s: float = 5.0
    reconnect_min_s: float = 0.5
    reconnect_max_s: float = 30.0


class _Client(paho.Client):
    """paho with our buffered socket."""

    def _create_socket(self) -> Any:
        return BufferedSocket(cast(socket.socket, super()._create_socket()))


class Link:
    """One connection. Create, `open`, use, `close`; all in one event loop.

    Args:
        settings: how to reach the broker.
        on_message: called with each message, unacknowledged.
        on_lost: called once when an open connection ends.
    """

    def __init__(
        self,
        settings: MqttSettings,
        on_message: Callable[[paho.MQTTMessage], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_lost = on_lost
        self._client = self._build()
        self._socket: BufferedSocket | None = None
        self._loop = asyncio.get_running_loop()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._published: dict[int, asyncio.Future[None]] = {}
        self._flushing = False
        self._reading = False

    async def open(self, topics: Sequence[str]) -> None:
        """Connect, resume the session and subscribe.

        Raises:
            UnavailableError: with the broker's or the network's reason.
        """
        try:
            await self._connect()
            await self._subscribe(topics)
            self._check_open()
        except BaseException:
            self.close()
            raise

    async def look(self, topic: str) -> None:
        """Subscribe beside the other topics, so that the broker replays what lies retained.

        Raises:
            UnavailableError: the link broke, or the broker refused.
        """
        if self._settings.version_5:
            options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=0)
            self._client.subscribe([(topic, options)])
        else:
            self._client.subscribe([(topic, 1)])
        self._check_granted(await self._ask("subscribe"), [topic])

    async def look_away(self, topic: str) -> None:
        """End the subscription of `look`.

        Raises:
            UnavailableError: the link broke.
        """
        self._check_open()
        self._client.unsubscribe(topic)
        await self._ask("unsubscribe")

    def ack(self, mids: Sequence[int]) -> None:
        """Acknowledge messages; all acknowledgements leave in one write."""
        for mid in mids:
            self._client.ack(mid, 1)
        self._flush_soon()

    async def publish(self, topic: str, payload: bytes, expiry_s: int, *, retain: bool) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement.

        Raises:
            UnavailableError: the link broke, or the broker refused.
        """
        if self._socket is None:
            raise UnavailableError("not connected to the broker")
        properties = None
        if self._settings.version_5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, expiry_s)
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise UnavailableError(f"the broker link does not take messages: {paho.error_string(info.rc)}")
        future = self._published[info.mid] = self._loop.create_future()
        self._flush_soon()
        await future

    def tick(self) -> None:
        """Send a sign of life if one is due, and notice a dead peer. Call it about once a second."""
        if self._socket is not None:
            self._client.loop_misc()
            self._after_paho()

    def pause_reading(self, paused: bool) -> None:
        """Stop or continue reading from the socket; the broker notices by flow control."""
        if self._socket is not None and paused == self._reading:
            if paused:
                self._loop.remove_reader(self._socket.fileno())
            else:
                self._loop.add_reader(self._socket.fileno(), self._on_readable)
                self._loop.call_soon(self._on_readable)
            self._reading = not paused

    def close(self) -> None:
        """Say goodbye if possible and drop the connection; the session stays at the broker."""
        if self._socket is not None:
            self._client.disconnect()
            self._drop("closed")

    def _build(self) -> _Client:
        settings = self._settings
        options: dict[str, Any] = {} if settings.version_5 else {"clean_session": False}
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=paho.MQTTv5 if settings.version_5 else paho.MQTTv311,
            manual_ack=True,
            **options,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(WINDOW)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
        client.on_message = lambda _c, _u, message: self._on_message(message)
        client.on_connect = lambda _c, _u, _f, code, _p: self._answer("connect", code)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._answer("subscribe", codes)
        client.on_unsubscribe = lambda _c, _u, _m, codes, _p: self._answer("unsubscribe", codes)
        client.on_publish = lambda _c, _u, mid, code, _p: self._confirmed(mid, code)
        client.on_socket_close = lambda _c, _u, sock: self._unwatch(cast(BufferedSocket, sock))
        return client

    async def _connect(self) -> None:
        settings = self._settings
        extra: dict[str, Any] = {}
        if settings.version_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = settings.receive_maximum
            extra = {"clean_start": False, "properties": properties}
        where = f"{settings.host}:{settings.port}"
        try:
            await asyncio.to_thread(self._client.connect, settings.host, settings.port, settings.keepalive_s, **extra)
        except ssl.SSLError as error:
            raise UnavailableError(f"TLS with the broker at {where} failed: {error}", code="tls") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"no broker answers at {where}: {error}", code="no_broker") from error
        sock = self._client.socket()
        assert isinstance(sock, BufferedSocket)
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._on_readable)
        self._reading = True
        code: ReasonCode = await self._ask("connect")
        if code.is_failure:
            hint = "; check mqtt.username and the password" if "uthor" in str(code) or "assword" in str(code) else ""
            raise UnavailableError(f"the broker at {where} refused us: {code}{hint}", code="broker_refused")

    async def _subscribe(self, topics: Sequence[str]) -> None:
        if self._settings.version_5:
            options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=2)
            self._client.subscribe([(topic, options) for topic in topics])
        else:
            self._client.subscribe([(topic, 1) for topic in topics])
        self._check_granted(await self._ask("subscribe"), topics)

    def _check_granted(self, codes: Sequence[ReasonCode], topics: Sequence[str]) -> None:
        if any(code.is_failure for code in codes):
            text = f"the broker does not let us subscribe to {', '.join(topics)}: allow it in its access rules"
            raise UnavailableError(text, code="subscribe_refused")

    def _check_open(self) -> None:
        if self._socket is None:
            raise UnavailableError("the broker closed the connection while we logged in", code="link_broken")

    async def _ask(self, what: str) -> Any:
        self._check_open()
        future = self._answers[what] = self._loop.create_future()
        self._flush_soon()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                return await future
        except TimeoutError:
            raise UnavailableError(f"the broker does not answer to {what}", code="no_answer") from None
        finally:
            del self._answers[what]

    def _answer(self, what: str, value: object) -> None:
        future = self._answers.get(what)
        if future is not None and not future.done():
            future.set_result(value)

    def _confirmed(self, mid: int, code: ReasonCode) -> None:
        future = self._published.pop(mid, None)
        if future is None or future.done():
            return
        if code.is_failure:
            future.set_exception(UnavailableError(f"the broker refused a message: {code}", code="publish_refused"))
        else:
            future.set_result(None)

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        self._socket.fill()
        self._read_packets()

    def _read_packets(self) -> None:
        sock = self._socket
        if sock is None:
            return
        for _ in range(PACKETS_PER_TURN):
            if not sock.readable or self._client.socket() is None:
                break
            before = sock.pending()
            self._client.loop_read()
            if sock.pending() == before:
                break  # the rest of a packet has not arrived
        else:
            self._loop.call_soon(self._read_packets)
        self._after_paho()

    def _after_paho(self) -> None:
        if self._socket is not None and self._client.socket() is None:
            self._drop("the broker closed the connection")
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._socket is not None and not self._flushing and self._socket.unsent:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        sock = self._socket
        if sock is None:
            return
        sock.flush()
        if sock.unsent:
            self._loop.add_writer(sock.fileno(), self._flush)
        else:
            self._loop.remove_writer(sock.fileno())

    def _unwatch(self, sock: BufferedSocket) -> None:
        # Before it is closed, by paho or by us: its number will soon be that of another socket.
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())

    def _drop(self, why: str) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._unwatch(sock)
        sock.close()
        error = UnavailableError(f"the broker link broke: {why}", code="link_broken")
        for future in (*self._answers.values(), *self._published.values()):
            if not future.done():
                future.set_exception(error)
        self._published.clear()
        self._on_lost(why)


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise UnavailableError(f"the TLS files of mqtt cannot be used: {error}", code="tls_files") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
