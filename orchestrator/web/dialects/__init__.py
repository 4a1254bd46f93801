"""Translations for clients that speak something older than otad/1; each asks the engine, and decides nothing."""
