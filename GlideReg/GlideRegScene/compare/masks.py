"""Which pixels of a slice view show the second volume: masks, and stencils for Slicer's blending.

Slicer lays the layers of a slice view over each other in a vtkImageBlend. With a stencil it draws
the foreground only inside: the volumes stay where they are, windows and colors stay the user's,
and only the pixels on the screen are touched, however large the volumes are. A label map in the
label layer is cut as the foreground is; segmentations and markups are drawn whole.
"""

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk


def checkerboard(pixelToRas: np.ndarray, size: tuple[int, int], tileMm: float) -> np.ndarray:
    """True in every second tile: (height, width), bottom row first, as VTK counts.

    ``pixelToRas`` is 4x4, RAS mm. Tiles hang on the patient: they do not swim when the view is
    moved, and do not turn over when it is scrolled.
    """
    columns = np.floor(_along(pixelToRas, 0, size[0]) / tileMm).astype(int)
    rows = np.floor(_along(pixelToRas, 1, size[1]) / tileMm).astype(int)
    return (rows[:, None] + columns[None, :]) % 2 == 1


def split(
    pixelToRas: np.ndarray, size: tuple[int, int], through: np.ndarray, horizontal: bool
) -> np.ndarray:
    """True to the right of a line (``horizontal``: below it) through a world position (RAS mm)."""
    axis = 1 if horizontal else 0
    places = _along(pixelToRas, axis, size[axis])
    edge = float(_direction(pixelToRas, axis) @ np.asarray(through, float))
    line = places < edge if horizontal else places >= edge
    mask = np.zeros((size[1], size[0]), bool)
    mask[:] = line[:, None] if horizontal else line[None, :]
    return mask


def splitPoint(
    pixelToRas: np.ndarray, size: tuple[int, int], share: float, horizontal: bool
) -> np.ndarray:
    """World position (RAS mm) in the middle of the line that lies at a share of a view, 0 to 1 from
    its left, or from its top. Pixel k covers k - 0.5 to k + 0.5."""
    width, height = size
    x, y = (width / 2, (1 - share) * height) if horizontal else (share * width, height / 2)
    return (pixelToRas @ [x - 0.5, y - 0.5, 0.0, 1.0])[:3]


def stencilOf(mask: np.ndarray, depth: int = 1) -> vtk.vtkImageStencilData:
    """A mask (height, width) as VTK's stencil, the same in every one of ``depth`` images."""
    image = vtk.vtkImageData()
    image.SetDimensions(mask.shape[1], mask.shape[0], depth)
    values = np.broadcast_to(mask.astype(np.uint8), (depth, *mask.shape)).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    converter = vtk.vtkImageToImageStencil()
    converter.SetInputData(image)
    converter.ThresholdByUpper(1)
    converter.Update()
    stencil = vtk.vtkImageStencilData()
    stencil.DeepCopy(converter.GetOutput())
    return stencil


def _direction(pixelToRas: np.ndarray, axis: int) -> np.ndarray:
    column = pixelToRas[:3, axis]
    return column / np.linalg.norm(column)


def _along(pixelToRas: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Where the pixels lie along an axis of the view, in mm from the world's origin."""
    step = np.linalg.norm(pixelToRas[:3, axis])
    return _direction(pixelToRas, axis) @ pixelToRas[:3, 3] + step * np.arange(count)
