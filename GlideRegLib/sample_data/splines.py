"""Cubic B-splines over a lattice: smooth functions of space, and the inverse of smooth maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates, spline_filter


class LatticeSpline:
    """The cubic B-spline with the given coefficients (Z, Y, X), smooth to its second derivative.

    Places are continuous lattice indices in x, y, z order; beyond the ends the last coefficient
    goes on.
    """

    def __init__(self, coefficients: np.ndarray) -> None:
        self.coefficients = np.asarray(coefficients, np.float32)

    @classmethod
    def through(cls, values: np.ndarray) -> LatticeSpline:
        """The spline that takes these values (Z, Y, X) at the lattice nodes."""
        return cls(spline_filter(values, order=3, output=np.float64, mode="nearest"))

    def at(self, index: np.ndarray) -> np.ndarray:
        """Values (N,) at lattice indices (N, 3)."""
        return map_coordinates(
            self.coefficients,
            np.asarray(index, float)[:, ::-1].T,
            order=3,
            prefilter=False,
            mode="nearest",
        )

    def on_axes(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Values (Z, Y, X) float32 at all combinations of lattice indices along the axes."""
        values = self.coefficients
        for axis, index in enumerate((z, y, x)):
            weights = _weights(np.asarray(index, float), self.coefficients.shape[axis])
            values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(values, np.float32)


def _weights(index: np.ndarray, count: int) -> np.ndarray:
    """Weights (len(index), count) of the cubic B-splines centered on nodes 0 .. count - 1."""
    kernel = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    index = np.clip(index, 0, count - 1)
    weights = np.zeros((len(index), count))
    for node in range(-2, count + 2):  # the end nodes stand in for those beyond them
        weights[:, min(max(node, 0), count - 1)] += np.nan_to_num(kernel(index - node))
    return weights.astype(np.float32)


def invert_points(
    displacement: Callable[[np.ndarray], np.ndarray],
    targets: np.ndarray,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Solves x + u(x) = y: the points x (N, 3) for targets y (N, 3), and what is missing (N,), mm.

    ``displacement`` gives u (N, 3) in mm at points (N, 3); ``start`` is a first guess of x. Damped
    iteration comes first, because strong shear is no contraction; Newton steps finish.
    """
    found = np.array(targets if start is None else start, float)
    for _ in range(30):
        found += 0.6 * (targets - found - displacement(found))
    for _ in range(8):
        missing = targets - found - displacement(found)
        step = np.linalg.solve(map_gradient(displacement, found), missing[:, :, None])[:, :, 0]
        found += np.clip(step, -3, 3)
    return found, np.linalg.norm(targets - found - displacement(found), axis=1)


def map_gradient(
    displacement: Callable[[np.ndarray], np.ndarray], points: np.ndarray, step: float = 0.05
) -> np.ndarray:
    """d (x + u) / d x (N, 3, 3) at points (N, 3) by central differences over +-``step`` mm."""
    columns = [
        (displacement(points + step * axis) - displacement(points - step * axis)) / (2 * step)
        for axis in np.eye(3)
    ]
    return np.eye(3) + np.stack(columns, axis=2)
