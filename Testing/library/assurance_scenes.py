"""Pairs for tests of the quality assurance: textured boxes, turned grids, known fields."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch

from GlideRegLib.assurance.subject import Subject
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume


def tilted_direction(degrees: float = 20.0) -> tuple[float, ...]:
    """A grid whose axes are turned about z and that counts z from head to feet."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, -1.0)


def tilted_grid(size: tuple[int, int, int] = (40, 36, 60)) -> Grid:
    """Anisotropic, turned, away from the origin; deeper than one slab of the survey."""
    return Grid(size, (1.5, 2.0, 2.5), (-30.0, 40.0, 100.0), tilted_direction())


def textured(grid: Grid, seed: int = 0) -> Volume:
    """A CT-like box: tissue with texture, air in the outer three voxels."""
    values = np.random.default_rng(seed).normal(40, 60, grid.shape).astype(np.float32)
    array = np.full(grid.shape, -1000, np.float32)
    array[3:-3, 3:-3, 3:-3] = values[3:-3, 3:-3, 3:-3]
    return Volume(array, grid)


def affine(matrix: np.ndarray, offset: tuple[float, ...] = (0.0, 0.0, 0.0)) -> sitk.Transform:
    """p -> matrix p + offset, LPS mm."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.asarray(matrix, dtype=float).ravel().tolist())
    transform.SetTranslation(offset)
    return transform


def as_transform(vectors: np.ndarray, grid: Grid) -> sitk.Transform:
    """A displacement (3, Z, Y, X) in LPS mm as a transform of ITK."""
    return DisplacementField(torch.from_numpy(vectors.astype(np.float32)), grid).to_sitk_transform()


def points_of(grid: Grid) -> np.ndarray:
    """LPS mm of all voxel centers: (3, Z, Y, X)."""
    index = grid.index_tensor().double().numpy().reshape(3, -1).T
    return grid.to_physical(index).T.reshape(3, *grid.shape)


def subject_of(transform: sitk.Transform, grid: Grid | None = None, **kwargs: object) -> Subject:
    """The transform between two textured boxes on the same grid, with what else is given."""
    grid = grid or tilted_grid()
    return Subject(textured(grid), textured(grid, 1), transform, **kwargs)


def foreign_composite(grid: Grid, amplitude: float = 4.0, seed: int = 3) -> sitk.CompositeTransform:
    """What elastix leaves behind: a B-spline in front of an affine transform, in one composite."""
    turn = np.array([[1.01, 0.02, 0.0], [-0.02, 0.99, 0.01], [0.0, -0.01, 1.02]])
    linear = affine(turn, (1.0, -2.0, 1.5))
    linear.SetCenter(grid.center.tolist())
    image = grid.copy_to_sitk(sitk.Image(*grid.size, sitk.sitkUInt8))
    spline = sitk.BSplineTransformInitializer(image, (5, 5, 5), order=3)
    count = len(spline.GetParameters())
    values = np.random.default_rng(seed).uniform(-amplitude, amplitude, count)
    spline.SetParameters(values.tolist())
    # ITK applies the transform that was added last first.
    return sitk.CompositeTransform([linear, spline])
