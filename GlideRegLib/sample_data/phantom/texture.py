"""Smooth random functions of space: tissue texture and the irregular part of the motion."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ..splines import LatticeSpline


class Texture:
    """Band-limited noise with unit variance: structures of about ``scale`` mm, none much finer.

    It is defined on a lattice of a third of that scale and linear in between, which is a function
    of space like any other: both images of a pair evaluate the same one.
    """

    def __init__(self, rng: np.random.Generator, half_extent: np.ndarray, scale: float) -> None:
        self.step = scale / 3
        self.half = np.asarray(half_extent, float)
        size = np.ceil(2 * self.half[::-1] / self.step).astype(int) + 2
        lattice = gaussian_filter(rng.standard_normal(size).astype(np.float32), 1.5, mode="wrap")
        self.lattice = lattice / lattice.std()

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (N,) at scene points (N, 3) in mm; constant beyond the extent."""
        index = ((points + self.half) / self.step)[:, ::-1].T
        return map_coordinates(self.lattice, index, output=np.float32, order=1, mode="nearest")


class SplineNoise:
    """A random cubic B-spline with nodes every ``step`` mm: smooth to its second derivative."""

    def __init__(self, rng: np.random.Generator, half_extent: np.ndarray, step: float) -> None:
        self.step = step
        # Two nodes beyond the extent on each side: points outside are rare, and then constant.
        self.half = np.asarray(half_extent, float) + 2 * step
        size = np.ceil(2 * self.half[::-1] / step).astype(int) + 1
        # 0.332 is the standard deviation of a cubic B-spline with white coefficients.
        self.spline = LatticeSpline(rng.standard_normal(size) / 0.332)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values (N,) at scene points (N, 3), mm; their variance is one."""
        return self.spline.at((points + self.half) / self.step)

    def on_axes(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Values (Z, Y, X) float32 on a regular grid with these axes: the same function, faster."""
        axes = zip((x, y, z), self.half, strict=True)
        return self.spline.on_axes(*((nodes + half) / self.step for nodes, half in axes))
