"""Fold-free motions of a given size: a velocity field, scaled and followed for a unit of time.

A smooth velocity v that is followed for a unit of time (the exponential map, by scaling and
squaring) never folds, however long the way is; the sum x + s v(x) would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ...errors import SettingsError
from ...field import DisplacementField, jacobian_determinant
from ...geometry import Grid
from ..splines import LatticeSpline
from .regions import Regions, axis_indices

#: Nodes of the lattice on which velocities live, mm.
LATTICE_MM = 8.0
#: No voxel shrinks or grows by more than down to this share of its volume.
SMALLEST_JACOBIAN = 0.1
_SQUARINGS = 7


def lattice_around(regions: Regions, margin: float = 32.0, beyond: float = 96.0) -> Grid:
    """The lattice around a body: ``margin`` mm wider, and ``beyond`` mm longer at both ends."""
    points = regions.grid.to_physical(np.argwhere(regions.body)[:, ::-1].astype(float))
    room = np.array([margin, margin, beyond])
    return regions.grid.covering_box(
        np.stack([points.min(axis=0) - room, points.max(axis=0) + room]), LATTICE_MM
    )


@dataclass(frozen=True)
class SmoothMotion:
    """u as a cubic B-spline: ``nodes`` float32 (3, Z, Y, X), LPS mm, on ``lattice``."""

    nodes: np.ndarray
    lattice: Grid

    def __post_init__(self) -> None:
        splines = [LatticeSpline.through(component) for component in self.nodes]
        object.__setattr__(self, "_splines", splines)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Displacement (N, 3) in LPS mm at LPS points (N, 3)."""
        index = self.lattice.to_index(points)
        return np.stack([spline.at(index) for spline in self._splines], axis=1).astype(float)

    def on_grid(self, grid: Grid) -> np.ndarray:
        """Displacement float32 (3, Z, Y, X) in LPS mm at all voxels of a grid."""
        axes = axis_indices(self.lattice, grid)
        return np.stack([spline.on_axes(*axes) for spline in self._splines])

    def jacobian(self, grid: Grid) -> np.ndarray:
        """det(I + du/dx), float32 (Z, Y, X), on a grid."""
        return jacobian_determinant(torch.from_numpy(self.on_grid(grid)), grid).numpy()


def follow(velocity: np.ndarray, lattice: Grid) -> np.ndarray:
    """The displacement float32 (3, Z, Y, X) after following a velocity (mm per unit) for a unit."""
    vectors = torch.from_numpy(np.ascontiguousarray(velocity, np.float32))
    field = DisplacementField(vectors / 2**_SQUARINGS, lattice)
    for _ in range(_SQUARINGS):
        field = field.compose(field)
    return field.vectors.numpy()


def motion_of_size(
    velocity: np.ndarray, lattice: Grid, regions: Regions, mean: float, largest: float, image: Grid
) -> SmoothMotion:
    """The motion along ``velocity`` whose mean and largest length in the fixed lungs are as asked.

    ``velocity`` (3, Z, Y, X) on ``lattice`` gives directions and relative speeds; lengths in mm.
    Its speed is multiplied by a factor and its contrast changed by a power, so that both targets
    are met (within some percent, or as near as the shape allows). The determinant on the ``image``
    grid is checked to stay above 0.1; the velocity is smoothed where that needs it. Raises
    :class:`SettingsError` when no such motion is found.
    """
    for smoothing in (0.0, 0.7, 1.2, 1.8, 2.5):
        smooth = np.stack([gaussian_filter(v, smoothing) for v in velocity])
        with _one_thread():
            nodes = _nodes_of_size(smooth, lattice, regions, mean, largest)
        motion = SmoothMotion(nodes, lattice)
        if motion.jacobian(image).min() > SMALLEST_JACOBIAN:
            return motion
    raise SettingsError(
        f"No fold-free motion with a mean of {mean:g} and a maximum of {largest:g} mm was found; "
        "ask for less motion."
    )


def _nodes_of_size(
    velocity: np.ndarray, lattice: Grid, regions: Regions, mean: float, largest: float
) -> np.ndarray:
    """Displacement at the lattice's nodes with both lengths as asked."""
    speed = np.linalg.norm(velocity, axis=0)
    reference = np.percentile(speed[speed > 0.05 * speed.max()], 95)
    relative = np.maximum(speed / reference, 0.05)
    goal = np.array([mean, largest], float)
    aim = goal.copy()
    for _ in range(2):
        # The search runs on every second node, an eighth of the cost; the second round corrects
        # for what the finer lattice then shows.
        strength, power = _fit(velocity[:, ::2, ::2, ::2] / reference, lattice, regions, *aim)
        nodes = follow(strength * relative**power * velocity / reference, lattice)
        lengths = _lengths_in_lungs(nodes, lattice, regions)
        aim *= goal / (lengths.mean(), lengths.max())
    return nodes


def _fit(
    shape: np.ndarray, lattice: Grid, regions: Regions, mean: float, largest: float
) -> tuple[float, float]:
    """Factor and power with which ``factor * |shape|^power * shape`` moves as far as asked.

    ``shape`` holds every second node of the lattice.
    """
    relative = np.maximum(np.linalg.norm(shape, axis=0), 0.05)
    spacing = tuple(2 * s for s in lattice.spacing)
    coarse = Grid(relative.shape[::-1], spacing, lattice.origin, lattice.direction)

    def lengths(strength: float, power: float) -> np.ndarray:
        nodes = follow(strength * relative**power * shape, coarse)
        return _lengths_in_lungs(nodes, coarse, regions)

    def strength_for(power: float) -> float:
        return _solve(lambda s: float(lengths(s, power).mean()), mean, 1e-3, 6 * mean)

    def maximum(power: float) -> float:
        return float(lengths(strength_for(power), power).max())

    power = _solve(maximum, largest, -0.4, 2.5)
    return strength_for(power), power


def _lengths_in_lungs(nodes: np.ndarray, lattice: Grid, regions: Regions) -> np.ndarray:
    """Lengths (N,) of the motion in mm at the nodes in the lungs of the fixed image."""
    index = np.argwhere(np.ones(lattice.shape, bool))[:, ::-1].astype(float)
    moved = lattice.to_physical(index) + nodes.reshape(3, -1).T
    return np.linalg.norm(nodes.reshape(3, -1), axis=0)[regions.lungs_at(moved)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hundreds of small tensor operations: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _solve(
    rising: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    tolerance: float = 0.015,
) -> float:
    """Where a rising function meets ``target`` (relative tolerance), or the nearer end."""
    at_low, at_high = rising(low), rising(high)
    if target <= at_low:
        return low
    if target >= at_high:
        return high
    middle = low
    for _ in range(14):
        # The secant converges fast, bisection always: their mean does both well enough.
        secant = low + (high - low) * (target - at_low) / (at_high - at_low)
        middle = 0.5 * secant + 0.25 * (low + high)
        value = rising(middle)
        if abs(value - target) <= tolerance * target:
            break
        if value < target:
            low, at_low = middle, value
        else:
            high, at_high = middle, value
    return middle
