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

from ..geometry import Grid

if TYPE_CHECKING:
    import SimpleITK

#: Samples along each axis of the fixed image from which the search starts.
_STARTS = 24
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
    """An ITK transform (fixed to moving, LPS mm) over the fixed image with the grid ``grid``."""

    transform: SimpleITK.Transform
    grid: Grid

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Fixed LPS points (N, 3) to moving LPS points."""
        from ..field import transform_points

        return transform_points(self.transform, points)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Moving LPS points (N, 3) to the fixed points that the transform sends there.

        A point that no part of the fixed image reaches gets a place outside of it, by the linear
        continuation of the transform from the nearest part.
        """
        points = np.asarray(points, dtype=float).reshape(-1, 3)
        return np.array([self._inverse(point) for point in points]).reshape(-1, 3)

    @cached_property
    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Fixed points spread over the fixed image, and where they go."""
        axes = [np.linspace(0, n - 1, min(n, _STARTS)) for n in self.grid.size]
        index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        fixed = self.grid.to_physical(index)
        return fixed, self.transform_points(fixed)

    def _inverse(self, target: np.ndarray) -> np.ndarray:
        fixed, moved = self._samples
        start = fixed[np.argmin(np.linalg.norm(moved - target, axis=1))]
        here, first, scale = start.copy(), None, 1.0
        residual = self.transform_points(here)[0] - target
        for _ in range(40):
            if np.linalg.norm(residual) <= _TOLERANCE_MM:
                return here
            step = np.linalg.lstsq(self._gradient(here), residual, rcond=None)[0]
            first = start - step if first is None else first
            trial = here - scale * step
            found = self.transform_points(trial)[0] - target
            if np.linalg.norm(found) < np.linalg.norm(residual):
                here, residual, scale = trial, found, min(1.0, 2 * scale)
            else:
                scale *= 0.5
        # Beyond its grid a displacement field drops to zero, and no step leads there.
        return here if self.grid.contains(first[None])[0] else first

    def _gradient(self, point: np.ndarray) -> np.ndarray:
        """The transform's 3x3 matrix of derivatives at an LPS point, on the inner side at faces."""
        steps = _STEP_MM * np.eye(3)
        ends = np.concatenate((point + steps, point - steps))
        inside = self.grid.contains(ends)[:, None] | ~self.grid.contains(point[None])[0]
        ends = np.where(inside, ends, point)
        moved = self.transform_points(ends)
        lengths = np.linalg.norm(ends[:3] - ends[3:], axis=1)
        return ((moved[:3] - moved[3:]) / lengths[:, None]).T
