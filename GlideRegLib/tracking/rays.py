"""A body seen from inside: how far it is to its surface in every direction.

A nodule is compact, so from its middle one ray meets its surface once. Rays that run into a vessel
or into the chest wall go on much farther than their neighbors: they stand out, and the surface is
closed there by what the other rays say. All lengths are mm, directions are LPS unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volume import Volume

_STEP_MM = 0.2
#: A ray this much longer than the smooth surface (share, and mm) has left the nodule.
_LONGER, _LONGER_MM = 0.22, 0.3
_RIDGE = 2e-3
_BESIDE_DEGREES = 18.0


def sphere_directions(count: int = 1200) -> np.ndarray:
    """Evenly spread unit vectors (count, 3): a Fibonacci lattice."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)


@dataclass(frozen=True)
class Rays:
    """HU along rays from one point: ``values`` (N, T) at the lengths ``along`` (T,) in mm."""

    center: np.ndarray
    directions: np.ndarray
    along: np.ndarray
    values: np.ndarray

    @classmethod
    def cast(cls, volume: Volume, center: np.ndarray, directions: np.ndarray, reach: float) -> Rays:
        """Linear samples of the volume from ``center`` (3,) LPS mm out to ``reach`` mm."""
        from scipy.ndimage import map_coordinates

        along = np.arange(0, reach + _STEP_MM, _STEP_MM)
        points = center + directions[:, None] * along[None, :, None]
        index = volume.grid.to_index(points.reshape(-1, 3))[:, ::-1].T
        values = map_coordinates(volume.array, index, np.float32, order=1, cval=-1000.0)
        return cls(center, directions, along, values.reshape(points.shape[:2]))

    def first_below(self, level: float) -> np.ndarray:
        """Length (N,) at which each ray first falls below ``level`` HU; inf where it never does."""
        return first_crossing(level - self.values, self.along)

    def points(self) -> np.ndarray:
        """LPS mm of all samples (N, T, 3)."""
        return self.center + self.directions[:, None] * self.along[None, :, None]


def first_crossing(rising: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Where each row (N, T) first comes above zero, interpolated; inf where it never does."""
    above = rising > 0
    k = above.argmax(axis=1)
    rows = np.arange(len(rising))
    before, after = rising[rows, np.maximum(k - 1, 0)], rising[rows, k]
    share = np.where(k > 0, before / np.minimum(before - after, -1e-6), 0)
    length = along[np.maximum(k - 1, 0)] + share * (along[1] - along[0])
    return np.where(above.any(axis=1), length, np.inf)


def close_surface(
    directions: np.ndarray, length: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface from rays of which some ran astray: radius (N,) in mm, and which stayed.

    ``usable`` (N,) bool leaves rays out from the start (those that end at the chest wall). A smooth
    surface (spherical harmonics to degree 2 of the log radius) is fitted to the rays; those that
    are clearly longer are dropped, and the fit is repeated. Rays that stayed keep their own length.
    Beside those that ran astray, where a vessel widens into the nodule, no ray passes the fit; they
    do not count as stayed.
    """
    closed = usable & np.isfinite(length)
    log_length = np.log(np.where(closed, np.maximum(length, 0.1), 1.0))
    basis = _harmonics(directions)
    start = max(np.quantile(length[closed], 0.4), 0.1) if closed.any() else 1.0
    smooth = np.full(len(length), np.log(start))
    stayed = closed
    for tolerance in (1.0, 0.7, 0.5, 0.35, _LONGER, _LONGER, _LONGER):
        limit = smooth + np.log(1 + tolerance + _LONGER_MM / np.exp(smooth))
        stayed = closed & (log_length <= limit)
        weighted = basis[stayed]
        ridge = _RIDGE * max(stayed.sum(), 1) * np.eye(basis.shape[1])
        ridge[0, 0] = 1e-9
        normal = weighted.T @ weighted + ridge
        smooth = basis @ np.linalg.solve(normal, weighted.T @ log_length[stayed])
    beside = stayed & _near(directions, usable & ~stayed)
    radius = np.where(stayed, length, np.exp(smooth))
    radius[beside] = np.minimum(length, np.exp(smooth))[beside]
    return radius, stayed & ~beside


def _near(directions: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Which directions (N,) bool lie within some degrees of one of those."""
    if not which.any():
        return which
    return (directions @ directions[which].T).max(axis=1) > np.cos(np.radians(_BESIDE_DEGREES))


def _harmonics(directions: np.ndarray) -> np.ndarray:
    """The nine spherical harmonics up to degree 2, unnormalized: (N, 9)."""
    x, y, z = directions.T
    one = np.ones_like(x)
    return np.stack([one, x, y, z, x * y, y * z, z * x, x**2 - y**2, 3 * z**2 - 1], axis=1)
