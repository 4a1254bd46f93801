"""The exit codes of `ota`: one table, which help, manual and documentation show."""

from __future__ import annotations

from typing import Final

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_HALTED: Final = 3
EXIT_TIMEOUT: Final = 4
EXIT_NOT_FOUND: Final = 5
EXIT_WARNING: Final = 6
EXIT_INTERRUPTED: Final = 130

MEANINGS: Final = {
    0: "well",
    EXIT_ERROR: "an error, or a fault that was found",
    EXIT_USAGE: "wrong usage",
    EXIT_HALTED: "the rollout is halted, aborted or inconclusive",
    EXIT_TIMEOUT: "not within the time that was given",
    EXIT_NOT_FOUND: "what was named does not exist",
    EXIT_WARNING: "`ota doctor` found warnings, but no fault",
    EXIT_INTERRUPTED: "interrupted",
}
