"""What an image shows: a place outside of its box or in its padding says nothing about a nodule.

Scanners and programs fill what they did not see with one value below all others (-3024, -2000 or
-1024 HU, 0 in MR). Lung is never that even: it has noise.
"""

from __future__ import annotations

import numpy as np

from ..volume import Volume

#: How far around a place voxels are looked at, in voxels of the coarsest axis at least.
_REACH_VOXELS = 1.5
#: This share of filled voxels around a place, and the image shows nothing there.
_FILLED_SHARE = 0.5
#: How far above the lowest value of the image a filled voxel may be.
_TOLERANCE = 0.5


def unseen(volume: Volume, points: np.ndarray, border_mm: float) -> np.ndarray:
    """Which LPS points (N, 3) the image does not show: (N,) bool.

    Those outside of its box or within ``border_mm`` of its faces, and those around which at least
    half of the voxels hold nothing but the lowest value of the whole image.
    """
    grid, points = volume.grid, np.asarray(points, dtype=float).reshape(-1, 3)
    index = grid.to_index(points)
    margin = border_mm / np.asarray(grid.spacing) - 0.5
    outside = ((index < margin) | (index > np.asarray(grid.size) - 1 - margin)).any(axis=1)
    if outside.all():
        return outside
    filled = float(volume.array.min()) + _TOLERANCE
    reach = max(border_mm, _REACH_VOXELS * max(grid.spacing))
    for k in np.flatnonzero(~outside):
        outside[k] = (_values_around(volume, points[k], reach) <= filled).mean() >= _FILLED_SHARE
    return outside


def _values_around(volume: Volume, point: np.ndarray, reach: float) -> np.ndarray:
    """The values of the voxels within ``reach`` mm of a point inside the image, flat."""
    grid = volume.grid
    middle = grid.to_index(point[None])[0]
    half = reach / np.asarray(grid.spacing)
    low = np.maximum(np.ceil(middle - half).astype(int), 0)
    high = np.minimum(np.floor(middle + half).astype(int) + 1, grid.size)
    box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    values = volume.array[box]
    places = grid.to_physical(np.argwhere(np.ones(values.shape, bool))[:, ::-1] + low)
    return values.ravel()[np.linalg.norm(places - point, axis=1) <= reach]
