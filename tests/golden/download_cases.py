"""Downloads as servers answered them: endless, slow, swapped, spliced, led astray (T13, T14, T16, T17, T18, valid)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tests.golden.kit import ORIGIN, b64

IMAGE = "".join(chr(value * 7 % 256) for value in range(100))
OTHER = IMAGE[::-1]
SIZE = len(IMAGE)
SHA256 = b64(hashlib.sha256(IMAGE.encode("latin-1")).digest()).decode()
URL = f"{ORIGIN}/v1/dl/{SHA256}"
CDN = f"https://cdn.example.net:8443/a/{SHA256}"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Transcript:
    """What a server answered, and what must come of it.

    Attributes:
        name: unique, lower case with dashes.
        why: what is tried, and why it must end so.
        reason: why the download must fail, "" if it must not.
        answers: as `answer` makes them.
        more: further members of the transcript.
        device: members of the device state that differ from the file's default.
    """

    name: str
    why: str
    reason: str
    answers: list[Answer]
    more: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)

    def document(self, group: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "class": group,
            "why": self.why,
            "call": "download",
            "size": SIZE,
            "sha256": SHA256,
            "transcript": {"url": URL, "answers": self.answers} | self.more,
            "device": self.device,
            "expected": {"reason": self.reason} if self.reason else {"kind": "downloaded"},
        }


def answer(status: int, *chunks: tuple[int, str, int], at: int = 0, **headers: str) -> Answer:
    """Return an answer; "_" in the names of headers stands for "-"."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"at": at, "status": status, "headers": named, "chunks": [list(chunk) for chunk in chunks]}


def whole(text: str = IMAGE, *, at: int = 0, **headers: str) -> Answer:
    return answer(200, (at, text, 1), at=at, **headers)


def part(begin: int, text: str, *, at: int = 1, **headers: str) -> Answer:
    """Return a part; `content_range` and the rest can be set."""
    said = {"content_range": f"bytes {begin}-{begin + len(text) - 1}/{SIZE}", "etag": '"a"'}
    return answer(206, (at, text, 1), at=at, **(said | headers))


FIRST = whole(IMAGE[:60], content_length="100", etag='"a"')


def endless() -> list[Transcript]:
    rows = [
        ("one-byte-more", "one byte beyond the end", whole(IMAGE + "A")),
        ("endless-stream", "a stream without an end", answer(200, (0, "A", 2**40))),
        ("endless-after-image", "the image, and then a stream without an end", answer(200, (0, IMAGE, 1), (1, "A",
         2**40))),
        ("chunked-growth", "chunk by chunk without a length", answer(200, *((n, "A" * 50, 1) for n in range(9)))),
        ("beyond-length", "more than announced", whole(IMAGE + "A", content_length="100")),
        ("beyond-part", "more than the part asked for", part(0, IMAGE + "A", content_range=f"bytes 0-99/{SIZE}")),
        ("image-twice", "the image twice", whole(IMAGE * 2)),
    ]  # fmt: skip
    lengths = [
        ("length-one-more", "101"), ("length-one-less", "99"), ("length-2-gib", str(2**31)), ("length-2-to-64",
         str(2**64)),
        ("length-zero", "0"), ("length-negative", "-1"), ("length-twice", "100, 100"), ("length-hex", "0x64"),
        ("length-leading-zero", "0100"), ("length-empty", ""),
    ]  # fmt: skip
    return [
        *(Transcript(name, why, "too_much_data", [said]) for name, why, said in rows),
        Transcript("beyond-rest", "the rest, and more", "too_much_data",
                   [FIRST, part(60, IMAGE[60:] + "A", content_range=f"bytes 60-99/{SIZE}")]),
        *(Transcript(name, "the length announced is not the size", "size_mismatch", [whole(content_length=length)])
          for name, length in lengths),
        Transcript("gzip-bomb", "four bytes that unpack to a gigabyte", "encoded",
                   [whole("\x1f\x8b\x08\x00", content_encoding="gzip")]),
        Transcript("brotli", "another transformation", "encoded", [whole(content_encoding="br")]),
    ]  # fmt: skip


def slow() -> list[Transcript]:
    trickle = [(n * 10, IMAGE[n], 1) for n in range(50)]
    return [
        Transcript("stall-before-answer", "connected, and nothing", "stalled", [whole(at=61)]),
        Transcript("stall-after-header", "the header, and nothing", "stalled", [answer(200, (61, IMAGE, 1))]),
        Transcript("stall-at-99", "the last byte never comes", "stalled",
                   [answer(200, (0, IMAGE[:99], 1), (61, IMAGE[99], 1))]),
        Transcript("stall-empty-chunks", "chunks without a byte keep nothing alive", "stalled",
                   [answer(200, (0, IMAGE[:9], 1), (30, "", 1), (60, "", 1), (61, IMAGE[9:], 1))]),
        Transcript("stall-in-redirect", "the redirect is quick, its target is not", "stalled",
                   [answer(302, location=CDN), whole(at=61)]),
        Transcript("stall-before-rest", "the rest is never answered", "stalled", [FIRST, part(60, IMAGE[60:], at=61)]),
        Transcript("one-byte-in-ten-seconds", "never stalled, never done", "deadline_passed", [answer(200, *trickle)],
                   {"dl": 300}),
        Transcript("deadline-at-99", "one second too late", "deadline_passed",
                   [answer(200, (0, IMAGE[:99], 1), (31, IMAGE[99], 1))], {"dl": 30}),
        Transcript("deadline-by-parts", "a connection lost again and again", "deadline_passed",
                   [FIRST, *(part(60 + n, IMAGE[60 + n], at=50 * (n + 1)) for n in range(20))], {"dl": 600}),
        Transcript("deadline-by-repairs", "begun again and again", "deadline_passed",
                   [whole(OTHER, at=50 * n) for n in range(3)], {"dl": 90}),
        Transcript("lost-early", "the connection ends before the last byte", "link_lost", [whole(IMAGE[:99])]),
        Transcript("lost-at-once", "no byte at all", "link_lost", [whole("")]),
        Transcript("nobody-answers", "no answer at all", "link_lost", []),
    ]  # fmt: skip


def swaps() -> list[Transcript]:
    flipped = IMAGE[:50] + chr(ord(IMAGE[50]) ^ 1) + IMAGE[51:]
    return [
        Transcript("other-image", "other bytes of the same length", "hash_mismatch", [whole(OTHER)]),
        Transcript("one-bit", "one bit is another", "hash_mismatch", [whole(flipped)]),
        Transcript("last-byte", "the last byte is another", "hash_mismatch", [whole(IMAGE[:99] + "A")]),
        Transcript("zeros", "as many zeros", "hash_mismatch", [whole("\x00" * 100)]),
        Transcript("b-on-resume", "the bucket serves A, then B under the tag of A", "hash_mismatch",
                   [FIRST, part(60, OTHER[60:])]),
        Transcript("b-on-resume-untagged", "the same without any tag", "hash_mismatch",
                   [whole(IMAGE[:60]), part(60, OTHER[60:], etag="")]),
        Transcript("four-times", "a device begins again three times, not for ever", "hash_mismatch",
                   [whole(OTHER), whole(OTHER), whole(OTHER), whole(OTHER), whole()]),
        Transcript("good-only-behind-another", "the right image after the wrong one is another download",
                   "too_much_data",
                   [answer(200, (0, OTHER, 1), (1, IMAGE, 1))]),
        Transcript("repair-unfinished", "the second try ends early", "hash_mismatch",
                   [whole(OTHER), whole(IMAGE[:99])]),
        Transcript("flash-bit", "a bit flips in the flash", "flash_mismatch", [whole()], {"flash": flipped}),
        Transcript("flash-short", "the last sector was not written", "flash_mismatch",
                   [whole()], {"flash": IMAGE[:64]}),
        Transcript("flash-old", "nothing was written", "flash_mismatch", [whole()], {"flash": OTHER}),
        Transcript("flash-erased", "only erased", "flash_mismatch", [whole()], {"flash": "\xff" * 100}),
    ]  # fmt: skip


def splices() -> list[Transcript]:
    ranges = [
        ("range-overlap", "begins before the place asked for", "bytes 50-99/100"),
        ("range-gap", "begins behind the place asked for", "bytes 70-99/100"),
        ("range-from-zero", "begins anew, but calls it a part", "bytes 0-99/100"),
        ("range-other-total", "of a longer object", "bytes 60-99/101"),
        ("range-shorter-total", "of a shorter object", "bytes 60-98/99"),
        ("range-unknown-total", "of an object of unknown length", "bytes 60-99/*"),
        ("range-beyond-end", "ends beyond the end", "bytes 60-100/100"),
        ("range-backwards", "ends before it begins", "bytes 60-59/100"),
        ("range-other-unit", "counts something else", "items 60-99/100"),
        ("range-negative", "a negative place", "bytes -40-99/100"),
        ("range-missing", "does not say which part", ""),
        ("range-no-unit", "counts nothing", "60-99/100"),
        ("range-long-number", "a place beyond 16 digits", "bytes 00000000000000060-99/100"),
        ("range-twice", "two parts", "bytes 60-79/100, bytes 80-99/100"),
        ("range-digits", "digits of another script", "bytes \u0666\u0660-99/100"),
    ]
    return [
        *(Transcript(name, why, "bad_range", [FIRST, part(60, IMAGE[60:], content_range=said)])
          for name, why, said in ranges),
        Transcript("range-416", "there is no such part", "bad_range",
                   [FIRST, answer(416, content_range="bytes */100")]),
        Transcript("part-at-first", "a part that nobody asked for", "bad_range", [part(60, IMAGE[60:])]),
        Transcript("other-tag", "the object was replaced between two parts", "object_changed",
                   [FIRST, part(60, OTHER[60:], etag='"b"')]),
        Transcript("other-tag-same-bytes", "replaced by its like", "object_changed",
                   [FIRST, part(60, IMAGE[60:], etag='"b"')]),
        Transcript("weak-tag", "a weak tag promises nothing", "object_changed",
                   [FIRST, part(60, IMAGE[60:], etag='W/"a"')]),
        Transcript("part-length", "the length is not that of the part", "size_mismatch",
                   [FIRST, part(60, IMAGE[60:], content_length="100")]),
        Transcript("whole-of-other", "200 instead of 206, and another object", "hash_mismatch", [FIRST, whole(OTHER)]),
        Transcript("whole-of-other-size", "200 instead of 206, of another length", "size_mismatch",
                   [FIRST, whole(IMAGE + "A", content_length="101")]),
        Transcript("tail-called-whole", "200 with the rest only", "link_lost", [FIRST, whole(IMAGE[60:])]),
        Transcript("part-encoded", "a part that is packed", "encoded",
                   [FIRST, part(60, IMAGE[60:], content_encoding="gzip")]),
    ]  # fmt: skip


def astray() -> list[Transcript]:
    targets = [
        ("url_origin", "other-host", "another host", "https://evil.test/x"),
        ("url_origin", "other-port", "another port", f"{ORIGIN}:8443/x"),
        ("url_origin", "longer-host", "our host is a prefix of it", f"{ORIGIN}.evil.test/x"),
        ("url_origin", "no-scheme", "another host without a scheme", "//evil.test/x"),
        ("url_origin", "default-port", "origins are compared as text", f"{ORIGIN}:443/x"),
        ("url_scheme", "plain-http", "no longer encrypted", "http://fw.example.net/x"),
        ("url_scheme", "ftp", "another protocol", "ftp://fw.example.net/x"),
        ("url_userinfo", "user", "our host as the user of another", f"{ORIGIN}@evil.test/x"),
        ("url_userinfo", "password", "a password", "https://u:p@fw.example.net/x"),
        ("url_ip_literal", "metadata", "the metadata service of a cloud", "https://169.254.169.254/latest"),
        ("url_ip_literal", "decimal-address", "an address as one number", "https://2130706433/x"),
        ("url_ip_literal", "address-six", "an address of version 6", "https://[::1]/x"),
        ("url_scheme", "loopback", "to this very device", "http://127.0.0.1/x"),
        ("url_scheme", "file", "a file", "file:///etc/passwd"),
        ("url_malformed", "data", "the image in the address", "data:,hello"),
        ("url_malformed", "backslash", "a backslash", f"{ORIGIN}\\@evil.test/x"),
        ("url_malformed", "open-bracket", "half of an address of version 6", "https://[::1/x"),
        (
            "url_malformed",
            "letter-that-becomes-a-slash",
            "a letter that libraries turn into others",
            "https://fw.example.net\u2100.evil.test/x",
        ),
        ("url_malformed", "fragment", "a fragment", f"{ORIGIN}/x#y"),
        ("url_malformed", "control", "a line break for the next header", f"{ORIGIN}/x%0d%0a\r\nhost: evil.test"),
        ("url_malformed", "unicode-host", "a letter that looks like ours", "https://fw.ex\u0430mple.net/x"),
        ("url_malformed", "capitals", "a host in capitals", "https://FW.example.net/x"),
        ("url_malformed", "too-long", "more than 4,096 bytes", ORIGIN + "/" + "a" * 4096),
    ]
    hop = answer(302, location=CDN)
    return [
        *(Transcript(f"redirect-{name}", why, reason, [answer(302, location=target), whole()])
          for reason, name, why, target in targets),
        Transcript("redirect-second", "the second redirect leads astray", "url_origin",
                   [hop, answer(307, location="https://evil.test/x"), whole()]),
        Transcript("redirect-on-resume", "the rest is somewhere else", "url_origin",
                   [FIRST, answer(302, at=1, location="https://evil.test/x"), part(60, IMAGE[60:])]),
        Transcript("redirect-loop", "round and round", "too_many_redirects", [answer(302, location=URL)] * 9),
        Transcript("redirect-three", "three in a row", "too_many_redirects", [hop, hop, hop, whole()]),
        Transcript("redirect-nowhere", "no target", "download_refused", [answer(302), whole()]),
        Transcript("redirect-to-itself", "the empty address", "too_many_redirects", [answer(302, location="")] * 3),
        Transcript("first-url", "the first address is not allowed", "url_origin",
                   [whole()], {"url": "https://evil.test/x"}),
        Transcript("first-url-presigned-host", "a bucket that is not ours", "url_origin", [whole()],
                   {"url": f"https://bucket.s3.example.net/{SHA256}?X-Amz-Signature=00"}),
        Transcript("missing", "gone for good", "artifact_missing", [answer(410)]),
        Transcript("not-found", "never there", "artifact_missing", [answer(404)]),
        Transcript("login-page", "a page that asks for a login", "download_refused", [answer(401)]),
        Transcript("server-error", "an error page", "download_refused", [answer(500, (0, IMAGE, 1))]),
        Transcript("no-content", "nothing, successfully", "download_refused", [answer(204)]),
        Transcript("not-modified", "nothing new", "download_refused", [answer(304)]),
        Transcript("captive-portal", "a portal answers every address", "size_mismatch",
                   [whole("<html>", content_length="6")]),
    ]  # fmt: skip


def complete() -> list[Transcript]:
    loopback = {"loopback": True, "allowed_origins": ["http://127.0.0.1:8080"]}
    return [
        Transcript("download", "the ordinary case", "", [whole(content_length="100", etag='"a"')]),
        Transcript("download-no-length", "no length announced", "", [whole()]),
        Transcript("download-chunks", "byte by byte", "", [answer(200, *((n, IMAGE[n], 1) for n in range(100)))]),
        Transcript("download-resumed", "the rest after a lost connection", "", [FIRST, part(60, IMAGE[60:])]),
        Transcript("download-three-parts", "lost twice", "",
                   [FIRST, part(60, IMAGE[60:80], content_range="bytes 60-99/100"), part(80, IMAGE[80:])]),
        Transcript("download-resumed-untagged", "no tags: the hash decides", "",
                   [whole(IMAGE[:60]), part(60, IMAGE[60:], etag="")]),
        Transcript("download-resumed-weak", "a weak tag at first is no tag", "",
                   [whole(IMAGE[:60], etag='W/"a"'), part(60, IMAGE[60:], etag='"b"')]),
        Transcript("download-whole-again", "200 instead of 206: begun again", "", [FIRST, whole(etag='"b"')]),
        Transcript("download-part-at-first", "all of it as a part", "", [part(0, IMAGE)]),
        Transcript("download-identity", "untransformed, and said so", "", [whole(content_encoding="identity")]),
        Transcript("download-redirected", "to the other origin", "", [answer(302, location=CDN), whole()]),
        Transcript("download-redirected-twice", "two redirects", "",
                   [answer(301, location=CDN), answer(308, location="/b"), whole()]),
        Transcript("download-redirected-parts", "each part has its own redirects", "",
                   [answer(302, location=CDN), FIRST, answer(303, at=1, location=CDN), answer(307, at=1, location=CDN),
                    part(60, IMAGE[60:])]),
        Transcript("download-relative", "a relative redirect", "", [answer(302, location="other"), whole()]),
        Transcript("download-third-repair", "right at the fourth time", "",
                   [whole(OTHER), whole(OTHER), whole(OTHER), whole()]),
        Transcript("download-last-second", "within the deadline", "",
                   [answer(200, (0, IMAGE[:9], 1), (30, IMAGE[9:], 1))],
                   {"dl": 30}),
        Transcript("download-60-seconds", "just not stalled", "",
                   [answer(200, (60, IMAGE[:9], 1), (120, IMAGE[9:], 1))]),
        Transcript("download-read-back", "read back as written", "", [whole()], {"flash": IMAGE}),
        Transcript("download-loopback", "a rehearsal", "", [whole()], {"url": "http://127.0.0.1:8080/a"}, loopback),
    ]  # fmt: skip


GROUPS = {
    "T13-endless": endless,
    "T14-slow": slow,
    "T16-swap": swaps,
    "T17-splice": splices,
    "T18-redirect": astray,
    "valid-download": complete,
}
