"""Analytic nodules in uniform lung, with partial volume, noise and blur: truth for measures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume

LUNG, TISSUE = -850.0, 40.0


def rendered(
    inside: Callable[[np.ndarray], np.ndarray],
    spacing: tuple[float, float, float],
    extent: float = 60.0,
    noise: float = 15.0,
    blur: float = 0.0,
    direction: np.ndarray | None = None,
    tissue: float = TISSUE,
) -> Volume:
    """A CT of the body ``inside`` (LPS mm (N, 3) to bool), centered on (7, -31, 120) mm.

    Every voxel is the mean of 5^3 samples. ``extent`` is the length of each edge, ``blur`` the
    standard deviation of the point spread, in mm.
    """
    size = tuple(int(np.ceil(extent / s)) for s in spacing)
    turn = np.eye(3) if direction is None else direction
    middle = turn @ ((np.array(size) - 1) / 2 * spacing)
    grid = Grid(size, spacing, tuple(CENTER - middle), tuple(turn.ravel()))
    steps = (np.arange(5) + 0.5) / 5 - 0.5
    axes = [(np.arange(n)[:, None] + steps).ravel() for n in size]
    share = np.empty(grid.shape, np.float32)
    y, x = (a.ravel() for a in np.meshgrid(axes[1], axes[0], indexing="ij"))
    for k in range(size[2]):
        layers = []
        for z in k + steps:
            index = np.stack([x, y, np.full(len(x), z)], axis=1)
            layers.append(inside(grid.to_physical(index)).reshape(size[1], 5, size[0], 5))
        share[k] = np.mean(layers, axis=(0, 2, 4))
    if blur:
        share = gaussian_filter(share, [blur / s for s in spacing[::-1]])
    rng = np.random.default_rng(5)
    values = LUNG + (tissue - LUNG) * share + rng.normal(0, noise, grid.shape)
    return Volume(values.astype(np.float32), grid)


#: The middle of every rendered volume, LPS mm; far from zero, so that a lost origin shows.
CENTER = np.array([7.0, -31.0, 120.0])


def ellipsoid(
    radii: tuple[float, float, float], offset: tuple[float, float, float] = (0.3, -0.2, 0.4)
) -> Callable[[np.ndarray], np.ndarray]:
    """An ellipsoid near the middle; ``offset`` keeps it off the voxels' centers."""
    center = CENTER + offset
    return lambda points: (((points - center) / radii) ** 2).sum(axis=1) < 1
