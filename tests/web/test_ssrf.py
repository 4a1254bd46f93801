"""Addresses that lead elsewhere than they look, given wherever the daemon takes one."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import config
from orchestrator.adapters.asker import HttpAsker, settings_of
from orchestrator.adapters.s3 import S3Source
from orchestrator.errors import ConfigError, OrchestratorError, RequestError
from orchestrator.wire import hosts
from tests.support.bucket import opened, settings
from tests.web.site import problem, site

GOOD = "https://fw.example.net"
ASTRAY = {
    "a login before another host": "https://fw.example.net@evil.example",
    "a login": "https://ann:secret@fw.example.net",
    "a backslash before another host": "https://fw.example.net\\@evil.example",
    "a backslash in the path's place": "https://fw.example.net\\.evil.example",
    "the metadata of a cloud": "http://169.254.169.254",
    "the same as one number": "http://2852039166",
    "the same in hexadecimal": "http://0xa9fea9fe",
    "the same in octal": "http://0251.0376.0251.0376",
    "the same in three numbers": "http://169.254.43518",
    "the same within IPv6": "http://[::ffff:169.254.169.254]",
    "the same within IPv6 as NAT64 writes it": "http://[64:ff9b::a9fe:a9fe]",
    "the same within IPv6 as of old": "http://[::a9fe:a9fe]",
    "a name for it": "http://metadata.google.internal",
    "its IPv6 address": "http://[fd00:ec2::254]",
    "a link-local address": "http://[fe80::1]",
    "a link-local address with a zone": "http://[fe80::1%25eth0]",
    "any address": "http://0.0.0.0",
    "any IPv6 address": "http://[::]",
    "letters of another width": "https://\uff46w.example.net",
    "a dot of another script": "https://fw\u3002example.net",
    "an encoded dot": "https://fw%2eexample.net",
    "an encoded separator": "https://fw.example.net%2f.evil.example",
    "a line break": "https://fw.example.net\n.evil.example",
    "a tab": "https://fw.\texample.net",
    "another scheme": "gopher://fw.example.net",
    "a file": "file:///etc/passwd",
    "no host": "https:///fw.example.net",
    "a query": "https://fw.example.net?x=.evil.example",
    "a fragment": "https://evil.example#@fw.example.net",
}
KEYS = {
    "s3: {endpoint_url: %s}": "s3.endpoint_url",
    "download: {cdn_origin: 's3://fw/', cdn_url: %s}": "download.cdn_url",
    "gates: {origins: [%s]}": "gates.origins.0",
    "http: {public_url: %s}": "http.public_url",
}


def faults_of(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a configuration that is well but for this."""
    (folder / "trigger.pem").write_text("x")
    (folder / "token").write_text("x")
    needed = {
        "OTA_TRUST__TRIGGER_KEY_FILE": f"{folder}/trigger.pem",
        "OTA_HTTP__OPERATOR_TOKEN_FILE": f"{folder}/token",
    }
    needed |= {"OTA_TRUST__PUBLIC_KEYS_FILE": f"{folder}/token"}
    (folder / "config.yaml").write_text(text)
    try:
        config.load(folder / "config.yaml", needed)
    except ConfigError as error:
        return error.faults
    return []


@pytest.mark.parametrize(("text", "key"), KEYS.items())
def test_no_key_takes_an_address_that_leads_astray(tmp_path: Path, text: str, key: str) -> None:
    def quoted(url: str) -> str:
        return '"' + url.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t") + '"'

    assert faults_of(tmp_path, text % quoted(GOOD)) == []
    for name, url in ASTRAY.items():
        faults = faults_of(tmp_path, text % quoted(url))
        assert [fault.partition(":")[0] for fault in faults][:1] == [key], name
        assert "secret" not in str(faults), name


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://[::1]:9000", "http://10.0.0.5", "http://minio:9000"])
def test_a_service_of_ones_own_may_be_private(tmp_path: Path, url: str) -> None:
    for text in KEYS:
        assert faults_of(tmp_path, text % f'"{url}"') == []


async def test_no_service_is_asked_at_an_address_that_leads_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    asker, looked_up = HttpAsker(settings_of([GOOD], [])), names(monkeypatch, [])
    for name, url in ASTRAY.items():
        if not url.startswith(GOOD + "?"):
            assert not _may(asker, url), name
            with pytest.raises(OrchestratorError):
                await asker.ask(f"{url}/alerts")
    assert [each for each in looked_up if each != "fw.example.net"] == []


def _may(asker: HttpAsker, url: str) -> bool:
    try:
        return asker.may_ask(url)
    except RequestError:
        return False


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "100.64.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
    ],
)
async def test_a_name_that_leads_astray_is_not_followed(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    names(monkeypatch, [address])
    with pytest.raises(RequestError, match="has no public address"):
        await HttpAsker(settings_of([GOOD], [])).ask(f"{GOOD}/alerts")


def names(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    """Let every name have these addresses; returns the names that are looked up."""
    looked_up: list[str] = []

    async def found(host: str, *_: object, **__: object) -> list[object]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    return looked_up


async def test_an_artifact_is_imported_from_a_bucket_or_a_folder_and_from_nowhere_else(tmp_path: Path) -> None:
    with opened(S3Source(settings("http://127.0.0.1:9", attempts=1))) as source:
        async with site(tmp_path, source) as web:
            for name, url in ASTRAY.items():
                answer = await web.ops("POST", "/artifacts", {"uri": f"{url}/fw.bin"})
                assert problem(answer)[1] in ("bad_uri", "outside_roots"), name
            for uri in ("s3://ann@fw/x", "s3://fw:80/x", "s3://fw\\evil/x", "s3://fw/../x", "s3://[::1]/x", "s3:fw/x"):
                assert problem(await web.ops("POST", "/artifacts", {"uri": uri})) == (400, "bad_uri"), uri


@given(st.text(max_size=60))
def test_any_host_is_judged(text: str) -> None:
    fault = hosts.fault_of(text)
    assert fault is None or fault.startswith("must ")


@pytest.mark.parametrize(
    ("name", "is_known"), [("a" * 63 + ".example", True), ("a" * 64 + ".example", False), ("ab." * 84 + "a", True)]
)
def test_a_name_is_no_longer_than_names_are(name: str, is_known: bool) -> None:
    assert (hosts.fault_of(name) is None) is is_known
    assert hosts.fault_of(name + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 63) is not None


@given(st.ip_addresses())
def test_a_host_that_is_taken_is_read_as_it_is_written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if hosts.fault_of(str(address)) is None:
        assert not address.is_link_local
        assert not address.is_multicast
        assert getattr(address, "ipv4_mapped", None) is None
    if address.version == 4 and int(address) > 255:
        assert hosts.fault_of(str(int(address))) is not None
        assert hosts.fault_of(hex(int(address))) is not None
    assert not (hosts.is_public(address) and address.is_private)
