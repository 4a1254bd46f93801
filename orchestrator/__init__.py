"""Brings signed releases to device fleets over MQTT and HTTP, and halts the bad ones by evidence."""

__version__ = "0.1.0"
