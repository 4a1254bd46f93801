"""How long Hypothesis searches: `quick` always the same way, `thorough` far and at random."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=60, stateful_step_count=60, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=1000, stateful_step_count=60, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
