"""Apply, progress and cancel."""

import math
import shutil

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from GlideRegRun.dependencies import MissingDependency
from GlideRegRun.registration import ProgressUpdate, Registration
from GlideRegScene.parameters import Device

from . import wording
from .messages import LogWindow, sentenceFor
from .section import Section

_ERROR_STYLE = "color: #c62828"


class RunSection(Section):
    """Starts a run and shows it; a run goes on, and is shown again, when the module is left.

    ``onStart`` is called before a run, ``onEnd`` with every finished :class:`Registration`.
    """

    def __init__(self, ui, logic, onStart, onEnd) -> None:
        super().__init__(ui)
        self._logic = logic
        self._onStart, self._onEnd = onStart, onEnd
        self._starting = False
        self._progress: ProgressUpdate | None = None
        self._last: Registration | None = None
        self._log = LogWindow()
        ui.applyButton.connect("clicked()", self.apply)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.logButton.connect("clicked()", self.showLog)
        # A run that somebody started from the console has no callback to the panel.
        self._watch = qt.QTimer()
        self._watch.setInterval(300)
        self._watch.connect("timeout()", self._lookForTheEnd)
        self._showStatus("")

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is None and self._logic.running is None:
            self._watch.stop()  # after a reload of the module its widgets are gone

    def close(self) -> None:
        """The module's widgets go: nothing may look at them any more."""
        self._watch.stop()

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        other = self._logic.running is not None and self._logic.running.kind != Registration.kind
        running = self._logic.running is not None and not other
        busy = running or self._starting
        self.ui.progressBar.visible = busy
        self.ui.cancelButton.visible = running
        self.ui.logButton.visible = self._last is not None and not busy
        if (running or other) and not self._watch.isActive():
            self._watch.start()
        if other:
            self._setApply(False, _("Register"), _("Nodules are being tracked; wait or cancel"))
        elif busy:
            self._setApply(False, _("Registering…"), _("A registration is running"))
            self._showProgress()
        elif self.parameters is not None:
            self._updateApply()

    def _updateApply(self) -> None:
        self._followInputs()
        try:
            request = self._logic.requestFrom(self.parameters)
            problem = request.problem()
        except Exception as error:
            sentence = sentenceFor(error)
            self._setApply(False, wording.shortReason(sentence), sentence)
            return
        if problem:
            self._setApply(False, wording.shortReason(problem), problem)
            return
        title = self._title(request)
        self._setApply(True, title, _("Starts the registration; Slicer can be used meanwhile"))

    def _title(self, request) -> str:
        """ "Register (about 40 s on CPU)", or plain "Register" when nobody can tell."""
        cuda = self.parameters.device is not Device.CPU and bool(shutil.which("nvidia-smi"))
        try:
            from GlideRegLib.estimate import expected_seconds

            volume = request.fixedVolume
            size = volume.GetImageData().GetDimensions()
            extent = tuple(n * mm for n, mm in zip(size, volume.GetSpacing(), strict=True))
            seconds = expected_seconds(extent, request.settings, cuda)
        except ImportError:
            seconds = None
        if seconds is None or not math.isfinite(seconds):
            return _("Register")
        return _("Register (about {time} on {device})").format(
            time=wording.duration(seconds), device="GPU" if cuda else "CPU"
        )

    def _setApply(self, enabled: bool, text: str, toolTip: str) -> None:
        self.ui.applyButton.enabled = enabled
        self.ui.applyButton.text = text
        self.ui.applyButton.toolTip = toolTip

    def _showProgress(self) -> None:
        progress = self._progress
        if progress is None:
            self.ui.progressBar.maximum = 0  # busy: nobody knows how far it is
            self._showStatus(_("A registration is running"))
            return
        self.ui.progressBar.maximum = 100
        self.ui.progressBar.value = math.floor(100 * progress.fraction)
        if self.ui.cancelButton.enabled:
            self._showStatus(
                wording.progressLine(progress.stage, progress.fraction, progress.secondsLeft)
            )

    def _showStatus(self, text: str, isError: bool = False) -> None:
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = bool(text)
        self.ui.statusLabel.styleSheet = _ERROR_STYLE if isError else ""

    def _followInputs(self) -> None:
        """Voxels that a volume gets, or another start, change what is missing."""
        modified = vtk.vtkCommand.ModifiedEvent
        for role in ("fixedVolume", "movingVolume"):
            events = (modified, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)
            events += (slicer.vtkMRMLTransformableNode.TransformModifiedEvent,)
            self.follow(role, getattr(self.parameters, role), events, self._onInputChanged)
        events = (modified, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        start = self.parameters.initialTransform
        self.follow("initialTransform", start, events, self._onInputChanged)

    def _onInputChanged(self, caller, event) -> None:
        self.update()

    # --- what is done -----------------------------------------------------------------------------

    def apply(self) -> None:
        """Starts a run with the choices of the panel."""
        if self._starting or self._logic.running is not None or self.parameters is None:
            return
        self._starting = True  # questions about packages are asked meanwhile
        self._onProgress(ProgressUpdate(_("Starting"), 0.0, None))
        self.update()
        try:
            self._onStart()
            self._last = self._logic.registerUsingParameterNode(
                self.parameters,
                blocking=False,
                onProgress=self._onProgress,
                onFinished=self._onFinished,
            )
            self.ui.cancelButton.enabled = True
        except Exception as error:
            self._progress = None
            sentence = sentenceFor(error)
            self._showStatus(sentence, isError=True)
            # The user has just declined, or pip has shown its own window: one is enough.
            if not isinstance(error, MissingDependency):
                slicer.util.errorDisplay(sentence, windowTitle="GlideReg")
        finally:
            self._starting = False
            self.update()

    def cancel(self) -> None:
        """Ends the run within two seconds."""
        self.ui.cancelButton.enabled = False
        self._showStatus(_("Cancelling…"))
        self._logic.cancel()

    def showLog(self) -> None:
        if self._last is not None:
            self._log.show(self._last.log)

    def _onProgress(self, update: ProgressUpdate) -> None:
        self._progress = update
        self._showProgress()
        if self._starting:
            # Inputs are being written, and nothing is painted meanwhile unless we say so.
            self.ui.statusLabel.repaint()

    def _onFinished(self, registration: Registration) -> None:
        self._progress = None
        self._last = registration
        self.ui.cancelButton.enabled = True
        self._showStatus(*_outcome(registration))
        self._onEnd(registration)
        if registration.state == "failed":
            slicer.util.errorDisplay(registration.error, windowTitle="GlideReg")

    def _lookForTheEnd(self) -> None:
        if self._logic.running is not None:
            return
        self._watch.stop()
        self.ui.cancelButton.enabled = True
        if self._progress is not None or self.ui.progressBar.maximum == 0:
            self._progress = None
            self.ui.progressBar.maximum = 100
            self._showStatus("")
        self.update()


def _outcome(registration: Registration) -> tuple[str, bool]:
    """What the status line says about a finished run, and whether that is an error."""
    if registration.state == "failed":
        return registration.error, True
    if registration.state == "cancelled":
        return _("Cancelled; nothing was changed."), False
    seconds = registration.result.report["cost"]["seconds"]["total"]
    return _("Registered in {time}.").format(time=wording.secondsTaken(seconds)), False
