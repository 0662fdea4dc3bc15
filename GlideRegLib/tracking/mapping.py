"""What carries points between the two scans: a result of ours, or any transform file.

Tracking needs both directions at single points. :class:`~GlideRegLib.result.Result` has them;
:class:`FileMapping` gives them to every ITK transform, also one of other software, by Newton steps
on the transform itself: no dense inverse is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..geometry import transform_points as apply_matrix

if TYPE_CHECKING:
    import SimpleITK

    from ..volume import Volume

#: Samples along each axis of the fixed image from which the search starts.
_STARTS = 24
#: Newton steps at the most.
_NEWTON_STEPS = 40
#: How far the image of the found point may lie from the wanted one, mm.
_TOLERANCE_MM = 0.01
#: Half the distance over which the transform is differentiated, mm.
_STEP_MM = 0.5


#: Expected error in mm at LPS points (N, 3) of the fixed image: (N,).
Uncertainty = Callable[[np.ndarray], np.ndarray]


class Mapping(Protocol):
    """Two directions between the fixed and the moving image, LPS mm, arrays (N, 3)."""

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Fixed points to moving points."""
        ...

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Moving points to fixed points."""
        ...


@dataclass(frozen=True)
class SwappedMapping:
    """The same mapping with the roles of both images exchanged: for a prior that was fixed."""

    mapping: Mapping

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of what was the moving image, LPS mm, to the other one."""
        return self.mapping.inverse_points(points)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of what was the fixed image, LPS mm, to the other one."""
        return self.mapping.transform_points(points)


def uncertainty_of(mapping: Mapping) -> Uncertainty | None:
    """The expected error that a mapping itself knows of; None for those that know none."""
    if isinstance(mapping, SwappedMapping):
        own = uncertainty_of(mapping.mapping)
        return None if own is None else lambda points: own(mapping.transform_points(points))
    if getattr(mapping, "uncertainty", None) is None:
        return None
    return mapping.uncertainty_at


@dataclass(frozen=True)
class FileMapping:
    """An ITK transform (fixed to moving, LPS mm) over the fixed image with the grid ``grid``.

    ``uncertainty``: its expected error in mm as an image over the fixed image, if it is known (a
    registration writes it as ``uncertainty.nii.gz``).
    """

    transform: SimpleITK.Transform
    grid: Grid
    uncertainty: Volume | None = None

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Fixed LPS points (N, 3) to moving LPS points."""
        from ..field import transform_points

        return transform_points(self.transform, points)

    def uncertainty_at(self, points: np.ndarray) -> np.ndarray:
        """The expected error in mm at fixed LPS points (N, 3): (N,)."""
        from ..confidence import sample_uncertainty

        return sample_uncertainty(self.uncertainty, points)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Moving LPS points (N, 3) to the fixed points that the transform sends there.

        A point that no part of the fixed image reaches gets a place outside of it, by the linear
        continuation of the transform from the nearest part. Raises :class:`InputError` when the
        transform sends parts of the fixed image to infinity, or flattens all space.
        """
        from scipy.spatial import cKDTree

        targets = np.asarray(points, dtype=float).reshape(-1, 3)
        if self.transform.IsLinear():
            from ..field import linear_matrix

            matrix = linear_matrix(self.transform)
            if abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
                raise InputError("The transform flattens space and has no inverse.")
            return apply_matrix(np.linalg.inv(matrix), targets)
        fixed, moved = self._samples
        start = fixed[cKDTree(moved).query(targets)[1]]
        return self._newton(start, targets)

    @cached_property
    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Fixed points spread over the fixed image, and where they go."""
        axes = [np.linspace(0, n - 1, min(n, _STARTS)) for n in self.grid.size]
        index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        fixed = self.grid.to_physical(index)
        moved = self.transform_points(fixed)
        if not np.isfinite(moved).all():
            raise InputError(
                "The transform sends parts of the fixed image to infinity; it cannot be inverted."
            )
        return fixed, moved

    def _newton(self, start: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Damped Newton steps from ``start`` until the points (N, 3) go to ``targets``."""
        here, scale = start.copy(), np.ones(len(start))
        residual = self.transform_points(here) - targets
        first = here - self._steps(here, residual)
        for _ in range(_NEWTON_STEPS):
            error = np.linalg.norm(residual, axis=1)
            active = np.flatnonzero(error > _TOLERANCE_MM)
            if len(active) == 0:
                return here
            step = self._steps(here[active], residual[active]) * scale[active, None]
            trial = here[active] - step
            found = self.transform_points(trial) - targets[active]
            better = np.linalg.norm(found, axis=1) < error[active]
            here[active[better]], residual[active[better]] = trial[better], found[better]
            scale[active] = np.where(better, np.minimum(1, 2 * scale[active]), scale[active] / 2)
        # Beyond its grid a displacement field drops to zero, and no step leads there.
        lost = np.linalg.norm(residual, axis=1) > _TOLERANCE_MM
        lost &= ~self.grid.contains(first)
        here[lost] = first[lost]
        return here

    def _steps(self, points: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Newton steps (N, 3): the transform's derivatives, on the inner side at faces, applied
        backwards to the residuals."""
        steps = _STEP_MM * np.eye(3)
        ends = np.concatenate((points[:, None] + steps, points[:, None] - steps), axis=1)
        flat = ends.reshape(-1, 3)
        inside = self.grid.contains(flat).reshape(-1, 6) | ~self.grid.contains(points)[:, None]
        ends = np.where(inside[..., None], ends, points[:, None])
        moved = self.transform_points(ends.reshape(-1, 3)).reshape(-1, 6, 3)
        lengths = np.linalg.norm(ends[:, :3] - ends[:, 3:], axis=2)
        gradient = ((moved[:, :3] - moved[:, 3:]) / lengths[..., None]).swapaxes(1, 2)
        return np.einsum("nij,nj->ni", np.linalg.pinv(gradient), residual)
