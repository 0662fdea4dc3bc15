"""GlideRegLib: deformable registration of CT and MR with foundation-model features.

Works alone (command line ``glidereg``, Python, clusters) and inside 3D Slicer; it imports nothing
of Slicer. Research use only. ``import GlideRegLib`` is fast: heavy parts load when they are used.
"""

from __future__ import annotations

from importlib import import_module

from ._version import __version__

# name -> module that defines it; resolved at first use (PEP 562)
_EXPORTS = {
    "Cancelled": "errors",
    "DisplacementField": "field",
    "GlideRegError": "errors",
    "Grid": "geometry",
    "Progress": "progress",
    "Result": "result",
    "Settings": "settings",
    "Volume": "volume",
    "read_volume": "volume",
    "register": "pipeline",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'GlideRegLib' has no attribute '{name}'")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
