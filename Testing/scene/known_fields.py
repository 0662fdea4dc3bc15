"""Volumes, transforms and fields with known answers for the scene tests, in one place."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

#: An oblique, anisotropic voxel lattice: index to LPS mm.
SIZE = (40, 36, 30)
SPACING = (2.0, 2.5, 4.0)
ORIGIN = (-35.0, 22.0, 110.0)


def rotation(degrees: float, axis: int) -> np.ndarray:
    """A 3x3 turn about a coordinate axis."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


DIRECTION = rotation(20, 2) @ rotation(-12, 0)


def oblique_image(values: np.ndarray | None = None) -> sitk.Image:
    """An oblique SimpleITK image; its default values are smooth, with no symmetry."""
    if values is None:
        k, j, i = np.meshgrid(*[np.arange(n) for n in reversed(SIZE)], indexing="ij")
        values = 400 * np.sin(i / 7.0) + 300 * np.cos(j / 5.0) + 20 * k
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(DIRECTION.ravel().tolist())
    return image


def motion(points: np.ndarray) -> np.ndarray:
    """A smooth displacement (N, 3) in LPS mm of up to 6 mm, different along every axis."""
    x, y, z = (points / 25.0).T
    return np.stack((4 * np.sin(y + 0.4), 3 * np.cos(z), 5 * np.sin(x - z) + 1), axis=1)


def field_image(fade: bool = True) -> sitk.Image:
    """``motion`` on an oblique lattice of 4 mm (LPS mm, fixed to moving); ``fade``: zero faces."""
    size = (44, 46, 48)
    image = sitk.Image(size, sitk.sitkVectorFloat32, 3)
    image.SetSpacing((4.0, 4.0, 4.0))
    image.SetDirection(DIRECTION.ravel().tolist())
    middle = np.asarray(
        oblique_image().TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in SIZE])
    )
    image.SetOrigin((middle - DIRECTION @ (4.0 * (np.asarray(size) - 1) / 2)).tolist())
    vectors = motion(centers(image)).reshape(*reversed(size), 3)
    if fade:
        for axis, n in enumerate(reversed(size)):
            distance = np.minimum(np.arange(n), n - 1 - np.arange(n)) / 10.0
            window = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance, 0, 1))
            vectors = vectors * window.reshape([-1 if a == axis else 1 for a in range(4)])
    filled = sitk.GetImageFromArray(vectors.astype(np.float32), isVector=True)
    filled.CopyInformation(image)
    return filled


def centers(image: sitk.Image) -> np.ndarray:
    """All voxel centers (N, 3) of an image in LPS mm, x fastest."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in reversed(image.GetSize())], indexing="ij")
    index = np.stack((i, j, k), axis=-1).reshape(-1, 3) * np.asarray(image.GetSpacing())
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    return index @ direction.T + np.asarray(image.GetOrigin())


def some_points(count: int = 60, seed: int = 0) -> np.ndarray:
    """Points (N, 3) in LPS mm inside the oblique image."""
    random = np.random.default_rng(seed)
    index = random.uniform(2, np.asarray(SIZE) - 3, (count, 3))
    image = oblique_image()
    return np.array([image.TransformContinuousIndexToPhysicalPoint(p) for p in index.tolist()])


def volume_node(image: sitk.Image, name: str, labels: bool = False):
    """A SimpleITK image as a volume node, by Slicer's own reader through a file format's rules."""
    node_class = "vtkMRMLLabelMapVolumeNode" if labels else "vtkMRMLScalarVolumeNode"
    node = slicer.util.addVolumeFromArray(
        sitk.GetArrayFromImage(image), name=name, nodeClassName=node_class
    )
    matrix = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    flip = np.diag([-1.0, -1.0, 1.0])
    matrix[:3, :3] = flip @ direction @ np.diag(image.GetSpacing())
    matrix[:3, 3] = flip @ np.asarray(image.GetOrigin())
    node.SetIJKToRASMatrix(vtk_matrix(matrix))
    return node


def linear_node(matrix: np.ndarray, name: str = "Linear"):
    """A linear transform node, to parent, RAS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    return node


def turn_and_shift() -> np.ndarray:
    """A rigid 4x4 in RAS mm that commutes with nothing."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(15, 1) @ rotation(-10, 2)
    matrix[:3, 3] = (12.0, -7.0, 9.0)
    return matrix


def markups_node(points: np.ndarray, name: str):
    """A point list from LPS mm (N, 3); Slicer keeps it in RAS."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for p in points:
        node.AddControlPoint(vtk.vtkVector3d(-p[0], -p[1], p[2]))
    return node


def vtk_matrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A 4x4 array as a VTK matrix."""
    result = vtk.vtkMatrix4x4()
    for i in range(4):
        for j in range(4):
            result.SetElement(i, j, float(matrix[i, j]))
    return result


def in_ras(points: np.ndarray) -> np.ndarray:
    """LPS to RAS (or back)."""
    return points * np.array([-1.0, -1.0, 1.0])
