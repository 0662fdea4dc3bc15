"""Pixels that are computed from two volumes: red-cyan and difference, one slice for each view.

Slicer's own slice layer logics sample both volumes at the pixels of a view, under whatever
transforms they are. The result is a volume of one slice that lies in the plane of the view, so
a large CT costs no more than a small one, and nothing is resampled beforehand.
"""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .modes import Mode

_TAG = "GlideRegCompare"
_COLORS = "GlideRegDifferenceColors"
#: Where only one of the volumes has voxels; the display node's threshold makes it transparent.
_NOTHING = -1e9
#: Share of the range, -1 to 1 -> red, green, blue. What agrees is black.
_POINTS = (
    (-1.0, (0.55, 0.95, 1.0)),
    (-0.5, (0.10, 0.45, 0.85)),
    (0.0, (0.0, 0.0, 0.0)),
    (0.5, (0.85, 0.40, 0.05)),
    (1.0, (1.0, 0.95, 0.55)),
)
_COUNT = 255


class ComputedSlice:
    """The slice of one view. ``node`` is its volume, to be shown as foreground.

    It follows the view and both volumes: their voxels, windows and transforms.
    """

    def __init__(self, sliceNode, first, second, mode: Mode) -> None:
        self.scene = sliceNode.GetScene()
        self._sliceNode, self._mode = sliceNode, mode
        self._swapped = False
        self._place: tuple = ()  # where the view was when it was sampled
        self._layers = [_layer(sliceNode, volume) for volume in (first, second)]
        # The logics tell of a change when they have taken it in; the nodes would tell before.
        modified = vtk.vtkCommand.ModifiedEvent
        self._tags = [
            layer.AddObserver(modified, lambda *event, k=k: self._onChanged(k))
            for k, layer in enumerate(self._layers)
        ]
        self.node = self._makeNode(f"{first.GetName()} and {second.GetName()}, {mode.value}")

    def _makeNode(self, name: str):
        kind = "Scalar" if self._mode is Mode.DIFFERENCE else "Vector"
        nodes = []
        for role in ("DisplayNode", "Node"):
            node = self.scene.CreateNodeByClass(f"vtkMRML{kind}Volume{role}")
            node.UnRegister(None)
            node.SetName(name)
            # An identifier that no other node can get: a scene that is saved now keeps it.
            node.SetSingletonTag(f"{_TAG}{self._sliceNode.GetLayoutName()}")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            nodes.append(self.scene.AddNode(node))
        display, volume = nodes
        if self._mode is Mode.DIFFERENCE:
            display.SetAndObserveColorNodeID(differenceColors(self.scene).GetID())
            display.SetThreshold(_NOTHING / 2, -_NOTHING)
            display.SetApplyThreshold(True)
        else:
            display.SetWindowLevel(255.0, 127.5)  # bytes as they are
        display.SetAutoWindowLevel(False)
        display.SetInterpolate(False)
        volume.SetAndObserveDisplayNodeID(display.GetID())
        return volume

    def show(self, limit: float, swapped: bool) -> None:
        """``limit``: the difference that gets the full color. ``swapped``: second before first."""
        if self._mode is Mode.DIFFERENCE:
            self.node.GetDisplayNode().SetWindowLevel(2.0 * limit, 0.0)
        if swapped != self._swapped or not self._place:
            self._swapped = swapped
            self._update()

    def remove(self) -> None:
        """Takes the nodes out of the scene again."""
        for layer, tag in zip(self._layers, self._tags, strict=True):
            layer.RemoveObserver(tag)
            layer.SetVolumeNode(None)
            layer.SetSliceNode(None)
            layer.SetMRMLScene(None)
        display = self.node.GetDisplayNode()
        for node in (self.node, display):
            if node is not None and node.GetScene() is not None:
                self.scene.RemoveNode(node)

    def _onChanged(self, number: int) -> None:
        """One of the logics has followed its volume or the view.

        When the view has moved both tell, one after the other: the last one counts.
        """
        if self.node.GetScene() is None or (number == 0 and self._place != self._placeNow()):
            return
        self._update()

    def _placeNow(self) -> tuple:
        matrix = slicer.util.arrayFromVTKMatrix(self._sliceNode.GetXYToRAS())
        return (*matrix.ravel().tolist(), *self._sliceNode.GetDimensions())

    def _update(self) -> None:
        """Samples both volumes anew."""
        size = tuple(self._sliceNode.GetDimensions())
        if min(size) < 1:
            return
        sample = _values if self._mode is Mode.DIFFERENCE else _brightness
        outputs = [_output(layer, self._mode) for layer in self._layers]
        if any(output.GetDimensions() != size for output in outputs):
            return
        self._place = self._placeNow()
        pixels = [sample(*pair) for pair in zip(self._layers, outputs, strict=True)]
        first, second = reversed(pixels) if self._swapped else pixels
        image = vtk.vtkImageData()
        image.SetDimensions(size)
        if self._mode is Mode.DIFFERENCE:  # what is no number is covered by one of them only
            values = np.nan_to_num(first - second, nan=_NOTHING)
        else:
            values = np.stack((first, second, second), axis=-1)
        image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
        with slicer.util.NodeModify(self.node):
            self.node.SetIJKToRASMatrix(self._sliceNode.GetXYToRAS())
            self.node.SetAndObserveImageData(image)


def differenceColors(scene):
    """The color table of differences, one per scene: black where the volumes agree, orange where
    the first is brighter, blue where the second is."""
    node = scene.GetSingletonNode(_COLORS, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetSingletonTag(_COLORS)
    node.SetName("GlideReg difference")
    node.SetTypeToUser()
    node.SetNumberOfColors(_COUNT)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    places = [place for place, _ in _POINTS]
    rgb = np.array([color for _, color in _POINTS])
    for k, share in enumerate(np.linspace(-1, 1, _COUNT)):
        color = [float(np.interp(share, places, rgb[:, c])) for c in range(3)]
        node.SetColor(k, f"{share:+.2f}", *color, 1.0)
    return scene.AddNode(node)


def removeColors(scene) -> None:
    """Takes the color table out of the scene, if it is there."""
    node = scene.GetSingletonNode(_COLORS, "vtkMRMLColorTableNode")
    if node is not None:
        scene.RemoveNode(node)


def _layer(sliceNode, volume):
    layer = slicer.vtkMRMLSliceLayerLogic()
    layer.SetMRMLScene(sliceNode.GetScene())
    layer.SetSliceNode(sliceNode)
    layer.SetVolumeNode(volume)
    return layer


def _output(layer, mode: Mode) -> vtk.vtkImageData:
    """A volume at the pixels of the view: its values, or its colors as its window shows them."""
    if mode is Mode.DIFFERENCE:
        layer.GetReslice().Update()
        return layer.GetReslice().GetOutput()
    connection = layer.GetImageDataConnection()
    connection.GetProducer().Update()
    return connection.GetProducer().GetOutputDataObject(connection.GetIndex())


def _values(layer, output: vtk.vtkImageData) -> np.ndarray:
    """The values (pixels,), float32; not a number where the volume has no voxels."""
    converter = vtk.vtkImageStencilToImage()
    converter.SetInputData(layer.GetReslice().GetStencilOutput())
    converter.SetOutputScalarTypeToUnsignedChar()
    converter.Update()
    inside = vtk_to_numpy(converter.GetOutput().GetPointData().GetScalars()) > 0
    values = vtk_to_numpy(output.GetPointData().GetScalars())
    values = values.reshape(len(inside), -1)[:, 0].astype(np.float32)
    return np.where(inside, values, np.float32(np.nan))


def _brightness(layer, output: vtk.vtkImageData) -> np.ndarray:
    """How bright a volume is on the screen (pixels,), bytes; 0 where it has no voxels."""
    rgba = vtk_to_numpy(output.GetPointData().GetScalars()).astype(np.float32)
    gray = rgba[:, :3] @ np.array((0.299, 0.587, 0.114), np.float32)
    if rgba.shape[1] > 3:
        gray *= rgba[:, 3] / 255
    return np.round(gray).astype(np.uint8)
