"""Whether our clock is right: by the kernel's word, and beside the clock of an HTTP server."""

from __future__ import annotations

import ctypes
import http.client
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from orchestrator.doctor.results import Result, fault, unknown, warning, well

TIME_ERROR = 5
"""What adjtimex answers while nobody keeps the clock right."""
TIMEX_BYTES = 512
NEAR_S = 5.0
FAR_S = 300.0
"""S3 refuses signatures that are 15 minutes off; devices refuse triggers that begin in their future."""
TIMEOUT_S = 5.0


def kernel_state() -> int:
    """Return the state of the kernel's clock as adjtimex gives it; it asks, and sets nothing.

    Raises:
        OSError: there is no such call here.
    """
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except AttributeError:
        raise OSError("this system has no adjtimex") from None
    state = int(ask(ctypes.create_string_buffer(TIMEX_BYTES)))  # modes = 0: only ask
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex was refused")
    return state


def synchronised(ask: Callable[[], int] = kernel_state) -> Result:
    """Say whether something keeps the clock of this machine right."""
    try:
        state = ask()
    except OSError as error:
        return unknown("clock", f"the kernel does not say whether the clock is kept right ({error})")
    if state == TIME_ERROR:
        text = "nothing keeps the clock of this machine right, says the kernel"
        return warning("clock", text, "run chrony or systemd-timesyncd; in a container look at the host")
    return well("clock", "the clock of this machine is synchronised")


def beside(name: str, url: str, now: Callable[[], float] = time.time) -> Result:
    """Compare our clock with the Date that an HTTP server says; nothing is told to it but that we ask."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("HEAD", parts.path or "/")
            said = connection.getresponse().headers.get("Date", "")
        finally:
            connection.close()
        skew_s = now() - parsedate_to_datetime(said).timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        return unknown(name, f"{parts.netloc} does not say what time it is ({type(error).__name__})")
    if abs(skew_s) >= FAR_S:
        text = f"our clock and that of {parts.netloc} differ by {abs(skew_s):.0f} s"
        return fault(name, text, "see which of both is wrong, and set it right before anything is rolled out")
    if abs(skew_s) >= NEAR_S:
        text = f"our clock and that of {parts.netloc} differ by {abs(skew_s):.0f} s"
        return warning(name, text, "see that both are synchronised")
    return well(name, f"our clock and that of {parts.netloc} agree")
