"""Batch document embedding and retrieval on the user's own machines."""

__version__ = "0.1.0"
