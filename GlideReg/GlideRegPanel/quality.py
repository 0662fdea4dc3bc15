"""Quality, first half: what is assessed and by which profile, Assess, progress and cancel."""

import math
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from GlideRegRun.assessment import AssessmentRun
from GlideRegRun.dependencies import MissingDependency
from GlideRegRun.registration import ProgressUpdate
from GlideRegScene.library import availableProfiles
from GlideRegScene.quality import structures, tables

from . import wording
from .messages import sentenceFor
from .section import Section

_ERROR_STYLE = "color: #c62828"
_ROLES = ("fixed", "moving")
#: Structures that are listed without scrolling.
_MOST_LISTED = 5


class QualitySection(Section):
    """Starts assessments and shows them. ``onEnd`` is called with every finished run."""

    def __init__(self, ui, logic, onEnd) -> None:
        super().__init__(ui)
        self._logic, self._onEnd = logic, onEnd
        self._updating = self._starting = False
        self._profiles: list[str] = []
        ui.qualityTableSelector.addAttribute("vtkMRMLTableNode", tables.ATTRIBUTE)
        ui.qualityStructuresList.connect("itemChanged(QListWidgetItem*)", self._onTicked)
        ui.qualityProfileCombo.connect("activated(int)", self._onProfile)
        ui.qualityProfileButton.connect("clicked()", self.chooseProfile)
        ui.assessButton.connect("clicked()", self.assess)
        ui.cancelAssessButton.connect("clicked()", self.cancel)
        # Opening a section shows all that is in it, also what has nothing to show yet.
        ui.qualitySection.connect("contentsCollapsed(bool)", lambda collapsed: self.update())
        # A run that somebody started elsewhere has no callback to this section.
        self._watch = qt.QTimer()
        self._watch.setInterval(300)
        self._watch.connect("timeout()", self._lookForTheEnd)
        self._showStatus("")

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is None and self._logic.running is None:
            self._watch.stop()

    def close(self) -> None:
        """The module's widgets go: nothing may look at them any more."""
        self._watch.stop()

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        if self.parameters is None or self._updating:
            return
        self._updating = True
        try:
            self._followNodes()
            self._showStructures()
            self._showProfiles()
        finally:
            self._updating = False
        running = self._logic.running
        assessing = isinstance(running, AssessmentRun) or self._starting
        self.ui.qualityProgressBar.visible = assessing
        self.ui.cancelAssessButton.visible = assessing and not self._starting
        if running is not None and not self._watch.isActive():
            self._watch.start()
        if assessing:
            self._setAssess(False, _("Assessing…"), _("A registration is being assessed"))
        elif running is not None:
            self._setAssess(False, _("Assess"), _("Another computation is running"))
        else:
            self._updateAssess()

    def _updateAssess(self) -> None:
        try:
            problem = self._logic.assessRequestFrom(self.parameters).problem()
        except Exception as error:
            problem = sentenceFor(error)
        if problem:
            self._setAssess(False, wording.shortReason(problem), problem)
            return
        self._setAssess(
            True, _("Assess"), _("Measures the transform in the background; Slicer can be used")
        )

    def _setAssess(self, enabled: bool, text: str, toolTip: str) -> None:
        self.ui.assessButton.enabled = enabled
        self.ui.assessButton.text = text
        self.ui.assessButton.toolTip = toolTip

    def _followNodes(self) -> None:
        """Segments that come and go, and parents that are taken away, change what is missing."""
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        kinds = slicer.vtkSegmentation
        segments = (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified)
        for role in _ROLES:
            name = f"{role[0].upper()}{role[1:]}"
            node = getattr(self.parameters, f"quality{name}Structures")
            own = node.GetSegmentation() if node is not None else None
            self.follow(f"{role} segments", own, segments, self._onChanged)
            self.follow(f"{role} structures", node, (moved,), self._onChanged)
            volume = getattr(self.parameters, f"{role}Volume")
            self.follow(f"{role} volume", volume, (moved,), self._onChanged)

    def _showStructures(self) -> None:
        """The segments of the fixed scan with a tick; those without a partner say so."""
        widget = self.ui.qualityStructuresList
        fixed = structures.names(self.parameters.qualityFixedStructures)
        moving = structures.names(self.parameters.qualityMovingStructures)
        leftOut = self.parameters.qualityLeftOut.split("\n")
        widget.visible = bool(fixed)
        shown = [(name, name not in leftOut, name in moving) for name in fixed]
        if shown == getattr(self, "_listed", None):
            return
        self._listed = shown
        widget.clear()
        for name, ticked, paired in shown:
            text = name if paired else _("{name} (in the fixed scan only)").format(name=name)
            item = qt.QListWidgetItem(text)
            item.setData(qt.Qt.UserRole, name)
            item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
            widget.addItem(item)
        widget.setMaximumHeight(8 + 19 * min(len(shown), _MOST_LISTED))

    def _showProfiles(self) -> None:
        combo, chosen = self.ui.qualityProfileCombo, self.parameters.qualityProfile
        names = list(availableProfiles())
        if chosen not in names:
            names.append(chosen)
        if names != self._profiles:
            self._profiles = names
            combo.clear()
            for name in names:
                combo.addItem(_titleOf(name))
        combo.setCurrentIndex(names.index(chosen))

    def _showStatus(self, text: str, isError: bool = False) -> None:
        self.ui.qualityStatusLabel.text = text
        self.ui.qualityStatusLabel.visible = bool(text)
        self.ui.qualityStatusLabel.styleSheet = _ERROR_STYLE if isError else ""

    # --- what is done -----------------------------------------------------------------------------

    def assess(self) -> None:
        """Starts an assessment with the choices of the panel."""
        self.start(
            lambda **callbacks: self._logic.assessUsingParameterNode(self.parameters, **callbacks)
        )

    def start(self, action, afterwards=lambda run: None) -> None:
        """Starts a run by ``action(blocking=False, onProgress=…, onFinished=…)``; ``afterwards`` is
        called with it when it has succeeded."""
        if self._starting or self._logic.running is not None or self.parameters is None:
            return
        self._starting = True  # questions about packages are asked meanwhile
        self._onProgress(ProgressUpdate(_("Starting"), 0.0, None))
        self.update()
        try:
            action(
                blocking=False,
                onProgress=self._onProgress,
                onFinished=lambda run: self._onFinished(run, afterwards),
            )
            self.ui.cancelAssessButton.enabled = True
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
        self.ui.cancelAssessButton.enabled = False
        self._showStatus(_("Cancelling…"))
        self._logic.cancel()

    def chooseProfile(self) -> None:
        """Takes a profile from a file."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Profile of criteria"), "", "JSON (*.json)"
        )
        if not path or self.parameters is None:
            return
        from GlideRegLib.assurance.profile import Profile

        try:
            Profile.named(path)
        except Exception as error:
            slicer.util.errorDisplay(sentenceFor(error), windowTitle="GlideReg")
            return
        self.parameters.qualityProfile = path

    def _onProfile(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.qualityProfile = self._profiles[index]

    def _onTicked(self, item) -> None:
        if self.parameters is None or self._updating:
            return
        name = item.data(qt.Qt.UserRole)
        leftOut = [n for n in self.parameters.qualityLeftOut.split("\n") if n and n != name]
        if item.checkState() != qt.Qt.Checked:
            leftOut.append(name)
        self.parameters.qualityLeftOut = "\n".join(leftOut)

    def _onProgress(self, update: ProgressUpdate) -> None:
        self.ui.qualityProgressBar.value = math.floor(100 * update.fraction)
        if self.ui.cancelAssessButton.enabled or self._starting:
            self._showStatus(
                wording.progressLine(update.stage, update.fraction, update.secondsLeft)
            )

    def _onFinished(self, run: AssessmentRun, afterwards) -> None:
        self.ui.cancelAssessButton.enabled = True
        self._showStatus(*_outcome(run))
        self._onEnd(run)
        if run.state == "failed":
            slicer.util.errorDisplay(run.error, windowTitle="GlideReg")
        elif run.state == "succeeded":
            afterwards(run)

    def _lookForTheEnd(self) -> None:
        if self._logic.running is None:
            self._watch.stop()
            self.update()

    def _onChanged(self, caller, event) -> None:
        self.update()


def _outcome(run: AssessmentRun) -> tuple[str, bool]:
    """What the status line says about a finished run, and whether that is an error."""
    if run.state == "failed":
        return run.error, True
    if run.state == "cancelled":
        return _("Cancelled; nothing was changed."), False
    if run.result.report is not None:
        return _("The report was written to {path}.").format(path=run.result.report), False
    return _("Assessed: {verdict}.").format(verdict=run.result.assessment.verdict.value), False


def _titleOf(profile: str) -> str:
    """The name that a profile gives itself; for a file that cannot be read, its own."""
    from GlideRegLib.assurance.profile import Profile

    try:
        return Profile.named(availableProfiles().get(profile, profile)).name
    except Exception:  # Assess says what is wrong with it
        return Path(profile).name
