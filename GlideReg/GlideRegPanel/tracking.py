"""Nodules, first half: what is tracked, Track, progress and cancel."""

import math
from functools import partial

import qt
import slicer
from slicer.i18n import tr as _

from GlideRegRun.dependencies import MissingDependency
from GlideRegRun.registration import ProgressUpdate
from GlideRegRun.tracking import TrackingRun
from GlideRegScene.nodules import tables

from . import wording
from .messages import sentenceFor
from .scan_dates import ScanDates
from .section import Section

_ERROR_STYLE = "color: #c62828"
_TIMES = ("prior", "current")


class TrackingSection(Section):
    """Starts a tracking and shows it. ``onEnd`` is called with every finished run.

    Nodules take three kinds of node, for which Slicer has no connector: they are bound by hand.
    """

    def __init__(self, ui, logic, onEnd) -> None:
        super().__init__(ui)
        self._logic, self._onEnd = logic, onEnd
        self._updating = self._starting = False
        self._dates = ScanDates(ui, self.update)
        ui.noduleTableSelector.addAttribute("vtkMRMLTableNode", tables.ATTRIBUTE)
        for time in _TIMES:
            signal = "currentNodeChanged(vtkMRMLNode*)"
            self._selector(time).connect(signal, partial(self._onNode, time))
        ui.trackButton.connect("clicked()", self.track)
        ui.cancelTrackButton.connect("clicked()", self.cancel)
        # A run that somebody started elsewhere has no callback to this section.
        self._watch = qt.QTimer()
        self._watch.setInterval(300)
        self._watch.connect("timeout()", self._lookForTheEnd)
        self._showStatus("")

    def bind(self, parameters) -> None:
        super().bind(parameters)
        self._dates.bind(parameters)
        if parameters is None and self._logic.running is None:
            self._watch.stop()

    def close(self) -> None:
        """The module's widgets go: nothing may look at them any more."""
        self._watch.stop()

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        if self.parameters is None or self._updating:
            return
        self._dates.update()
        self._updating = True
        try:
            for time in _TIMES:
                node = getattr(self.parameters, f"{time}Nodules")
                self._selector(time).setCurrentNode(node)
                self._followPoints(time, node)
        finally:
            self._updating = False
        running = self._logic.running
        tracking = isinstance(running, TrackingRun) or self._starting
        self.ui.noduleProgressBar.visible = tracking
        self.ui.cancelTrackButton.visible = tracking and not self._starting
        if running is not None and not self._watch.isActive():
            self._watch.start()
        if tracking:
            self._setTrack(False, _("Tracking…"), _("Nodules are being tracked"))
        elif running is not None:
            self._setTrack(False, _("Track"), _("A registration is running"))
        else:
            self._updateTrack()

    def _updateTrack(self) -> None:
        request = self._logic.trackRequestFrom(self.parameters)
        problem = self._dates.problem or request.problem()
        if problem:
            self._setTrack(False, wording.shortReason(problem), problem)
            return
        self._setTrack(
            True,
            _("Track"),
            _("Looks for every nodule of the prior scan in the current one; Slicer can be used"),
        )

    def _setTrack(self, enabled: bool, text: str, toolTip: str) -> None:
        self.ui.trackButton.enabled = enabled
        self.ui.trackButton.text = text
        self.ui.trackButton.toolTip = toolTip

    def _followPoints(self, time: str, node) -> None:
        """Points that are placed or taken away change what is missing."""
        isPoints = node is not None and node.IsA("vtkMRMLMarkupsNode")
        kinds = slicer.vtkMRMLMarkupsNode
        events = (kinds.PointPositionDefinedEvent, kinds.PointPositionUndefinedEvent)
        events += (kinds.PointRemovedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        self.follow(time, node if isPoints else None, events, self._onChanged)

    def _showStatus(self, text: str, isError: bool = False) -> None:
        self.ui.noduleStatusLabel.text = text
        self.ui.noduleStatusLabel.visible = bool(text)
        self.ui.noduleStatusLabel.styleSheet = _ERROR_STYLE if isError else ""

    # --- what is done -----------------------------------------------------------------------------

    def track(self) -> None:
        """Starts a tracking with the choices of the panel."""
        if self._starting or self._logic.running is not None or self.parameters is None:
            return
        self._starting = True  # questions about packages are asked meanwhile
        self._onProgress(ProgressUpdate(_("Starting"), 0.0, None))
        self.update()
        try:
            self._logic.trackUsingParameterNode(
                self.parameters,
                blocking=False,
                onProgress=self._onProgress,
                onFinished=self._onFinished,
            )
            self.ui.cancelTrackButton.enabled = True
        except Exception as error:
            sentence = sentenceFor(error)
            self._showStatus(sentence, isError=True)
            if not isinstance(error, MissingDependency):
                slicer.util.errorDisplay(sentence, windowTitle="GlideReg")
        finally:
            self._starting = False
            self.update()

    def cancel(self) -> None:
        """Ends the run within two seconds."""
        self.ui.cancelTrackButton.enabled = False
        self._showStatus(_("Cancelling…"))
        self._logic.cancel()

    def _onProgress(self, update: ProgressUpdate) -> None:
        self.ui.noduleProgressBar.value = math.floor(100 * update.fraction)
        if self.ui.cancelTrackButton.enabled or self._starting:
            self._showStatus(
                wording.progressLine(update.stage, update.fraction, update.secondsLeft)
            )

    def _onFinished(self, run: TrackingRun) -> None:
        self.ui.cancelTrackButton.enabled = True
        self._showStatus(*_outcome(run))
        self._onEnd(run)
        if run.state == "failed":
            slicer.util.errorDisplay(run.error, windowTitle="GlideReg")

    def _lookForTheEnd(self) -> None:
        if self._logic.running is None:
            self._watch.stop()
            self.update()

    def _selector(self, time: str):
        return getattr(self.ui, f"{time}NodulesSelector")

    def _onNode(self, time: str, node) -> None:
        if self.parameters is not None and not self._updating:
            setattr(self.parameters, f"{time}Nodules", node)

    def _onChanged(self, caller, event) -> None:
        self.update()


def _outcome(run: TrackingRun) -> tuple[str, bool]:
    """What the status line says about a finished run, and whether that is an error."""
    if run.state == "failed":
        return run.error, True
    if run.state == "cancelled":
        return _("Cancelled; nothing was changed."), False
    counts = run.result.tracking.counts()
    found = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return _("Tracked: {found}.").format(found=found or _("no nodules")), False
