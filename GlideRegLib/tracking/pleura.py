"""The wall that a nodule sits on: the lung's surface around it, continued underneath it.

The surface of the lung beside the nodule is fitted by a paraboloid. A nodule that grows from the
pleura ends where that surface passes under it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volume import Volume

_SMOOTH_MM = 1.0
#: How thick tissue must be to be a wall and no vessel, mm.
_DEPTHS_MM = (2.0, 4.5)
_RING_MM = 11.0
_MINIMUM_POINTS = 40
_MINIMUM_SECTORS = 5  # of eight around the nodule
_ROUGHEST_MM = 1.2


@dataclass(frozen=True)
class Wall:
    """A paraboloid: ``height`` above it is positive inside the wall, negative in the lung."""

    center: np.ndarray
    axes: np.ndarray
    coefficients: np.ndarray

    def height(self, points: np.ndarray) -> np.ndarray:
        """How deep LPS points (..., 3) lie behind the lung's surface, mm (negative: in front)."""
        local = (points - self.center) @ self.axes.T
        return local[..., 2] - _terms(local[..., 0], local[..., 1]) @ self.coefficients


class LungSurface:
    """Points of the surface between lung and tissue in a box around a place."""

    def __init__(self, volume: Volume, center: np.ndarray, level: float, reach: float) -> None:
        """``level`` (HU) divides lung from tissue; ``center`` (3,) LPS and ``reach`` in mm."""
        from scipy.ndimage import gaussian_filter

        self.level = level
        grid = volume.grid
        middle = grid.to_index(center[None])[0]
        half = reach / np.asarray(grid.spacing) + 2
        low = np.clip(np.floor(middle - half).astype(int), 0, np.asarray(grid.size) - 2)
        high = np.clip(np.ceil(middle + half).astype(int) + 1, low + 2, grid.size)
        last = np.asarray(grid.size) - high
        self.grid = grid.padded(tuple(-low), tuple(-last))
        box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
        self.image = volume.array[box].astype(np.float32)
        sigma = [_SMOOTH_MM / s for s in grid.spacing[::-1]]
        self.smooth = gaussian_filter(self.image, sigma)
        self.points = grid_points = self._crossings()
        self.normals = self._gradient_at(grid_points)

    def fit_wall(self, center: np.ndarray, toward: np.ndarray, radius: float) -> Wall | None:
        """The wall on the side ``toward`` (unit vector) of a nodule; None where there is none.

        ``radius`` (mm) is the part around ``center`` in which the nodule hides the wall.
        """
        wall = None
        for _ in range(3):
            axes = _frame(toward)
            local = (self.points - center) @ axes.T
            away = np.linalg.norm(local, axis=1)
            ring = (away > radius) & (away < radius + _RING_MM) & (self.normals @ toward > 0.5)
            ring[ring] = self._thick(self.points[ring], toward)
            wall = _fit(center, axes, local[ring])
            if wall is None:
                return None
            slope = wall.coefficients[1:3]
            normal = axes[2] - slope[0] * axes[0] - slope[1] * axes[1]
            toward = normal / np.linalg.norm(normal)
        return wall

    def _thick(self, points: np.ndarray, toward: np.ndarray) -> np.ndarray:
        """Whether tissue goes on behind surface points (N, 3)."""
        behind = [self._sample(self.smooth, points + depth * toward) for depth in _DEPTHS_MM]
        return np.minimum.reduce(behind) > self.level

    def _crossings(self) -> np.ndarray:
        """Where the image crosses the level on the lines between voxels, LPS mm (N, 3)."""
        found = []
        for axis in range(3):
            values = np.moveaxis(self.image, axis, 0)
            lower, upper = values[:-1], values[1:]
            where = np.nonzero((lower >= self.level) != (upper >= self.level))
            a, b = lower[where], upper[where]
            index = np.stack(where, axis=1).astype(float)
            index[:, 0] += (self.level - a) / (b - a)
            order = [axis, *(k for k in range(3) if k != axis)]
            found.append(index[:, np.argsort(order)])
        return self.grid.to_physical(np.concatenate(found)[:, ::-1])

    def _gradient_at(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors (N, 3) in LPS from lung to tissue."""
        columns = np.gradient(self.smooth)[::-1]
        index = np.stack([self._sample(c, points) for c in columns], axis=1)
        vectors = index @ np.linalg.inv(self.grid.matrix[:3, :3])
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-6)[:, None]

    def _sample(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        from scipy.ndimage import map_coordinates

        index = self.grid.to_index(points)[:, ::-1].T
        return map_coordinates(values, index, order=1, mode="nearest")


def _fit(center: np.ndarray, axes: np.ndarray, local: np.ndarray) -> Wall | None:
    """Robust fit of the height over the plane of the wall (Tukey's weights)."""
    if len(local) < _MINIMUM_POINTS:
        return None
    sectors = np.floor(np.arctan2(local[:, 1], local[:, 0]) / (np.pi / 4)).astype(int)
    if len(np.unique(sectors)) < _MINIMUM_SECTORS:
        return None
    terms, height = _terms(local[:, 0], local[:, 1]), local[:, 2]
    weights = np.ones(len(local))
    for _ in range(15):
        root = np.sqrt(weights)[:, None]
        # The second-order terms are held back a little: a ring says little about noise inside it.
        ridge = np.diag([0, 0, 0, 1, 1, 1]) * 1e-2 * len(local)
        system = (root * terms).T @ (root * terms) + ridge
        coefficients = np.linalg.solve(system, (weights[:, None] * terms).T @ height)
        away = np.abs(height - terms @ coefficients)
        scale = max(1.48 * float(np.median(away)), 0.15)
        weights = np.clip(1 - (away / (4.685 * scale)) ** 2, 1e-6, 1) ** 2
    return Wall(center, axes, coefficients) if scale < _ROUGHEST_MM else None


def _terms(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def _frame(toward: np.ndarray) -> np.ndarray:
    """Axes (3, 3) in rows; the last one is ``toward``."""
    first = np.cross(toward, np.eye(3)[np.argmin(np.abs(toward))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(toward, first), toward])
