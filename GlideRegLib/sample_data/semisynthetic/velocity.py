"""Directions in which a chest moves from exhale to inhale: measured at landmarks, or made up.

Velocities are float32 (3, Z, Y, X), LPS, on a lattice; only their relative size matters.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter

from ...errors import InputError
from ...geometry import Grid
from ..splines import LatticeSpline
from .regions import Regions, axis_indices


def velocity_through_landmarks(
    fixed: np.ndarray, moving: np.ndarray, lattice: Grid, regions: Regions, smoothing: float = 5.0
) -> np.ndarray:
    """A thin-plate spline through measured displacements that fades to zero at skin and spine.

    ``fixed`` and ``moving`` (N, 3) are corresponding points in LPS mm. ``smoothing`` (mm) lets the
    spline miss the points a little: they carry the observer's error. Beyond the box of the points
    the values at its faces go on, because a spline grows there without bounds. Raises
    :class:`InputError` when there are too few points.
    """
    if len(fixed) < 8 or len(fixed) != len(moving):
        raise InputError(
            f"At least 8 landmark pairs are needed to drive a field, not {len(fixed)}."
        )
    spline = RBFInterpolator(fixed, moving - fixed, kernel="thin_plate_spline", smoothing=smoothing)
    # The spline is smooth: every second node is enough, a cubic spline fills in the others.
    coarse = _every_second(lattice)
    index = np.argwhere(np.ones(coarse.shape, bool))[:, ::-1].astype(float)
    places = np.clip(coarse.to_physical(index), fixed.min(axis=0) - 8, fixed.max(axis=0) + 8)
    values = spline(places).T.reshape(3, *coarse.shape)
    axes = axis_indices(coarse, lattice)
    dense = [LatticeSpline.through(component).on_axes(*axes) for component in values]
    # Smoothing takes the crease at the faces of the box away.
    smooth = np.stack([gaussian_filter(component, 1.5) for component in dense])
    return smooth * regions.mobility(lattice) * _ends(lattice, regions)


def breathing_velocity(
    lattice: Grid, regions: Regions, rng: np.random.Generator, irregularity: float = 0.08
) -> np.ndarray:
    """Inhalation made up from the shape of the lungs, for a CT without landmarks.

    The diaphragm descends, tissue above it follows in proportion to its height between apex and
    diaphragm, the front of the chest rises, the sides widen; ``irregularity`` adds smooth random
    motion (standard deviation relative to the diaphragm's).
    """
    index = np.argwhere(np.ones(lattice.shape, bool))[:, ::-1].astype(float)
    x, y, z = (c.reshape(lattice.shape) for c in lattice.to_physical(index).T)
    where = regions.grid.to_physical(np.argwhere(regions.lungs)[:, ::-1].astype(float))
    low, high = where.min(axis=0), where.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    floor = _diaphragm(lattice, regions)[None]
    depth = (high[2] - z) / np.maximum(high[2] - floor, 60.0)  # 0 at the apex, 1 at the diaphragm
    above = np.clip(depth, 0, 1) ** 1.3
    below = np.exp(-((np.clip(floor - z, 0, None) / 130) ** 2))
    forward = (middle[1] - y) / half[1]  # 1 at the breast bone, -1 at the back
    down = above * below * (1 - 0.15 * forward)
    rise = 0.22 * np.clip(0.5 + 0.5 * forward, 0, 1.2) * (0.4 + 0.6 * above)
    widen = 0.10 * (x - middle[0]) / half[0]
    velocity = np.stack([widen, -rise, -down])
    velocity += irregularity * _smooth_noise(lattice, rng)
    return (velocity * regions.mobility(lattice) * _ends(lattice, regions)).astype(np.float32)


def _diaphragm(lattice: Grid, regions: Regions) -> np.ndarray:
    """Height of the lungs' lower surface (Y, X) in LPS mm at the lattice's columns, smooth."""
    has_lung = regions.lungs.any(axis=0)
    lowest = np.argmax(regions.lungs, axis=0) * regions.grid.spacing[2] + regions.grid.origin[2]
    # Columns without lung take what a smooth surface through the others gives them.
    weight = gaussian_filter(has_lung.astype(float), 5) + 1e-6
    smooth = gaussian_filter(np.where(has_lung, lowest, 0.0), 5) / weight
    smooth = np.where(weight > 0.01, smooth, lowest[has_lung].mean())
    plane = np.broadcast_to(smooth.astype(np.float32), regions.lungs.shape)
    flat = Grid((*lattice.size[:2], 1), lattice.spacing, lattice.origin, lattice.direction)
    return regions.sample(plane, flat)[0]


def _smooth_noise(lattice: Grid, rng: np.random.Generator, scale_mm: float = 28.0) -> np.ndarray:
    """Three independent smooth random fields with unit variance."""
    white = rng.standard_normal((3, *lattice.shape))
    smooth = np.stack([gaussian_filter(w, scale_mm / lattice.spacing[0]) for w in white])
    return smooth / smooth.std()


def _ends(lattice: Grid, regions: Regions) -> np.ndarray:
    """A window (Z, 1, 1) that is one within the image and fades to zero at the lattice's ends."""
    z = lattice.origin[2] + lattice.spacing[2] * np.arange(lattice.size[2])
    corners = regions.grid.corners()[:, 2]
    beyond = np.maximum(corners.min() - z, z - corners.max())
    room = max(corners.min() - z[0], z[-1] - corners.max()) - lattice.spacing[2]
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond / room, 0, 1)))[:, None, None]


def _every_second(lattice: Grid) -> Grid:
    """The lattice of twice the spacing that covers the same place."""
    size = tuple(n // 2 + 1 for n in lattice.size)
    spacing = tuple(2 * s for s in lattice.spacing)
    return Grid(size, spacing, lattice.origin, lattice.direction)
