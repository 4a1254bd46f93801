"""Client certificates as TLS proxies speak of them: read, believed from nobody else, and strict in doubt."""

from __future__ import annotations

import asyncio
import string
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.demo.broker import HOST
from orchestrator.errors import PayloadError
from orchestrator.web.certificate_headers import MAX_CHARS, Form, Part, common_names, name_in
from orchestrator.web.certificates import Certificates, CertificateSettings
from orchestrator.web.server import HttpServer
from tests.web import ddi_client
from tests.web.site import Site, problem, site

POLL = "/api/v1/firmware/version"
KEY = ec.derive_private_key(77, ec.SECP256R1())
LOCAL = (ip_network("127.0.0.0/8"),)
ELSEWHERE = (ip_network("192.0.2.0/24"), ip_network("fd00::/8"))
CN, DNS = Part.COMMON_NAME, Part.DNS_NAME


@lru_cache
def certificate(common: Sequence[str] = ("d1",), dns: Sequence[str] = ()) -> x509.Certificate:
    """Return a certificate for such names; nobody here verifies it."""
    fields = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common]
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, CN=d9"), *fields])
    made = x509.CertificateBuilder(name, name, KEY.public_key(), 7)
    made = made.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2046, 1, 1, tzinfo=UTC))
    if dns:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in dns]), critical=False)
    return made.sign(KEY, hashes.SHA256())


def nginx(made: x509.Certificate) -> str:
    """Return what `$ssl_client_escaped_cert` is."""
    return quote(made.public_bytes(serialization.Encoding.PEM), safe="")


def der(made: x509.Certificate) -> str:
    return b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


ENVOY = 'By=spiffe://x/y;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;Subject="CN=d1,O=a\\,b";URI=;DNS=d2'


@pytest.mark.parametrize(
    ("text", "form", "part", "name"),
    [
        (nginx(certificate()), Form.CERTIFICATE, CN, "d1"),
        (der(certificate()), Form.CERTIFICATE, CN, "d1"),
        (f":{der(certificate())}:", Form.CERTIFICATE, CN, "d1"),
        (nginx(certificate(("d1",), ("d2.example",))), Form.CERTIFICATE, DNS, "d2.example"),
        ("CN=d1,O=Example", Form.SUBJECT, CN, "d1"),
        ("O=Example\\, CN=d9, CN=d1", Form.SUBJECT, CN, "d1"),
        ("emailAddress=x@y,2.5.4.3=d1+serialNumber=7", Form.SUBJECT, CN, "d1"),
        ("CN=\\64\\31,O=\\D0\\9F", Form.SUBJECT, CN, "d1"),
        ("d1", Form.NAME, CN, "d1"),
        (ENVOY, Form.XFCC, CN, "d1"),
        (ENVOY, Form.XFCC, DNS, "d2"),
    ],
)
def test_what_proxies_write(text: str, form: Form, part: Part, name: str) -> None:
    assert name_in(text, form, part) == name


@pytest.mark.parametrize(
    ("text", "form", "part"),
    [
        (nginx(certificate(("d1", "d2"))), Form.CERTIFICATE, CN),
        (nginx(certificate(())), Form.CERTIFICATE, CN),
        (nginx(certificate()), Form.CERTIFICATE, DNS),
        (nginx(certificate(("d1",), ("d1", "d2"))), Form.CERTIFICATE, DNS),
        (nginx(certificate()) * 2, Form.CERTIFICATE, CN),
        (der(certificate())[:-8], Form.CERTIFICATE, CN),
        ("x" * (MAX_CHARS + 1), Form.NAME, CN),
        ("d1\xe9", Form.NAME, CN),
        ("", Form.CERTIFICATE, CN),
        ("", Form.SUBJECT, CN),
        ("O=Example", Form.SUBJECT, CN),
        ("CN=d1,CN=d2", Form.SUBJECT, CN),
        ("CN=d1+CN=d2", Form.SUBJECT, CN),
        ("/O=Example/CN=d1", Form.SUBJECT, CN),
        ("O=Example/CN=d1", Form.SUBJECT, CN),
        ("CN=d1,", Form.SUBJECT, CN),
        ("CN=d1;O=x", Form.SUBJECT, CN),
        ('CN="d1"', Form.SUBJECT, CN),
        ("CN=\\zz", Form.SUBJECT, CN),
        ("CN=\\FF", Form.SUBJECT, CN),
        ("CN=#0C026431", Form.SUBJECT, CN),
        (f"{ENVOY},{ENVOY}", Form.XFCC, CN),
        (f"{ENVOY};DNS=d3", Form.XFCC, DNS),
        (f'{ENVOY};Subject="CN=d3"', Form.XFCC, CN),
        ('Subject="O=x\\",CN=d9"', Form.XFCC, CN),
        ('Subject="O=x\\\\",CN=d9"', Form.XFCC, CN),
        ('Subject="CN=d1', Form.XFCC, CN),
        ("Hash=1", Form.XFCC, CN),
        ("DNS=", Form.SUBJECT, DNS),
    ],
)
def test_doubt_is_refused(text: str, form: Form, part: Part) -> None:
    with pytest.raises(PayloadError) as caught:
        name_in(text, form, part)
    assert caught.value.code == "bad_certificate"


@pytest.mark.parametrize("part", Part)
def test_a_certificate_of_a_version_that_is_none_is_refused(part: Part) -> None:
    made = certificate().public_bytes(serialization.Encoding.DER)
    third, seventh = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"
    assert made.count(third) == 1
    with pytest.raises(PayloadError):
        name_in(b64encode(made.replace(third, seventh)).decode(), Form.CERTIFICATE, part)


@given(st.text(max_size=200), st.sampled_from(Form), st.sampled_from(Part))
def test_any_text_is_read_or_refused(text: str, form: Form, part: Part) -> None:
    with suppress(PayloadError):
        assert len(name_in(text, form, part)) <= MAX_CHARS


@given(st.lists(st.text('CN=,+"\\;d1 #<>/Oé', min_size=1, max_size=12), min_size=1, max_size=4), st.integers(0, 3))
def test_no_value_of_a_subject_reads_like_a_name(values: list[str], at: int) -> None:
    place = at % len(values)
    oids = [NameOID.COMMON_NAME if n == place else NameOID.ORGANIZATION_NAME for n in range(len(values))]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in zip(oids, values, strict=True)])
    written = name.rfc4514_string()
    assert list(common_names(written)) == [values[place]]


@given(st.lists(st.text(string.printable, max_size=20), max_size=6))
def test_a_list_of_envoy_is_read_or_refused(parts: list[str]) -> None:
    with suppress(PayloadError):
        name_in(";".join(parts), Form.XFCC, Part.COMMON_NAME)


def believing(**changes: Any) -> Certificates:
    return Certificates(CertificateSettings(**({"proxies": LOCAL} | changes)))


GOOD = {"x-client-cert": nginx(certificate()), "x-client-verify": "SUCCESS"}


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, certificates=believing()) as running:
        await running.enrol("d1", "d2")
        yield running


async def test_a_device_needs_no_token_with_a_certificate(behind: Site) -> None:
    assert (await behind.http.get(POLL, headers=GOOD)).status_code == 204
    said = b'{"v":1,"dev":"d1","model":"m1","ver":"7"}'
    assert (await behind.http.post("/api/v1/hello", headers=GOOD, content=said)).status_code == 202
    assert problem(await behind.http.post("/api/v1/hello", headers=GOOD, content=said.replace(b"d1", b"d2")))[0] == 400


async def test_without_a_certificate_the_token_decides(behind: Site) -> None:
    for said in ({}, {"x-client-verify": "NONE"}, {"x-client-verify": "NONE", "x-client-cert": ""}):
        assert (await behind.as_device("d2", "GET", POLL, headers=said)).status_code == 204
        assert problem(await behind.http.get(POLL, headers=said)) == (401, "unauthorised")


@pytest.mark.parametrize(
    "said",
    [
        {"x-client-cert": nginx(certificate())},
        GOOD | {"x-client-verify": "FAILED:certificate has expired"},
        GOOD | {"x-client-verify": "NONE"},
        GOOD | {"x-client-verify": "success"},
        {"x-client-verify": "SUCCESS"},
        GOOD | {"x-client-cert": "nonsense"},
        GOOD | {"x-client-cert": nginx(certificate(("D1",)))},
        GOOD | {"x-client-cert": nginx(certificate(("d3",)))},
        [*GOOD.items(), ("x-client-cert", nginx(certificate(("d2",))))],
        [*GOOD.items(), ("x-client-verify", "SUCCESS")],
    ],
)
async def test_a_wrong_certificate_is_no_way_back_to_a_token(behind: Site, said: Any) -> None:
    token = ("authorization", f"Bearer {behind.tokens['d1']}")
    given_ = [*(said.items() if isinstance(said, dict) else said), token]
    assert problem(await behind.http.get(POLL, headers=given_)) == (403, "bad_certificate")


@pytest.mark.parametrize("proxies", [(), ELSEWHERE])
async def test_nobody_else_is_believed_and_that_is_said_once(tmp_path: Path, proxies: Any) -> None:
    async with site(tmp_path, certificates=believing(proxies=proxies)) as web:
        await web.enrol("d1", "d2")
        with capture_logs() as logs:
            for _ in range(3):
                assert problem(await web.http.get(POLL, headers=GOOD)) == (401, "unauthorised")
                assert (await web.as_device("d2", "GET", POLL, headers=GOOD)).status_code == 204
        told = [line for line in logs if line["event"] == "certificates.header_of_a_stranger"]
        assert [line["peer"] for line in told] == ["127.0.0.1"] * bool(proxies)


async def test_a_forwarded_address_makes_nobody_a_proxy(tmp_path: Path) -> None:
    async with site(tmp_path, certificates=believing(proxies=ELSEWHERE)) as web:
        await web.enrol("d1")
        server = HttpServer(web.app, HOST, 0, 10)
        task = asyncio.create_task(server.run())
        try:
            async with httpx2.AsyncClient(base_url=f"http://{HOST}:{server.port}", trust_env=False) as http:
                for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
                    answer = await http.get(POLL, headers=GOOD | {name: "192.0.2.1"})
                    assert problem(answer) == (401, "unauthorised")
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_proxy_that_lets_nobody_in_without_a_certificate(tmp_path: Path) -> None:
    known = believing(header="x-forwarded-client-cert", form=Form.XFCC, verify_header="")
    async with site(tmp_path, certificates=known) as web:
        await web.enrol("d1")
        assert (await web.http.get(POLL, headers={"x-forwarded-client-cert": ENVOY})).status_code == 204
        assert problem(await web.http.get(POLL)) == (401, "unauthorised")


async def test_hawkbits_headers_name_a_device_and_its_authority(tmp_path: Path) -> None:
    known = believing(
        header="x-controller-id",
        form=Form.NAME,
        verify_header="",
        issuer_header="x-authority-1",
        issuer_hashes=("ab:cd:ef:01", "deadbeef"),
    )
    async with site(tmp_path, certificates=known) as web:
        await ddi_client.enrol(web, "d1", "d2")
        place, said = "/DEFAULT/controller/v1/d1", {"x-controller-id": "d1", "x-authority-1": "DEADBEEF"}
        assert (await web.http.get(place, headers=said)).status_code == 200
        assert problem(await web.http.get(place, headers=said | {"x-controller-id": "d2"})) == (401, "unauthorised")
        assert problem(await web.http.get(place, headers=said | {"x-authority-1": "cafe"})) == (403, "bad_certificate")
        assert problem(await web.http.get(place, headers={"x-controller-id": "d1"})) == (403, "bad_certificate")
        assert problem(await web.http.get(place)) == (401, "unauthorised")


async def test_a_certificate_opens_the_address_of_esp_idf(tmp_path: Path) -> None:
    async with site(tmp_path, certificates=believing()) as web:
        await ddi_client.enrol(web, "d1", dialect="esp-idf")
        assert (await web.http.get("/ota/esp-idf", headers=GOOD)).status_code == 304
        wrong = GOOD | {"x-client-verify": "FAILED:revoked"}
        assert problem(await web.http.get(f"/ota/esp-idf/{web.tokens['d1']}", headers=wrong)) == (
            403,
            "bad_certificate",
        )


SHIPPED = Path(__file__).parents[2] / "deploy" / "proxy"


def test_the_shipped_proxies_replace_what_clients_say_in_the_headers_that_are_read() -> None:
    known = CertificateSettings()
    proxy = (SHIPPED / "nginx.conf").read_text().lower()
    assert f"proxy_set_header {known.header} $ssl_client_escaped_cert;" in proxy
    assert f"proxy_set_header {known.verify_header} $ssl_client_verify;" in proxy
    inner = proxy[proxy.index("location") :]
    assert "proxy_set_header" not in inner, "in a location it would undo those of the server"
    assert f"header_up {known.header} {{http.request.tls.client.certificate_der" in (
        (SHIPPED / "Caddyfile").read_text().lower()
    )
    envoy = yaml.safe_load((SHIPPED / "envoy.yaml").read_text())
    [chain] = envoy["static_resources"]["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert manager["set_current_client_cert_details"] == {"subject": True, "dns": True}
