"""Any transform node as a file that measures the same: no fold may be smoothed away.

Linear nodes and the lattice of a field with linear interpolation are written as they are. Whatever
else there is (cubic grids, B-splines, chains) is sampled at the voxels of the volume that it is
measured on.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .. import transforms
from ..inputs import startTransform, worldMatrix

#: Samples at the most; a larger volume is sampled at every second, third, ... voxel.
_MOST_SAMPLES = 12_000_000
#: Points at once: the application gets its turn between two calls.
_AT_ONCE = 40_000


def transformFile(
    node, volume, folder: Path, name: str
) -> tuple[str, Callable[[Callable[[], bool]], None], str]:
    """Path of the file, what writes it (asking whether to go on), and a note for the reader (""
    when the file is exact). ``volume`` is the one whose points go through the node."""
    if node.IsTransformToWorldLinear():
        path = str(folder / f"{name}.tfm")
        return path, _always(partial(sitk.WriteTransform, startTransform(node), path)), ""
    path = str(folder / f"{name}.mha")
    if _isExactLattice(node, volume):
        return path, _always(partial(sitk.WriteImage, transforms.displacementImage(node), path)), ""
    matrix, step = worldMatrix(volume), _stepFor(volume)
    if _isSheared(matrix):
        image = transforms.sampledDisplacements(node, volume)
        note = "The transform was sampled coarsely: its volume is sheared."
        return path, _always(partial(sitk.WriteImage, image, path)), note
    writer = partial(_writeSamples, _detached(node), matrix, _sizeOf(volume), step, path)
    note = "" if step == 1 else f"The transform was sampled at every {_ordinal(step)} voxel."
    return path, writer, note


def _isSheared(matrix: np.ndarray) -> bool:
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def _always(write: Callable[[], None]) -> Callable[[Callable[[], bool]], None]:
    return lambda goOn: write()


def _ordinal(step: int) -> str:
    return {2: "second", 3: "third"}.get(step, f"{step}th")


def _isExactLattice(node, volume) -> bool:
    """Whether the node is a grid, from parent and linear, that says the same in ITK: inside the
    grid they agree; beyond it ITK moves nothing and Slicer goes on with the last vector."""
    grid = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    if grid is None or node.GetTransformNodeID() is not None:
        return False
    if grid.GetInterpolationMode() != vtk.VTK_GRID_LINEAR or grid.GetDisplacementScale() != 1:
        return False
    return transforms.isOurs(node) or _covers(node, volume)


def _covers(node, volume) -> bool:
    from GlideRegLib.geometry import Grid, flip_lps_ras

    lattice = Grid.from_sitk(transforms.displacementImage(node))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in _sizeOf(volume)])).reshape(3, -1)
    matrix = worldMatrix(volume)
    index = lattice.to_index(flip_lps_ras((matrix[:3, :3] @ corners).T + matrix[:3, 3]))
    return bool((index >= -1e-3).all() and (index <= np.asarray(lattice.size) - 1 + 1e-3).all())


def _sizeOf(volume) -> tuple[int, int, int]:
    return tuple(volume.GetImageData().GetDimensions())


def _stepFor(volume) -> int:
    """Every how many voxels is sampled."""
    step = 1
    while np.prod([-(-n // step) + 1.0 for n in _sizeOf(volume)]) > _MOST_SAMPLES:
        step += 1
    return step


def _detached(node) -> vtk.vtkGeneralTransform:
    """World to world, fixed to moving, as a copy that no node can change."""
    general, copy = vtk.vtkGeneralTransform(), vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node, general)
    copy.DeepCopy(general)
    copy.Update()
    return copy


def _writeSamples(
    transform, matrix: np.ndarray, size: tuple, step: int, path: str, goOn: Callable[[], bool]
) -> None:
    """The displacement (LPS mm) at every ``step``-th voxel of a volume; ``matrix``: index to RAS.
    The lattice reaches at least to the last voxel."""
    from GlideRegLib.geometry import flip_lps_ras

    shape = [-(-(n - 1) // step) + 1 for n in size]
    vectors = np.empty((int(np.prod(shape)), 3), np.float32)
    for start in range(0, len(vectors), _AT_ONCE):
        if not goOn():
            return
        stop = min(start + _AT_ONCE, len(vectors))
        index = np.stack(np.unravel_index(np.arange(start, stop), shape, order="F"), axis=1)
        points = (step * index) @ matrix[:3, :3].T + matrix[:3, 3]
        vectors[start:stop] = _moved(transform, points) - points
    image = sitk.GetImageFromArray(flip_lps_ras(vectors).reshape(*shape[::-1], 3), isVector=True)
    columns = flip_lps_ras(matrix[:3, :3].T).T
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing((step * spacing).tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin(flip_lps_ras(matrix[:3, 3]).tolist())
    sitk.WriteImage(image, path)


def _moved(transform, points: np.ndarray) -> np.ndarray:
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetDataTypeToDouble()
    after.SetDataTypeToDouble()
    before.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData())
