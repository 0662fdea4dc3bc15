"""Which methods can be compared, where each comes from, and what to do when one is missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata


@dataclass(frozen=True)
class Method:
    """A row of the table.

    ``adapter`` is a module of :mod:`benchmarks.adapters`, ``options`` what its ``register`` gets
    beside the images; ``package`` is the PyPI name, ``install`` how to get it. Ours have
    no ``package``.
    """

    name: str
    adapter: str
    note: str
    package: str = ""
    install: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        return bool(self.package)

    @property
    def missing(self) -> str:
        """A sentence that says how to get it, or "" when it is installed."""
        if not self.is_peer:
            return ""
        with suppress(metadata.PackageNotFoundError):
            metadata.version(self.package)
            return ""
        return (
            f"{self.name} is missing: the package {self.package} is not installed; {self.install}."
        )

    @property
    def version(self) -> str:
        from GlideRegLib import __version__

        return metadata.version(self.package) if self.is_peer else __version__

    def load(self) -> Callable:
        """The adapter's ``register`` with this method's options."""
        module = importlib.import_module(f"benchmarks.adapters.{self.adapter}")
        return partial(module.register, **self.options)


_EXTRA = 'get it with: pip install -e ".[benchmark]"'


def _ours(name: str, preset: str, encoder: str, note: str) -> Method:
    return Method(name, "glidereg", note, options={"preset": preset, "encoder": encoder})


_ALL = (
    _ours("glidereg-fast", "fast", "none", "preset fast, local features"),
    _ours("glidereg-standard", "standard", "none", "preset standard, local features"),
    _ours("glidereg-mobile-sam", "standard", "mobile_sam", "preset standard, MobileSAM"),
    Method(
        "convexadam",
        "convexadam",
        "the package's defaults",
        "convexadam",
        _EXTRA,
    ),
    Method(
        "ants",
        "ants",
        "antsRegistrationSyNQuick[so]",
        "antspyx",
        _EXTRA,
    ),
    Method(
        "fireants",
        "fireants",
        "greedy CC 5, 200/100/50 iterations",
        "fireants",
        # 1.5.0 wants simpleitk==2.2.1, which contradicts ours, but runs with newer ones.
        "get it with: pip install --no-deps fireants (after the extra, which has what it imports)",
    ),
    Method(
        "elastix",
        "elastix",
        "default B-spline map, 10 mm grid",
        "itk-elastix",
        _EXTRA,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
