"""Configuration: one YAML file, the environment over it, secrets from files; refused loudly."""

from orchestrator.config.load import effective, load, look, read_secret
from orchestrator.config.settings import Settings

__all__ = ["Settings", "effective", "load", "look", "read_secret"]
