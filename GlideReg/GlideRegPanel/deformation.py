"""Compare, second half: how the deformation of a transform is drawn."""

from dataclasses import replace

import slicer
from slicer.i18n import tr as _

from GlideRegScene import display, shown
from GlideRegScene.compare import deformation
from GlideRegScene.nodes import isInScene

from .messages import sentenceFor
from .section import Section

_MODES = ("grid", "arrows", "contours")
_WIDGETS = (
    "drawingModeCombo",
    "drawing2DCheck",
    "drawing3DCheck",
    "drawingSpacingSlider",
    "drawingScaleSlider",
    "drawingLevelsEdit",
    "drawingFitButton",
)


class DeformationSection(Section):
    """Shows and changes the display node of the chosen transform, whoever else changes it, too."""

    def __init__(self, ui, chosenResult) -> None:
        """``chosenResult`` gives the result transform node, or None."""
        super().__init__(ui)
        self._chosenResult = chosenResult
        self._updating = False
        for text in (_("Grid"), _("Arrows"), _("Contours")):
            ui.drawingModeCombo.addItem(text)
        ui.drawingModeCombo.connect("activated(int)", lambda index: self._show())
        ui.drawing2DCheck.connect("clicked()", self._show)
        ui.drawing3DCheck.connect("clicked()", self._show)
        ui.drawingSpacingSlider.connect("valueChanged(double)", self._onSpacing)
        ui.drawingScaleSlider.connect("valueChanged(double)", self._onScale)
        ui.drawingLevelsEdit.connect("editingFinished()", self._onLevels)
        ui.drawingFitButton.connect("clicked()", self.fit)
        ui.compareSection.connect("contentsCollapsed(bool)", lambda collapsed: self.update())

    @property
    def transform(self):
        """The transform that is chosen here, else that of the registration, or None."""
        if self.parameters is None:
            return None
        chosen = self.parameters.compareTransform
        return chosen if isInScene(chosen) else self._chosenResult()

    def update(self) -> None:
        if self.parameters is None or self._updating:
            return
        transform = self.transform
        events = (slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent,)
        self.follow("drawn", transform, events, lambda caller, event: self.update())
        for name in _WIDGETS:
            getattr(self.ui, name).enabled = transform is not None
        if transform is None:
            self.ui.drawingInfo.text = _("Register first, or choose a transform.")
            return
        self._updating = True
        try:
            self._showDrawing(transform)
        finally:
            self._updating = False

    def fit(self) -> None:
        """Spacing, scale and levels that fit the size of the displacements."""
        transform = self.transform
        if transform is not None:
            drawing = deformation.suggested(transform, self.parameters.fixedVolume)
            deformation.draw(transform, drawing)
            self.update()
            self.ui.drawingInfo.text = _("Longest displacement: {mm:.1f} mm").format(
                mm=drawing.longestMm
            )

    # --- inside -----------------------------------------------------------------------------------

    def _showDrawing(self, transform) -> None:
        mode, in2D, in3D = shown.deformation(transform)
        self.ui.drawingModeCombo.setCurrentIndex(_MODES.index(mode))
        self.ui.drawing2DCheck.checked = in2D
        self.ui.drawing3DCheck.checked = in3D
        drawing = deformation.drawn(transform)
        self.ui.drawingSpacingSlider.value = drawing.spacingMm
        self.ui.drawingScaleSlider.value = drawing.scalePercent
        self.ui.drawingLevelsEdit.text = " ".join(f"{level:g}" for level in drawing.levelsMm)
        contours = mode == "contours"
        for name in ("drawingSpacing", "drawingScale"):
            for part in ("Label", "Slider"):
                getattr(self.ui, name + part).visible = not contours
        self.ui.drawingLevelsLabel.visible = self.ui.drawingLevelsEdit.visible = contours
        if drawing.scalePercent == 100 or contours:
            self.ui.drawingInfo.text = ""
        else:
            self.ui.drawingInfo.text = _("Displacements are drawn {n:g} times as long.").format(
                n=drawing.scalePercent / 100
            )

    def _show(self) -> None:
        transform = self.transform
        if transform is None:
            return
        isNew = transform.GetDisplayNode() is None
        mode = _MODES[self.ui.drawingModeCombo.currentIndex]
        in2D, in3D = self.ui.drawing2DCheck.checked, self.ui.drawing3DCheck.checked
        display.showDeformation(transform, mode, in2D, in3D)
        if isNew:
            self.fit()
        self.update()

    def _onSpacing(self, value: float) -> None:
        self._draw(spacingMm=value)

    def _onScale(self, value: float) -> None:
        self._draw(scalePercent=value)

    def _onLevels(self) -> None:
        try:
            levels = deformation.levelsFrom(self.ui.drawingLevelsEdit.text)
        except Exception as error:
            self.update()  # what was there before
            self.ui.drawingInfo.text = sentenceFor(error)
            return
        self._draw(levelsMm=levels)

    def _draw(self, **changes) -> None:
        """Changes one thing of the drawing; widgets that only follow the node change nothing."""
        if self.transform is not None and not self._updating:
            drawing = deformation.drawn(self.transform)
            deformation.draw(self.transform, replace(drawing, **changes))
