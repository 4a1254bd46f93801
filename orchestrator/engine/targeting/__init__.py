"""Whom a rollout takes, read from the registry: at its start, later, and before there is one."""
