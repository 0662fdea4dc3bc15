"""One assessment from start to end: the same way as a registration, with other files."""

from pathlib import Path

from GlideRegScene.quality.request import CollectedAssessment, collectAssessment
from GlideRegScene.quality.results import QualityFiles, QualityNodes, importQuality, readQuality

from .registration import Registration


class AssessmentRun(Registration):
    """A run of the worker for an :class:`AssessRequest`; ``result`` is a :class:`QualityNodes`."""

    kind = "measurement of quality"

    def _collect(self, folder: Path) -> CollectedAssessment:
        return collectAssessment(self.request, folder)

    def _read(self, folder: Path) -> QualityFiles:
        return readQuality(self.request, folder)

    def _import(self) -> QualityNodes:
        return importQuality(self.request, self._files)
