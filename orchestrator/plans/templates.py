"""Plans to copy: one file each under `templates/`, with the reasons as comments.

Rules:
- A template is a valid plan as it stands; only its name and its release must be written by whoever copies it.
- What it is for stands in its second line, and nowhere else.
"""

from __future__ import annotations

import re
from importlib import resources

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.plans.faults import sentence
from orchestrator.plans.model import Name

TEMPLATES = ("cautious", "standard", "security", "emergency")
"""Their names, from the slowest to the fastest."""


def template(name: str, *, rollout: str | None = None, release: str | None = None) -> str:
    """Return the text of a template.

    Args:
        name: one of `TEMPLATES`.
        rollout: what the rollout shall be called; None for the template's placeholder.
        release: the release that it shall bring; None for the template's placeholder.

    Raises:
        NotFoundError: there is no such template.
        ConfigError: a name is no identifier.
    """
    if name not in TEMPLATES:
        raise NotFoundError(f"there is no template {name!r:.80}; there are {', '.join(TEMPLATES)}")
    text = (resources.files("orchestrator.plans") / "templates" / f"{name}.yaml").read_text("utf-8")
    for key, value in (("name", rollout), ("release", release)):
        if value is not None:
            text = re.sub(rf"^{key}: .*$", f"{key}: {_identifier(key, value)}", text, count=1, flags=re.MULTILINE)
    return text


def purpose(name: str) -> str:
    """Return what a template is for, in one sentence.

    Raises:
        NotFoundError: there is no such template.
    """
    return template(name).splitlines()[1].removeprefix(f"# {name}: ")


def _identifier(key: str, value: str) -> str:
    """Return the value as YAML writes it; what YAML would take for a number or a date is quoted."""
    try:
        return f'"{TypeAdapter(Name).validate_python(value)}"'
    except ValidationError as error:
        raise ConfigError([f"{key}: {sentence(fault)}" for fault in error.errors()]) from None
