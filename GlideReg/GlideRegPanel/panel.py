"""The panel: its sections, the parameter node they show, and what a run changes in them."""

import slicer
import vtk
from slicer.util import VTKObservationMixin

from GlideRegRun.registration import Registration
from GlideRegScene.results import WARPED_ROLE, belongsTo
from GlideRegScene.transforms import isOurs

from .cache import CacheSection
from .compare import CompareSection
from .deformation import DeformationSection
from .display import DisplaySection
from .masking import MaskingSection
from .method import MethodSection
from .nodules import NodulesSection
from .propagation import PropagationSection
from .quality import QualitySection
from .quality_results import QualityResultsSection
from .result import ResultSection
from .run import RunSection
from .tracking import TrackingSection


class Panel(VTKObservationMixin):
    """Wires the widgets of GlideReg.ui to the logic and to a parameter node.

    Plain values are connected through their SlicerParameterName; the sections do the rest.
    """

    def __init__(self, uiWidget, logic) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.parameters = None
        self._logic = logic
        self._guiTag: int | None = None
        self.masking = MaskingSection(self.ui)
        self.method = MethodSection(self.ui)
        self.result = ResultSection(self.ui)
        self.display = DisplaySection(self.ui, lambda: self.result.transform)
        self.run = RunSection(self.ui, logic, self._rememberViews, self._onRunEnded)
        self.tracking = TrackingSection(self.ui, logic, lambda run: self.refresh())
        self.nodules = NodulesSection(self.ui, logic)
        self.quality = QualitySection(self.ui, logic, lambda run: self.refresh())
        self.qualityResults = QualityResultsSection(self.ui, logic, self.quality.start)
        self.compare = CompareSection(self.ui, lambda: self.result.transform)
        self.deformation = DeformationSection(self.ui, lambda: self.result.transform)
        self.propagation = PropagationSection(self.ui, logic, lambda run: self.refresh())
        self.cache = CacheSection(self.ui, logic)
        # There is one run at a time: what starts one closes the other's button (slots in order).
        starting = (
            (self.ui.applyButton, self.run),
            (self.ui.trackButton, self.tracking),
            (self.ui.assessButton, self.quality),
            (self.ui.propagateButton, self.propagation),
        )
        for button, own in starting:
            for _button, other in starting:
                if other is not own:
                    button.connect("clicked()", other.update)
            button.connect("clicked()", self.qualityResults.update)
        self.sections = (
            self.masking,
            self.method,
            self.result,
            self.display,
            self.run,
            self.tracking,
            self.nodules,
            self.quality,
            self.qualityResults,
            self.compare,
            self.deformation,
            self.propagation,
            self.cache,
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneClosing)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneRead)

    def bind(self, parameters) -> None:
        """Shows another parameter node; None when the module is left or the scene is closed.

        A run that is going on goes on.
        """
        self.removeObservers(self._onParametersChanged)
        if self._guiTag is not None:
            self.parameters.disconnectGui(self._guiTag)
            self._guiTag = None
        self.parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
        for section in self.sections:
            section.bind(parameters)
        if parameters is not None:
            modified = vtk.vtkCommand.ModifiedEvent
            self.addObserver(parameters.parameterNode, modified, self._onParametersChanged)
            self.refresh()

    def close(self) -> None:
        """The module is closed or reloaded: lets go of the scene."""
        self.bind(None)
        self.removeObservers()
        self.run.close()
        self.tracking.close()
        self.quality.close()
        self.propagation.close()
        self.compare.close()

    def refresh(self) -> None:
        """All sections show the parameter node as it is now."""
        for section in self.sections:
            section.update()

    def _onParametersChanged(self, caller, event) -> None:
        self._forgetOutputsOfOthers()
        self.refresh()

    def _forgetOutputsOfOthers(self) -> None:
        """Other inputs were chosen: their result gets nodes of its own, and the panel says so."""
        chosen = self.parameters
        transform = chosen.transform
        if transform is None or None in (chosen.fixedVolume, chosen.movingVolume):
            return
        if isOurs(transform) and not belongsTo(transform, chosen) and not self._logic.running:
            if chosen.warpedVolume is transform.GetNodeReference(WARPED_ROLE):
                chosen.warpedVolume = None
            chosen.transform = None

    def _onSceneClosing(self, caller, event) -> None:
        self.display.forget()
        self.qualityResults.forget()
        self.propagation.forget()

    def _onSceneRead(self, caller, event) -> None:
        """The parameter node is often read before the nodes that it refers to: look again."""
        if self.parameters is not None:
            self.bind(self._logic.getParameterNode())

    def _rememberViews(self) -> None:
        self.display.rememberViews(self.compare.viewsBefore)

    def _onRunEnded(self, registration: Registration) -> None:
        if registration.result is not None:
            self.display.showNewResult(registration.result.transform)
        self.refresh()
