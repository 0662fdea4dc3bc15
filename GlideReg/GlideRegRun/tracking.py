"""One tracking of nodules from start to end: the same way as a registration, with other files."""

from pathlib import Path

from GlideRegScene.nodules.request import CollectedNodules, collectNodules
from GlideRegScene.nodules.results import NoduleNodes, importNodules, readNodules

from .registration import Registration


class TrackingRun(Registration):
    """A run of the worker for a :class:`TrackRequest`; ``result`` is a :class:`NoduleNodes`."""

    kind = "tracking of nodules"

    def _collect(self, folder: Path) -> CollectedNodules:
        return collectNodules(self.request, folder)

    def _read(self, folder: Path):
        return readNodules(folder)

    def _import(self) -> NoduleNodes:
        return importNodules(self.request, self._files, self._inputs)
