"""Whom a rollout is for: the words that choose devices, their order, and the way to the release."""
