"""Displacement fields as transform nodes: fixed to moving, set from parent, RAS mm.

A volume or a point under such a node goes from the moving to the fixed image (that is the *inverse*
of what resampling asks); fixed points reach the moving image through ``fixedToMoving``.
"""

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

#: Marks our transform nodes, so that they are told from others after a scene is loaded.
ATTRIBUTE = "GlideReg.Result"
#: mm. VTK's default of 0.0075 would be most of the error of an inverse; below 1e-4 the float32
#: vectors keep points a meter from the origin from converging (500 steps each, and a warning).
INVERSE_TOLERANCE = 1e-4
#: How a transform of other software is sampled: step, margin around the volume, steps at the most.
_SAMPLED_MM, _AROUND_MM, _MOST_SAMPLES = 4.0, 20.0, 100


def gridTransform(image: sitk.Image) -> slicer.vtkOrientedGridTransform:
    """An ITK displacement image (LPS mm, fixed to moving) as a VTK grid transform (RAS mm)."""
    from GlideRegLib.geometry import flip_lps_ras

    vectors = flip_lps_ras(sitk.GetArrayViewFromImage(image)).astype(np.float32)
    grid = vtk.vtkImageData()
    grid.SetDimensions(image.GetSize())
    grid.SetSpacing(image.GetSpacing())
    grid.SetOrigin(flip_lps_ras(image.GetOrigin()).tolist())
    # The displacements are the image's scalars, x fastest; as vectors they would be ignored.
    grid.GetPointData().SetScalars(numpy_to_vtk(vectors.reshape(-1, 3), deep=True))
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(grid)
    transform.SetGridDirectionMatrix(_rasDirection(image))
    restoreModes(transform)
    return transform


def restoreModes(transform: slicer.vtkOrientedGridTransform) -> None:
    """What a grid transform needs to be the field that was computed, also after loading.

    Slicer reads grids back with cubic interpolation; ITK and the library interpolate linearly.
    """
    transform.SetInterpolationModeToLinear()
    transform.SetInverseTolerance(INVERSE_TOLERANCE)


def restoreLoadedTransforms(scene) -> int:
    """Puts our transform nodes of a loaded scene right; returns how many there were."""
    nodes = [n for n in slicer.util.getNodesByClass("vtkMRMLTransformNode", scene) if isOurs(n)]
    for node in nodes:
        transform = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
        if transform is not None and (
            transform.GetInterpolationMode() != vtk.VTK_GRID_LINEAR
            or transform.GetInverseTolerance() != INVERSE_TOLERANCE
        ):
            restoreModes(transform)
            node.TransformModified()
    return len(nodes)


def isOurs(node) -> bool:
    """Whether a transform node is the result of a registration of this module."""
    return node.GetAttribute(ATTRIBUTE) is not None


def volumeOf(node, role: str):
    """The "fixed" or "moving" volume that a registration noted at its transform node, or None."""
    if node is None:
        return None
    roles = {
        "fixed": node.GetFixedNodeReferenceRole(),
        "moving": node.GetMovingNodeReferenceRole(),
    }
    return node.GetNodeReference(roles[role])


def fixedToMoving(node, points: np.ndarray) -> np.ndarray:
    """World LPS points (N, 3) of the fixed image, carried to the moving image by a result node."""
    return _transformed(node.GetTransformFromParent(), points)


def movingToFixed(node, points: np.ndarray) -> np.ndarray:
    """World LPS points (N, 3) of the moving image, carried to the fixed image (inverse)."""
    return _transformed(node.GetTransformToParent(), points)


def displacementLattice(node) -> tuple[np.ndarray, np.ndarray]:
    """The grid of a result node: displacements (K, J, I, 3) RAS mm, and spacing (3,) mm."""
    transform = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    grid = transform.GetDisplacementGrid()
    shape = (*reversed(grid.GetDimensions()), 3)
    return vtk_to_numpy(grid.GetPointData().GetScalars()).reshape(shape), grid.GetSpacing()


def _transformed(transform, points: np.ndarray) -> np.ndarray:
    from GlideRegLib.geometry import flip_lps_ras

    transform.Update()
    moved = [transform.TransformPoint(point) for point in flip_lps_ras(points).tolist()]
    return flip_lps_ras(np.asarray(moved).reshape(-1, 3))


def rasMatrix(image: sitk.Image) -> vtk.vtkMatrix4x4:
    """4x4 from voxel index to RAS mm of a SimpleITK image (which is in LPS)."""
    from GlideRegLib.geometry import Grid, flip_lps_ras

    matrix = Grid.from_sitk(image).matrix
    matrix[:3] = flip_lps_ras(matrix[:3].T).T
    return _vtkMatrix(matrix)


def _rasDirection(image: sitk.Image) -> vtk.vtkMatrix4x4:
    from GlideRegLib.geometry import Grid, flip_lps_ras

    matrix = np.eye(4)
    matrix[:3, :3] = flip_lps_ras(Grid.from_sitk(image).direction_matrix.T).T
    return _vtkMatrix(matrix)


def _vtkMatrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    result = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(result, matrix)
    return result


def displacementImage(node) -> sitk.Image:
    """The grid of a result node as an ITK displacement image (LPS mm, fixed to moving)."""
    from GlideRegLib.geometry import flip_lps_ras

    vectors, spacing = displacementLattice(node)
    transform = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    image = sitk.GetImageFromArray(flip_lps_ras(vectors).astype(np.float32), isVector=True)
    image.SetSpacing(spacing)
    image.SetOrigin(flip_lps_ras(transform.GetDisplacementGrid().GetOrigin()).tolist())
    matrix = transform.GetGridDirectionMatrix()
    if matrix is not None:
        direction = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
        image.SetDirection(flip_lps_ras(direction.T).T.ravel().tolist())
    return image


def sampledDisplacements(node, volume) -> sitk.Image:
    """Any transform node, world to world, as an ITK displacement image (LPS mm) around a volume:
    where the points of the volume go that the transform resamples onto."""
    from GlideRegLib.geometry import flip_lps_ras

    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    low, high = bounds[::2] - _AROUND_MM, bounds[1::2] + _AROUND_MM
    spacing = np.maximum(_SAMPLED_MM, (high - low) / _MOST_SAMPLES)
    size = np.ceil((high - low) / spacing).astype(int) + 1
    axes = [start + step * np.arange(n) for start, step, n in zip(low, spacing, size, strict=True)]
    # Along +R and +A the LPS axes run backward: the image has that as its direction.
    k, j, i = np.meshgrid(*axes[::-1], indexing="ij")
    points = np.stack((i, j, k), axis=-1).reshape(-1, 3)
    general = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node, general)
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetDataTypeToDouble()
    after.SetDataTypeToDouble()
    before.SetData(numpy_to_vtk(points, deep=True))
    general.TransformPoints(before, after)
    moved = vtk_to_numpy(after.GetData()) - points
    vectors = flip_lps_ras(moved).astype(np.float32).reshape(*size[::-1], 3)
    image = sitk.GetImageFromArray(vectors, isVector=True)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(flip_lps_ras(low).tolist())
    image.SetDirection([-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0])
    return image
