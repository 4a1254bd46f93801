"""Simulated devices and fleets; they share the wire format with the server and nothing else."""
