"""Batch document embedding and retrieval on the user's own machines.

    from pipeline import open_collection

    with open_collection("default") as c:
        for hit in c.search("How long may the supply cable be?"):
            print(hit.score, hit.path, hit.page, hit.text)
        print(c.ask("How long may the supply cable be?").text)

Everything else in this package is its own business, and may change with any version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import open_collection as open_collection

__version__ = "0.1.0"
__all__ = ["open_collection"]


def __getattr__(name: str) -> Any:
    """`open_collection`, imported when it is asked for: the command line imports this package at every start."""
    if name == "open_collection":
        from pipeline import api

        return api.open_collection
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
