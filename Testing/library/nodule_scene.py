"""Two small CTs of one smooth texture with spheres, related by a known translation: tracking in
milliseconds, with truth to compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import write_landmarks
from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.volume import Volume, write_volume

#: Prior (moving) point = current (fixed) point + SHIFT, LPS mm.
SHIFT = np.array([4.0, -3.0, 6.0])
SIZE, SPACING = 64, 1.25
#: Off zero, so that a forgotten origin shows.
ORIGIN = np.array([10.0, -30.0, -200.0])


@dataclass(frozen=True)
class Translation:
    """Fixed to moving by a shift that is wrong by ``error`` (mm); knows its own uncertainty."""

    error: tuple[float, float, float] = (0.0, 0.0, 0.0)
    expected_mm: float | None = None
    shift: np.ndarray = field(default_factory=lambda: SHIFT)

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(points, dtype=float) + self.shift - np.asarray(self.error)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(points, dtype=float) - self.shift + np.asarray(self.error)

    @property
    def uncertainty(self) -> float | None:
        return self.expected_mm

    def uncertainty_at(self, points: np.ndarray) -> np.ndarray:
        return np.full(len(points), self.expected_mm)


def scene(spheres: dict[tuple[float, float, float], float], offset: np.ndarray) -> Volume:
    """HU of spheres (center in current LPS mm: radius mm) in textured lung.

    ``offset`` moves the tissue: zero gives the current scan, SHIFT the prior. The grid stays.
    """
    grid = Grid((SIZE,) * 3, (SPACING,) * 3, tuple(ORIGIN))
    index = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij")[::-1], axis=-1)
    points = grid.to_physical(index.reshape(-1, 3)) - offset
    rng = np.random.default_rng(3)
    values = np.full(len(points), -850.0)
    for _ in range(24):
        wave = rng.normal(size=3) * 0.25
        values += 16 * np.sin(points @ wave + rng.uniform(0, 6.3))
    for center, radius in spheres.items():
        distance = np.linalg.norm(points - np.asarray(center), axis=1)
        share = np.clip((radius - distance) / SPACING + 0.5, 0, 1)
        values += share * (30 - values)
    return Volume(values.reshape(grid.shape).astype(np.float32), grid)


def at(x: float, y: float, z: float) -> tuple[float, float, float]:
    """LPS mm of a place given in mm from the corner of the image."""
    return tuple(float(v) for v in ORIGIN + np.array((x, y, z)))


def prior_nodule(name: str, center: tuple[float, float, float]) -> Nodule:
    """The nodule of a sphere as it lies in the prior."""
    return Nodule(name, tuple(float(v) for v in np.asarray(center) + SHIFT))


#: In the files of :func:`write_small_pair`: in both scans, and in the prior alone.
STAYS, GONE = at(30, 34, 30), at(52, 40, 34)


def write_small_pair(folder: Path) -> dict[str, Path]:
    """A current and a prior scan ("fixed", "moving"), their nodules ("now", "before") and the
    translation between them ("shift"), as files."""
    names = ("fixed.nii.gz", "moving.nii.gz", "now.csv", "before.csv", "shift.tfm")
    paths = {name.partition(".")[0]: folder / name for name in names}
    write_volume(paths["fixed"], scene({STAYS: 4.0}, np.zeros(3)), np.int16)
    write_volume(paths["moving"], scene({STAYS: 4.0, GONE: 4.0}, SHIFT), np.int16)
    write_landmarks(paths["now"], np.array([STAYS]), ["a"])
    write_landmarks(paths["before"], np.array([STAYS, GONE]) + SHIFT, ["a", "b"])
    sitk.WriteTransform(sitk.TranslationTransform(3, SHIFT.tolist()), str(paths["shift"]))
    return paths
