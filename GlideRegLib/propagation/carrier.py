"""Both directions of one transform: images are pulled, points are pushed.

A transform T of ITK maps fixed points to moving points. From moving to fixed, an image is sampled
through T itself, while a point needs the inverse of T; from fixed to moving it is the other way
round. Getting one of the four wrong is the usual mistake, so they are decided here and only here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..field import affine_to_sitk, linear_matrix, sample_transform, transform_points
from ..geometry import Grid
from ..geometry import transform_points as apply_matrix
from ..tracking.mapping import FileMapping

if TYPE_CHECKING:
    import SimpleITK

#: Distance of the nodes on which a transform is inverted for images, mm at the least.
_LATTICE_MM = 2.0
#: Beyond the fixed image the deformation fades out within this distance at the most, mm.
_BORDER_MM = 60.0
#: Samples along each axis for the linear part of a transform, and for the check of an inverse.
_SAMPLES = 16
#: Half the distance over which the map is differentiated to turn normals, mm.
_STEP_MM = 0.5
#: An inverse that misses by more is said, mm.
NOTICEABLE_MM = 0.1


@dataclass(frozen=True)
class Carrier:
    """Carries data from a source image to a target image.

    ``transform`` maps fixed to moving points (LPS mm). The source is the moving image and the
    target the fixed one; with ``back`` the other way round.
    """

    transform: SimpleITK.Transform
    fixed: Grid
    moving: Grid
    back: bool = False

    @property
    def source(self) -> Grid:
        """The grid of the image from which things come."""
        return self.fixed if self.back else self.moving

    @property
    def target(self) -> Grid:
        """The grid of the image to which they go."""
        return self.moving if self.back else self.fixed

    @cached_property
    def pull(self) -> SimpleITK.Transform:
        """What images are resampled through: target points to source points."""
        if not self.back:
            return self.transform
        return inverse_transform(self.transform, self.fixed)

    def push(self, points: np.ndarray) -> np.ndarray:
        """Where source points (N, 3) lie in the target, LPS mm.

        Raises :class:`InputError` when the transform sends a point to infinity.
        """
        if len(points) == 0:
            return np.zeros((0, 3))
        mapping = FileMapping(self.transform, self.fixed)
        moved = mapping.transform_points(points) if self.back else mapping.inverse_points(points)
        if not np.isfinite(moved).all():
            raise InputError("The transform sends points to infinity; check that it is intact.")
        return moved

    def push_normals(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Unit normals (N, 3) at source points (N, 3), as they stand on the carried surface.

        A surface's normal turns with the cofactor matrix of the map's gradient, not with the
        gradient itself.
        """
        steps = _STEP_MM * np.eye(3)
        sides = [self.push(points + s) - self.push(points - s) for s in steps]
        gradient = np.stack(sides, axis=2) / (2 * _STEP_MM)
        rows = gradient.swapaxes(1, 2)  # the columns of each gradient
        a, b, c = rows[:, 0], rows[:, 1], rows[:, 2]
        cofactors = np.stack((np.cross(b, c), np.cross(c, a), np.cross(a, b)), axis=2)
        turned = np.einsum("nij,nj->ni", cofactors, normals)
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)

    def push_error(self, points: np.ndarray, pushed: np.ndarray) -> dict[str, float | int] | None:
        """How exact the inverse behind :meth:`push` was, mm; None where no inverse is used.

        ``pushed`` (N, 3) go through the transform and should arrive at ``points`` (N, 3): where the
        field ends, jumps or folds no inverse may exist. The distances as :func:`_errors` sums
        them up; those that left the target are left out, since the transform ends there.
        """
        if self.back or len(points) == 0:
            return None
        errors = np.linalg.norm(transform_points(self.transform, pushed) - points, axis=1)
        return _errors(errors[self.target.contains(pushed)])

    def inverse_error(self) -> dict[str, float | int] | None:
        """How exact the inverse behind :attr:`pull` is, mm; None where no inverse is used.

        Points spread over the source go to the target by the transform and back through the
        inverse: the distances to where they began as :func:`_errors` sums them up. Those that leave
        the target are left out.
        """
        if not self.back:
            return None
        start = _spread(self.source)
        there = transform_points(self.transform, start)
        seen = self.target.contains(there)
        return _errors(np.linalg.norm(transform_points(self.pull, there) - start, axis=1)[seen])


def _errors(errors: np.ndarray) -> dict[str, float | int] | None:
    """Mean, 95th percentile and maximum of errors (N,) in mm, their number, and how many of them
    are ``beyond`` :data:`NOTICEABLE_MM`; None without any."""
    if len(errors) == 0:
        return None
    return {
        "mean": float(errors.mean()),
        "p95": float(np.percentile(errors, 95)),
        "max": float(errors.max()),
        "n": len(errors),
        "beyond": int((errors > NOTICEABLE_MM).sum()),
    }


def inverse_transform(transform: SimpleITK.Transform, fixed: Grid) -> SimpleITK.Transform:
    """The inverse of any ITK transform over the fixed image with the grid ``fixed``.

    Linear transforms are inverted exactly. Of others the best linear part A is split off, T(p) =
    A(p + u(p)); u is inverted numerically on a lattice of 2 mm or the image's own voxels, if those
    are larger. Raises :class:`InputError` for a transform that has no inverse at all.
    """
    import SimpleITK as sitk

    if transform.IsLinear():
        return affine_to_sitk(_inverse_matrix(linear_matrix(transform)))
    back = affine_to_sitk(_inverse_matrix(_linear_part(transform, fixed)))
    # ITK applies the transform that was added last first.
    deformation = sitk.CompositeTransform([back, transform])
    field = sample_transform(deformation, _lattice(fixed)).with_zero_border(limit_mm=_BORDER_MM)
    return sitk.CompositeTransform([field.inverse().to_sitk_transform(), back])


def _linear_part(transform: SimpleITK.Transform, grid: Grid) -> np.ndarray:
    """The 4x4 matrix that comes nearest to the transform over a grid, by least squares."""
    points = _spread(grid)
    homogeneous = np.column_stack([points, np.ones(len(points))])
    moved = transform_points(transform, points)
    if not np.isfinite(moved).all():
        raise InputError("The transform sends points to infinity; check that it is intact.")
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(homogeneous, moved, rcond=None)[0].T
    return matrix


def _inverse_matrix(matrix: np.ndarray) -> np.ndarray:
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise InputError("The transform flattens space and has no inverse.")
    return np.linalg.inv(matrix)


def _spread(grid: Grid) -> np.ndarray:
    """Points (N, 3) in LPS mm spread evenly over a grid: the centers of equal boxes."""
    counts = [min(n, _SAMPLES) for n in grid.size]
    shares = [(np.arange(count) + 0.5) / count for count in counts]
    axes = [share * n - 0.5 for share, n in zip(shares, grid.size, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return apply_matrix(grid.matrix, index)


def _lattice(fixed: Grid) -> Grid:
    """Nodes from the first to the last voxel of the fixed image.

    None lies beyond: there the fields of many programs drop to zero, and the inverse would tear.
    """
    lengths = [(n - 1) * s for n, s in zip(fixed.size, fixed.spacing, strict=True)]
    steps = [max(s, _LATTICE_MM) for s in fixed.spacing]
    size = tuple(max(2, math.ceil(a / b) + 1) for a, b in zip(lengths, steps, strict=True))
    spacing = tuple(a / (n - 1) for a, n in zip(lengths, size, strict=True))
    return Grid(size, spacing, fixed.origin, fixed.direction)
