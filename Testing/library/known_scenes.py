"""Scenes whose value is known at every LPS point, so that moved images are exact, not resampled.

A scene is a function from LPS points (N, 3) in mm to values. ``draw`` evaluates it at the voxel
centers of any grid; ``Moved`` is the same scene after a motion p -> motion(p).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume

Scene = Callable[[np.ndarray], np.ndarray]

AIR = -1000.0


def waves(seed: int, count: int = 40, shortest: float = 12.0, longest: float = 40.0) -> Scene:
    """Band-limited texture: a sum of plane waves of random direction, unit variance."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    numbers = 2 * np.pi / np.exp(random.uniform(np.log(shortest), np.log(longest), count))
    vectors = (directions * numbers[:, None]).astype(np.float32)
    phases = random.uniform(0, 2 * np.pi, count).astype(np.float32)

    def scene(points: np.ndarray) -> np.ndarray:
        total = np.zeros(len(points), dtype=np.float32)
        for vector, phase in zip(vectors, phases, strict=True):
            total += np.cos(points.astype(np.float32) @ vector + phase)
        return total * np.float32(np.sqrt(2 / count))

    return scene


def soft_ellipsoid(center: tuple[float, ...], radii: tuple[float, ...], edge: float = 2.0) -> Scene:
    """1 inside, 0 outside, with an edge of some mm."""

    def scene(points: np.ndarray) -> np.ndarray:
        r = np.linalg.norm((points - np.asarray(center)) / np.asarray(radii), axis=1)
        distance = (r - 1) * min(radii)
        return 1 / (1 + np.exp(np.clip(distance / edge * 4, -50, 50)))

    return scene


def textured_body(
    seed: int = 0,
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
    radii: tuple[float, float, float] = (52.0, 44.0, 48.0),
    contrast: float = 150.0,
) -> Scene:
    """HU: an ellipsoid of textured soft tissue in air of -1000 HU."""
    inside, texture = soft_ellipsoid(center, radii), waves(seed, shortest=18.0, longest=50.0)

    def scene(points: np.ndarray) -> np.ndarray:
        share = inside(points)
        return AIR + share * (30.0 - AIR + contrast * texture(points))

    return scene


@dataclass(frozen=True)
class Moved:
    """The scene after every point p went to motion(p); ``inverse`` is the inverse motion."""

    scene: Scene
    inverse: Callable[[np.ndarray], np.ndarray]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.scene(self.inverse(points))


def shifted(scene: Scene, shift: tuple[float, ...] | np.ndarray) -> Scene:
    """The scene after every point moved by ``shift`` (LPS mm)."""
    return Moved(scene, lambda points: points - np.asarray(shift))


def voxel_centers(grid: Grid) -> np.ndarray:
    """LPS mm of every voxel, in the order of a flattened (Z, Y, X) array: (N, 3)."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return grid.to_physical(np.stack((x, y, z), axis=-1).reshape(-1, 3))


def draw(scene: Scene, grid: Grid) -> Volume:
    """The scene on a grid, float32."""
    return Volume(scene(voxel_centers(grid)).reshape(grid.shape).astype(np.float32), grid)


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """3x3 rotation: about x first, then y, then z."""
    a, b, c = np.deg2rad(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def centered_grid(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: np.ndarray | None = None,
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid whose center lies at an LPS point."""
    matrix = np.eye(3) if direction is None else np.asarray(direction, dtype=float)
    half = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    origin = np.asarray(center) - matrix @ half
    return Grid(size, spacing, tuple(map(float, origin)), tuple(map(float, matrix.ravel())))
