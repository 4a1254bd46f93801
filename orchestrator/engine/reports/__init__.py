"""The road in: what devices say, and what their silence means, becomes state."""
