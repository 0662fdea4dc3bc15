"""Display: before and after, fade, deformation, Jacobian. Its state is that of the MRML nodes."""

import slicer
import vtk
from slicer.i18n import tr as _

from GlideRegScene import display, shown
from GlideRegScene.display import ViewState

from .section import Section

_MODES = ("grid", "arrows", "contours")
#: What needs a result.
_WIDGETS = (
    "beforeButton",
    "afterButton",
    "fadeSlider",
    "deformationCombo",
    "deformation2DCheck",
    "deformation3DCheck",
    "jacobianCheck",
    "restoreButton",
)


class DisplaySection(Section):
    """Changes display and view nodes, and shows what they say, whoever changed them."""

    def __init__(self, ui, chosenResult) -> None:
        """``chosenResult`` gives the result transform node, or None."""
        super().__init__(ui)
        self._chosenResult = chosenResult
        self._before: ViewState | None = None
        for text in (_("Grid"), _("Arrows"), _("Contours")):
            ui.deformationCombo.addItem(text)
        ui.jacobianLegend.text = _(
            "<span style='color:#1f5fb4'>blue</span>: below 1, smaller in the moving image; "
            "<span style='color:#b4141f'>red</span>: above 1, larger; "
            "<span style='color:#c800c8'>magenta</span>: folded"
        )
        ui.beforeButton.connect("clicked()", lambda: self._showOverlay(True))
        ui.afterButton.connect("clicked()", lambda: self._showOverlay(False))
        ui.fadeSlider.connect("valueChanged(int)", self._onFade)
        ui.deformationCombo.connect("activated(int)", lambda index: self._showDeformation())
        ui.deformation2DCheck.connect("clicked()", self._showDeformation)
        ui.deformation3DCheck.connect("clicked()", self._showDeformation)
        ui.jacobianCheck.connect("clicked()", self._showJacobian)
        ui.restoreButton.connect("clicked()", self.restore)

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is not None:
            for node in display.compositeNodes(slicer.mrmlScene):
                self.follow(node.GetID(), node, (vtk.vtkCommand.ModifiedEvent,), self._onChanged)

    def rememberViews(self, views: ViewState | None = None) -> None:
        """Before a run: what "Restore unregistered" brings back. A shown result is not kept.

        ``views``: what they showed before a comparison that is going on; default: what they show.
        """
        transform = self._chosenResult()
        if transform is None or not shown.overlay(transform) or self._before is None:
            self._before = views or ViewState(slicer.mrmlScene)

    def showNewResult(self, transform) -> None:
        """After a run: the warped volume over the fixed one, half and half."""
        display.showResult(transform)
        fixed = transform.GetNodeReference(transform.GetFixedNodeReferenceRole())
        if fixed is not None:
            display.bringIntoView(fixed)
        self.update()

    def forget(self) -> None:
        """The scene is closed: its views are not those of the next one."""
        self._before = None

    def update(self) -> None:
        transform = self._chosenResult()
        for name in _WIDGETS:
            getattr(self.ui, name).enabled = transform is not None
        events = (slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent,)
        self.follow("transform", transform, events, self._onChanged)
        over = shown.overlay(transform) if transform is not None else ""
        self.ui.beforeButton.checked = over == shown.BEFORE
        self.ui.afterButton.checked = over == shown.AFTER
        self.ui.jacobianCheck.checked = over == shown.JACOBIAN
        self.ui.jacobianLegend.visible = over == shown.JACOBIAN
        if transform is None:
            return
        blocked = self.ui.fadeSlider.blockSignals(True)
        self.ui.fadeSlider.value = round(100 * shown.opacity(transform.GetScene()))
        self.ui.fadeSlider.blockSignals(blocked)
        mode, in2D, in3D = shown.deformation(transform)
        self.ui.deformationCombo.setCurrentIndex(_MODES.index(mode))
        self.ui.deformation2DCheck.checked = in2D
        self.ui.deformation3DCheck.checked = in3D

    def restore(self) -> None:
        """Views as before the registration, and nothing under the result transform."""
        transform = self._chosenResult()
        if transform is not None:
            display.restoreUnregistered(transform, self._before)
            self._before = None
        self.update()

    def _onChanged(self, caller, event) -> None:
        self.update()

    def _opacity(self) -> float:
        return self.ui.fadeSlider.value / 100

    def _showOverlay(self, before: bool) -> None:
        transform = self._chosenResult()
        if transform is not None:
            display.showResult(transform, before, self._opacity())
        self.update()  # also when nothing changed: a click on the chosen one must not release it

    def _showJacobian(self) -> None:
        transform = self._chosenResult()
        if transform is not None:
            display.showJacobian(transform, self.ui.jacobianCheck.checked, self._opacity())

    def _onFade(self, value: int) -> None:
        display.setOpacity(slicer.mrmlScene, value / 100)

    def _showDeformation(self) -> None:
        transform = self._chosenResult()
        if transform is None:
            return
        mode = _MODES[self.ui.deformationCombo.currentIndex]
        in2D, in3D = self.ui.deformation2DCheck.checked, self.ui.deformation3DCheck.checked
        display.showDeformation(transform, mode, in2D, in3D)
