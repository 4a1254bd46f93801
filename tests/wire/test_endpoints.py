"""The document of endpoints: what is written is read, every refusal by its code, and bytes of any kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PayloadError
from orchestrator.wire import endpoints as wire
from orchestrator.wire.endpoints import MAX_DOCUMENT_BYTES, Address, Endpoints

ISS = "test-fleet"
WHOLE = {
    "v": 1,
    "iss": ISS,
    "mqtt": ["mqtts://broker.example:8883", "mqtt://127.0.0.1:1884"],
    "http": ["https://ota.example"],
    "origins": ["https://cdn.example", "http://[::1]:8080"],
}

label = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
host = st.lists(label, min_size=1, max_size=4).map(".".join)
port = st.just("") | st.integers(1, 65_535).map(":{}".format)
loopback = st.sampled_from(["127.0.0.1", "localhost", "[::1]"])


def addresses(secure: str, plain: str) -> st.SearchStrategy[str]:
    """Return addresses of names, and of loopback."""
    named = st.builds(f"{secure}://{{}}{{}}".format, host, port)
    return named | st.builds(f"{plain}://{{}}{{}}".format, loopback, port)


documents = st.builds(
    Endpoints,
    iss=st.just(ISS),
    mqtt=st.lists(addresses("mqtts", "mqtt"), max_size=4).map(tuple),
    http=st.lists(addresses("https", "http"), max_size=4).map(tuple),
    origins=st.lists(addresses("https", "http"), max_size=16).map(tuple),
).filter(lambda found: bool(found.mqtt or found.http))


def code_of(payload: bytes, deployment: str = ISS) -> str:
    with pytest.raises(PayloadError) as caught:
        wire.decode_endpoints(payload, deployment)
    return caught.value.code


def changed(**members: Any) -> bytes:
    found = WHOLE | members
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


@given(documents)
def test_what_is_written_is_read(endpoints: Endpoints) -> None:
    assert wire.decode_endpoints(wire.encode_endpoints(endpoints), ISS) == endpoints


def test_a_document_is_read_with_members_of_later_versions() -> None:
    found = wire.decode_endpoints(changed(later={"deep": [1.5, None]}), ISS)
    assert found == Endpoints(ISS, tuple(WHOLE["mqtt"]), ("https://ota.example",), tuple(WHOLE["origins"]))  # type: ignore[arg-type]
    assert wire.decode_endpoints(changed(mqtt=..., origins=...), ISS) == Endpoints(ISS, (), ("https://ota.example",))


def test_a_document_of_any_deployment_is_read_where_none_is_named() -> None:
    assert wire.decode_endpoints(changed(iss="another"), None).iss == "another"
    with pytest.raises(PayloadError, match="deployment"):
        wire.decode_endpoints(changed(iss="An Other"), None)


def test_what_is_empty_is_not_written() -> None:
    assert (
        wire.encode_endpoints(Endpoints(ISS, http=("https://a",))) == b'{"v":1,"iss":"test-fleet","http":["https://a"]}'
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"\xef\xbb\xbf" + changed(),
        changed() + b"x",
        b"[" * 4000,
        changed(v=2),
        changed(v=True),
        changed(v=1.0),
        changed(v="1"),
        changed(v=...),
        changed(iss=...),
        changed(iss=7),
        changed(mqtt=None),
        changed(mqtt="mqtts://broker.example"),
        changed(mqtt=[1]),
        changed(mqtt=["mqtts://a"] * 5),
        changed(http=["https://a"] * 5),
        changed(origins=[]),
        changed(origins=None),
        changed(origins=["https://a"] * 17),
        changed(later=...)[:-1] + b', "later": ' + b"9" * 3800 + b"e}",
    ],
)
def test_what_is_no_such_document_is_malformed(payload: bytes) -> None:
    assert code_of(payload) == "malformed"


def test_each_other_fault_has_its_code() -> None:
    assert code_of(changed(more="x" * MAX_DOCUMENT_BYTES)) == "oversize"
    assert code_of(changed()[:-1] + b', "iss": "test-fleet"}') == "duplicate_name"
    assert code_of(changed()[:-1] + b', "more": {"a": 1, "a": 1}}') == "duplicate_name"
    assert code_of(changed(), "other") == "foreign_deployment"
    assert code_of(changed(iss="\n"), "\n") == "foreign_deployment"
    assert code_of(changed(mqtt=[], http=[])) == "no_address"
    assert code_of(changed(mqtt=..., http=...)) == "no_address"


def test_a_document_may_be_as_long_as_it_says() -> None:
    room = MAX_DOCUMENT_BYTES - len(changed(more=""))
    assert wire.decode_endpoints(changed(more="x" * room), ISS).http == ("https://ota.example",)
    assert code_of(changed(more="x" * (room + 1))) == "oversize"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ota.example",
        "https:ota.example",
        "https://",
        "https://ota.example/",
        "https://ota.example/path",
        "https://ota.example?x",
        "https://ota.example#x",
        "https://user@ota.example",
        "https://OTA.example",
        "HTTPS://ota.example",
        "https://ota..example",
        "https://ota.example.",
        "https://-ota.example",
        "https://ota.example-",
        "https://ota_x.example",
        "https://öta.example",
        "https://ota.example\n",
        " https://ota.example",
        "https://10.0.0.1",
        "https://127.0.0.1",
        "https://0x7f.0x1",
        "https://2130706433",
        "https://[::1]",
        "https://[2001:db8::1]",
        "https://ota.example:",
        "https://ota.example:0",
        "https://ota.example:080",
        "https://ota.example:65536",
        "http://ota.example",
        "http://127.0.0.2",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://localhost.example",
        "ftp://ota.example",
        "file://localhost",
        "mqtts://broker.example",
        "https://" + ".".join(["a" * 60] * 5),
        "https://" + "a" * 64,
    ],
)
def test_an_address_that_devices_would_not_go_to_is_refused(address: str) -> None:
    assert code_of(changed(http=[address])) == "bad_address"
    assert code_of(changed(origins=[address])) == "bad_address"


@pytest.mark.parametrize(
    "address",
    [
        "mqtt://broker.example",
        "mqtts://127.0.0.1:1",
        "https://ota.example",
        "http://localhost",
        "mqtts://a/x",
        "ws://a",
    ],
)
def test_a_broker_has_an_address_of_mqtt(address: str) -> None:
    assert code_of(changed(mqtt=[address])) == "bad_address"


def test_addresses_come_apart() -> None:
    assert wire.split("mqtts://broker.example") == Address("mqtts", "broker.example", 8883)
    assert wire.split("mqtts://broker.example:443") == Address("mqtts", "broker.example", 443)
    assert wire.split("mqtt://[::1]:7") == Address("mqtt", "::1", 7)
    assert wire.split("mqtt://localhost") == Address("mqtt", "localhost", 1883)
    assert wire.split("http://127.0.0.1:65535") == Address("http", "127.0.0.1", 65_535)
    assert wire.split("https://xn--ta-fka.example") == Address("https", "xn--ta-fka.example", 443)
    assert wire.split("https://10.0.0.1.example").host == "10.0.0.1.example"


@given(st.binary() | st.text().map(str.encode))
def test_random_bytes_are_refused_and_nothing_worse(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        wire.decode_endpoints(raw, ISS)


@given(
    st.dictionaries(
        st.sampled_from(["v", "iss", "mqtt", "http", "origins", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(1) | st.just(ISS),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_object_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        found = wire.decode_endpoints(json.dumps(value).encode(), ISS)
    except PayloadError:
        return
    assert found.mqtt or found.http


@given(st.text("htpsmq:/.[]0123456789ax-", max_size=40) | st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    try:
        found = wire.split(text)
    except PayloadError:
        return
    assert text.startswith(f"{found.scheme}://")
    assert 1 <= found.port <= 65_535
