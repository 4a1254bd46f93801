"""What went wrong with S3, in our words: whose fault it is and what to do next.

Rules:
- One place maps every failure of botocore; the adapter only says what was asked of whom.
- Nothing that a server, a header or a signed address says gets into the text, because these hold
  credentials: only error codes that look like one, and what the configuration says anyway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from orchestrator.errors import (
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    RequestError,
    TrustError,
    UnavailableError,
)

FAILURES: Final = (boto.ClientError, boto.BotoCoreError, ResponseParserError)
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_Reason = tuple[type[OrchestratorError], str, str]

_WRONG_REGION: _Reason = (
    RequestError,
    "wrong_region",
    "bucket {bucket} is not in region {region}; set the region to {expected}",
)
_CHANGED: _Reason = (TrustError, "changed", "{uri} changed after it was looked at; import it again")
_BAD_URI: _Reason = (RequestError, "bad_uri", "{uri!r} cannot be an object in S3; write s3://bucket/key")
_EXPIRED: _Reason = (ForbiddenError, "expired_credentials", "the session credentials have expired; renew them")
_LATER: _Reason = (UnavailableError, "unavailable", "{endpoint} cannot answer now ({word}); try again later")
_ANSWERS: Mapping[str, _Reason] = {
    "NoSuchBucket": (NotFoundError, "no_such_bucket", "{endpoint} has no bucket {bucket}; create it or correct {uri}"),
    "NoSuchKey": (NotFoundError, "no_such_key", "{uri} does not exist; upload it or correct the key"),
    "NoSuchVersion": (NotFoundError, "no_such_version", "the pinned version of {uri} is gone; import it again"),
    "AccessDenied": (ForbiddenError, "access_denied", "access to {uri} is denied; allow {action} to this access key"),
    "InvalidAccessKeyId": (ForbiddenError, "unknown_key", "{endpoint} does not know the access key id; correct it"),
    "SignatureDoesNotMatch": (
        ForbiddenError,
        "bad_signature",
        "{endpoint} refused the signature: the secret access key does not fit the access key id, or this machine's "
        "clock is wrong; correct the secret or the clock",
    ),
    "RequestTimeTooSkewed": (ForbiddenError, "clock_skew", "this machine's clock is wrong; let NTP set it"),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "PermanentRedirect": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "PreconditionFailed": _CHANGED,
    "InvalidRange": _CHANGED,
    "InvalidURI": _BAD_URI,
    "InvalidBucketName": _BAD_URI,
    "KeyTooLongError": _BAD_URI,
    "InvalidObjectState": (RequestError, "archived", "{uri} lies in an archive; restore it first"),
    "SlowDown": _LATER,
}
_NOT_S3: _Reason = (
    RequestError,
    "not_s3",
    "{endpoint} does not answer like S3 ({word}); set the endpoint to the address of its S3 interface",
)
_REFUSED: _Reason = (RequestError, "refused", "{endpoint} refused the request for {uri} ({word})")
_UNUSABLE: _Reason = (RequestError, "bad_settings", "S3 cannot be used with these settings ({word}); correct them")
_BROKEN: _Reason = (
    UnavailableError,
    "connection_broken",
    "the connection to {endpoint} broke or stalled; try again later",
)
_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], _Reason], ...] = (
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
        (ForbiddenError, "no_credentials", "no S3 credentials were found; configure an access key id and its secret"),
    ),
    (boto.ParamValidationError, _BAD_URI),
    (ResponseParserError, _NOT_S3),
    (
        boto.SSLError,
        (UnavailableError, "tls", "TLS with {endpoint} failed; check its certificate, and http against https"),
    ),
    (
        (boto.ReadTimeoutError, boto.ConnectionClosedError, boto.ResponseStreamingError, boto.IncompleteReadError),
        _BROKEN,
    ),
    (
        (boto.HTTPClientError, boto.ConnectionError),
        (UnavailableError, "cannot_connect", "cannot connect to {endpoint}; check the endpoint and the network"),
    ),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of whom.

    Attributes:
        uri: the object or prefix, `s3://bucket/key`.
        action: the permission that the request needs.
        origin: the endpoint as it may stand in a log.
        region: region that the request was signed for.
    """

    uri: str
    action: str
    origin: str
    region: str


def explain(error: Exception, asked: Asked) -> OrchestratorError:
    """Turn one of `FAILURES` into an error of ours, to be raised `from None`."""
    if not isinstance(error, boto.ClientError):
        reason = next((reason for kinds, reason in _FAULTS if isinstance(error, kinds)), _UNUSABLE)
        return _error(reason, asked, type(error).__name__)
    details: Mapping[str, Any] = error.response.get("Error", {})
    word, region = (_word(details.get(name)) for name in ("Code", "Region"))
    return _error(_ANSWERS.get(word) or _by_status(error, word), asked, word or "no code", region)


def not_s3(asked: Asked, missing: str) -> OrchestratorError:
    """Return the error for an answer that is well but lacks what S3 always sends."""
    return _error(_NOT_S3, asked, missing)


def bad_uri(uri: str) -> OrchestratorError:
    """Return the error for an address that cannot be one in S3."""
    return _error(_BAD_URI, Asked(uri, "", "", ""), "")


def changed(uri: str) -> OrchestratorError:
    """Return the error for an object that is not any more what was looked at."""
    return _error(_CHANGED, Asked(uri, "", "", ""), "")


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _error(reason: _Reason, asked: Asked, word: str, region: str = "") -> OrchestratorError:
    kind, code, sentence = reason
    text = sentence.format(
        uri=asked.uri,
        bucket=asked.uri.removeprefix("s3://").partition("/")[0],
        endpoint=asked.origin,
        action=asked.action,
        region=asked.region,
        expected=region or "the bucket's own",
        word=word,
    )
    return kind(text, code=code)


def _by_status(error: boto.ClientError, word: str) -> _Reason:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429:
        return _LATER
    if word.isdecimal():
        return _NOT_S3  # botocore takes the status for a code where no S3 error document came
    if status in (401, 403):
        return _ANSWERS["AccessDenied"]
    return _ANSWERS["NoSuchKey"] if status == 404 else _REFUSED
