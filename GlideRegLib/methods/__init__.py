"""The methods of the literature behind one interface: ours, and those it is compared with.

Each is a small file with ``register(fixed, moving, settings, progress, ...) -> Result``, so that
whatever follows a registration (warping, measures, reports, Slicer) follows every one of them.
``METHODS`` only names them; a method's file is loaded when it is run.
"""

from __future__ import annotations

from ..errors import SettingsError
from .base import Method, Need
from .catalog import METHODS

__all__ = ["METHODS", "Method", "Need", "find", "names"]


def names() -> list[str]:
    """The names of all methods."""
    return list(METHODS)


def find(name: str) -> Method:
    """The method of a name. Raises :class:`SettingsError` that lists the known ones."""
    if name not in METHODS:
        raise SettingsError(f"There is no method '{name}'; choose from {', '.join(METHODS)}.")
    return METHODS[name]
