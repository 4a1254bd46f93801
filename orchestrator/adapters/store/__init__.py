"""The store on SQL."""

from orchestrator.adapters.store.store import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
