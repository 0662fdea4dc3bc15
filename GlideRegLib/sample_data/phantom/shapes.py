"""Signed distances of simple bodies at arbitrary points: the bricks of the phantom.

A distance is negative inside, in mm, and exact near the surface only (that is all a soft edge
needs). Points are float32 (N, 3) in scene mm, x y z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: "Far away" for bodies that are only evaluated near their surface, mm.
FAR = 1000.0


def soft_inside(distance: np.ndarray, edge: float) -> np.ndarray:
    """Occupancy 0 to 1 from a signed distance: linear over +-``edge`` mm (a voxel's mixture)."""
    return np.clip(0.5 - distance / (2 * edge), 0, 1)


def ellipsoid(
    points: np.ndarray,
    center: Sequence[float],
    radii: Sequence[float],
    exponent: float = 2.0,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Signed distance (N,) of a superellipsoid; an exponent above 2 makes it boxier.

    ``axes`` (3, 3) holds its axes in rows, unit length; None means x, y, z.
    """
    local = points - np.asarray(center, np.float32)
    if axes is not None:
        local = local @ np.asarray(axes, np.float32).T
    ratio = np.abs(local) / np.asarray(radii, np.float32)
    if exponent == 2.0:
        level = np.sqrt(np.einsum("ij,ij->i", ratio, ratio))
    else:
        level = (ratio**exponent).sum(axis=1) ** (1 / exponent)
    return (level - 1) * np.float32(min(radii))


def cylinder(
    x: np.ndarray, y: np.ndarray, center: Sequence[float], radii: Sequence[float], exponent: float
) -> np.ndarray:
    """Signed distance of an endless vertical superelliptic cylinder; x, y of any shape, mm."""
    level = (np.abs((x - center[0]) / radii[0]) ** exponent) + (
        np.abs((y - center[1]) / radii[1]) ** exponent
    )
    return (level ** (1 / exponent) - 1) * min(radii)


def rows_of_axes(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    """Orthonormal axes (3, 3) in rows: along ``first``, then ``second`` made perpendicular."""
    a = np.asarray(first, float) / np.linalg.norm(first)
    b = np.asarray(second, float) - a * (a @ np.asarray(second, float))
    b /= np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)])


@dataclass(frozen=True)
class Capsules:
    """Round cones with spherical ends: start and end (N, 3), their radii (N,), all in mm."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def along(cls, path: Sequence[Sequence[float]], radius: float | Sequence[float]) -> Capsules:
        """A tube through the points of a path, with one radius or one per point."""
        nodes = np.asarray(path, float)
        radii = np.broadcast_to(np.asarray(radius, float), len(nodes))
        return cls(nodes[:-1], nodes[1:], radii[:-1].copy(), radii[1:].copy())

    @classmethod
    def joined(cls, parts: Sequence[Capsules]) -> Capsules:
        """All capsules of several groups."""
        names = ("start", "end", "start_radius", "end_radius")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class PointCells:
    """Points sorted into cubic cells, so that a small body only looks at the points near it.

    ``points`` are the given points in cell order; ``restore`` brings values back into the given
    order. Cells along z are neighbors in memory, which makes every row of cells one slice.
    """

    def __init__(self, points: np.ndarray, cell: float = 8.0) -> None:
        self.cell = cell
        index = np.floor(points / cell).astype(np.int64)
        self.first = index.min(axis=0)
        index -= self.first
        self.count = index.max(axis=0) + 1
        linear = (index[:, 0] * self.count[1] + index[:, 1]) * self.count[2] + index[:, 2]
        self.order = np.argsort(linear, kind="stable")
        cells = np.arange(int(np.prod(self.count)) + 1)
        self.begin = np.searchsorted(linear[self.order], cells)
        self.points = points[self.order]

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Values in cell order back in the order in which the points were given."""
        given = np.empty_like(values)
        given[self.order] = values
        return given

    def distance(self, capsules: Capsules, band: float) -> np.ndarray:
        """Signed distance (N,) to the nearest capsule, in given order; FAR beyond ``band`` mm."""
        distance = np.full(len(self.points), FAR, np.float32)
        reach = np.maximum(capsules.start_radius, capsules.end_radius)[:, None] + band
        low = np.floor((np.minimum(capsules.start, capsules.end) - reach) / self.cell)
        high = np.floor((np.maximum(capsules.start, capsules.end) + reach) / self.cell)
        low = np.maximum(low.astype(int) - self.first, 0)
        high = np.minimum(high.astype(int) - self.first, self.count - 1)
        for k in np.flatnonzero((high >= low).all(axis=1)):
            near = self._points_in_box(low[k], high[k])
            if len(near):
                away = _capsule_distance(
                    self.points[near],
                    capsules.start[k],
                    capsules.end[k],
                    float(capsules.start_radius[k]),
                    float(capsules.end_radius[k]),
                )
                distance[near] = np.minimum(distance[near], away)
        return self.restore(np.where(distance > band, np.float32(FAR), distance))

    def _points_in_box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Positions (in cell order) of the points in the cells ``low`` to ``high``, inclusive."""
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        row = (x.ravel() * self.count[1] + y.ravel()) * self.count[2]
        begin, end = self.begin[row + low[2]], self.begin[row + high[2] + 1]
        return np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)])


def _capsule_distance(
    points: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float, end_radius: float
) -> np.ndarray:
    offset = points - start.astype(np.float32)
    axis = (end - start).astype(np.float32)
    along = np.clip(offset @ axis / max(float(axis @ axis), 1e-6), 0, 1)
    offset -= along[:, None] * axis
    return np.sqrt(np.einsum("ij,ij->i", offset, offset)) - (radius + (end_radius - radius) * along)
