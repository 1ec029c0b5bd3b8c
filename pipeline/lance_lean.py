"""`import lancedb` for a command, at half its price: without the client for remote catalogues.

LanceDB 0.40 imports lance_namespace_urllib3_client, 150 generated pydantic models for a REST service, of which a table
in a folder uses none: 1.1 of the 2.0 seconds of CPU that the import takes (two busy cores). In the program's own
process those modules are blanks: their names can be imported, and to make an object of one is an error. Not where
somebody else's program may use LanceDB itself: only `pipeline.__main__` installs this, never the library.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

UNUSED = "lance_namespace_urllib3_client"


def install() -> None:
    """To be called before lancedb is imported; afterwards it changes nothing."""
    if UNUSED not in sys.modules:
        sys.meta_path.insert(0, _Blanks())


class _Blanks(MetaPathFinder, Loader):
    """Finds the unused package and all that is in it, and loads a blank for each."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        within = fullname == UNUSED or fullname.startswith(f"{UNUSED}.")
        return ModuleSpec(fullname, self, is_package=True) if within else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Blank(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to do: a blank has no code."""


class _Blank(ModuleType):
    """A module in which every name is a class of which no object can be made."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = type(name, (), {"__init__": _refuse})
        setattr(self, name, found)
        return found


def _refuse(self: object, *_: Any, **__: Any) -> None:
    raise RuntimeError(f"{type(self).__name__} belongs to {UNUSED}, which this process does not load")
