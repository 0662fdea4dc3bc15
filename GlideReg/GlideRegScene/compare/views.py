"""One slice view of a comparison: its layers, its stencil, its line, its computed slice."""

import numpy as np
import slicer
import vtk

from . import masks
from .modes import COMPUTED, MASKED, Mode, Options
from .slices import ComputedSlice

_LINE_COLOR = (1.0, 0.85, 0.2)


class ComparedView:
    """What a comparison does to one slice view, and takes back when it leaves."""

    def __init__(self, composite, first, second, mode: Mode) -> None:
        self.composite = composite
        self.name = composite.GetLayoutName()
        scene = composite.GetScene()
        self.sliceNode = scene.GetSingletonNode(self.name, "vtkMRMLSliceNode")
        self._first, self._mode = first, mode
        self._options = Options()
        self._line: vtk.vtkActor2D | None = None
        self._renderer = None
        computed = mode in COMPUTED and self.sliceNode is not None
        self._slice = ComputedSlice(self.sliceNode, first, second, mode) if computed else None
        self._foreground = self._slice.node if computed else second
        self.showOurs()

    @property
    def logic(self):
        """Slicer's logic of this view; None while the view is not drawn."""
        application = slicer.app.applicationLogic()
        logics = application.GetSliceLogics() if application is not None else None
        found = (
            logics.GetItemAsObject(k) for k in range(logics.GetNumberOfItems() if logics else 0)
        )
        return next((logic for logic in found if logic.GetSliceNode() is self.sliceNode), None)

    def isOurs(self) -> bool:
        """Whether the view still shows what the comparison put there."""
        shown = (self.composite.GetBackgroundVolumeID(), self.composite.GetForegroundVolumeID())
        return shown == (self._first.GetID(), self._foreground.GetID())

    def showOurs(self) -> None:
        """The layers of the comparison."""
        with slicer.util.NodeModify(self.composite):
            self.composite.SetBackgroundVolumeID(self._first.GetID())
            self.composite.SetForegroundVolumeID(self._foreground.GetID())

    def setOpacity(self, opacity: float) -> None:
        """Opacity of the foreground, 0 to 1."""
        self.composite.SetForegroundOpacity(opacity)

    def apply(self, options: Options) -> None:
        """Shows other options."""
        self._options = options
        if self._slice is not None:
            self._slice.show(options.rangeHu, options.swapped)
        elif self._mode in MASKED:
            self._mask()

    def moved(self) -> None:
        """The view was scrolled, moved, zoomed or resized."""
        self.apply(self._options)

    def leave(self) -> None:
        """Takes away stencil, line and computed slice; the layers are another's business."""
        logic = self.logic
        if logic is not None and self._mode in MASKED:
            for blend in (logic.GetBlend(), logic.GetBlendUVW()):
                blend.SetStencilData(None)
            self._render(logic)
        if self._line is not None and self._renderer is not None:
            self._renderer.RemoveViewProp(self._line)
        self._line = self._renderer = None
        if self._slice is not None:
            self._slice.remove()

    # --- inside -----------------------------------------------------------------------------------

    def _mask(self) -> None:
        """Cuts the foreground to its tiles or to its side, on the screen and in 3-D."""
        logic = self.logic
        if logic is None:
            return
        node = self.sliceNode
        matrix = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
        for blend, toRas, size in (
            (logic.GetBlend(), matrix, node.GetDimensions()),
            (
                logic.GetBlendUVW(),
                slicer.util.arrayFromVTKMatrix(node.GetUVWToRAS()),
                node.GetUVWDimensions(),
            ),
        ):
            if min(size) > 0:
                mask = self._maskOf(toRas, size[:2], self._place(matrix, node.GetDimensions()))
                blend.SetStencilData(masks.stencilOf(mask, size[2]))
        if self._mode is Mode.SPLIT:
            self._drawLine(logic, matrix)
        self._render(logic)

    def _maskOf(self, toRas: np.ndarray, size: tuple, place: np.ndarray) -> np.ndarray:
        options = self._options
        if self._mode is Mode.CHECKERBOARD:
            mask = masks.checkerboard(toRas, size, options.tileMm)
        else:
            mask = masks.split(toRas, size, place, options.horizontal)
        return ~mask if options.swapped else mask

    def _place(self, matrix: np.ndarray, size: tuple) -> np.ndarray:
        """A position on the line, RAS mm."""
        options = self._options
        if options.through is not None:
            return np.asarray(options.through)
        return masks.splitPoint(matrix, size[:2], options.split, options.horizontal)

    def _drawLine(self, logic, matrix: np.ndarray) -> None:
        """A thin line where the volumes meet: in plain regions it could not be seen otherwise."""
        group = logic.GetDisplayableManagerGroup()
        if group is None or group.GetRenderer() is None:
            return
        if self._line is None:
            self._line, self._source = _lineActor()
            self._renderer = group.GetRenderer()
            self._renderer.AddViewProp(self._line)
        width, height, _ = self.sliceNode.GetDimensions()
        place = self._place(matrix, (width, height))
        x, y = (np.linalg.inv(matrix) @ [*place, 1.0])[:2]
        if self._options.horizontal:
            ends = (0.0, (y + 0.5) / height), (1.0, (y + 0.5) / height)
        else:
            ends = ((x + 0.5) / width, 0.0), ((x + 0.5) / width, 1.0)
        inside = all(0.0 <= value <= 1.0 for end in ends for value in end)
        self._line.SetVisibility(inside)
        self._source.SetPoint1(*ends[0], 0.0)
        self._source.SetPoint2(*ends[1], 0.0)

    @staticmethod
    def _render(logic) -> None:
        """Slicer does not know that the blending has changed: it is asked to draw again."""
        group = logic.GetDisplayableManagerGroup()
        if group is not None:
            group.RequestRender()


def _lineActor() -> tuple[vtk.vtkActor2D, vtk.vtkLineSource]:
    """A line whose ends are shares of the view."""
    source = vtk.vtkLineSource()
    coordinates = vtk.vtkCoordinate()
    coordinates.SetCoordinateSystemToNormalizedViewport()
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputConnection(source.GetOutputPort())
    mapper.SetTransformCoordinate(coordinates)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*_LINE_COLOR)
    actor.PickableOff()
    return actor, source
