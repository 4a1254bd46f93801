"""Names and passwords of Basic logins (RFC 7617)."""

from __future__ import annotations

from base64 import b64decode


def basic(authorization: str, most_chars: int) -> tuple[str, str]:
    """Return name and password of a login; both are "" where there is none that could be ours.

    Args:
        authorization: the header.
        most_chars: how long what follows the scheme may be.
    """
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic" or len(text) > most_chars:
        return "", ""
    try:
        name, _, password = b64decode(text.strip(), validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return name, password
