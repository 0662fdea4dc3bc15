"""A follow-up phantom: a prior and a current chest CT with nodules whose truth is exact.

The moving image is the prior, the fixed one the current scan, as in every known pair. Between them
lie a breathing motion, another position on the table, and time: nodules grew by known factors, two
are new, two are gone, and one is above the current scan's field of view. A nodule does not breathe:
it is drawn with its own size in each image, at exactly corresponding places.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import SettingsError
from ..geometry import Grid
from ..landmarks import write_landmarks
from ..volume import Volume, replace_whole, write_volume
from .known_pair import KnownPair
from .nodule_sites import FIXED_TOP, PLAN, NoduleShape, find_sites
from .phantom.anatomy import Anatomy
from .phantom.motion import Breathing
from .phantom.pair import CHEST_CENTER, true_jacobian, with_noise
from .phantom.render import LABEL_NAMES, Painter
from .phantom.shapes import PointCells

_SAMPLES = 5  # along each edge of a voxel that a nodule's surface crosses
_HALF_WIDTH = (152.0, 117.0)  # of both images along x and y, mm
_PRIOR_EXTENT = (-100.0, 140.0)  # along z in scene mm
_CURRENT_EXTENT = (-100.0, FIXED_TOP)


@dataclass(frozen=True)
class PhantomNodule:
    """The truth about one nodule; ``number`` is its value in the label maps of both sides.

    ``kind`` is solid, juxtapleural or vessel-attached; ``state`` is matched, new, resolved or
    outside field of view. Centers are centroids in LPS mm, volumes in mm^3; None where the nodule
    is not in that image. ``mapped_center`` is where the prior's center lies in the current scan by
    the true motion (also for resolved and outside ones); a juxtapleural nodule that grows moves its
    own centroid a little away from it.
    """

    number: int
    kind: str
    state: str
    moving_center: tuple[float, float, float] | None
    fixed_center: tuple[float, float, float] | None
    mapped_center: tuple[float, float, float] | None
    moving_volume_mm3: float | None
    fixed_volume_mm3: float | None

    @property
    def factor(self) -> float | None:
        """Current over prior volume; None unless the nodule is in both images."""
        if self.moving_volume_mm3 is None or self.fixed_volume_mm3 is None:
            return None
        return self.fixed_volume_mm3 / self.moving_volume_mm3

    def diameter_mm(self, side: str) -> float | None:
        """Diameter in mm of the sphere of equal volume; ``side`` is "fixed" or "moving"."""
        volume = getattr(self, f"{side}_volume_mm3")
        return None if volume is None else float(np.cbrt(6 * volume / np.pi))


@dataclass(frozen=True)
class NodulePair(KnownPair):
    """A known pair with the truth about its nodules.

    ``nodules`` lists them; ``fixed_nodule_labels`` and ``moving_nodule_labels`` are uint8 label
    maps (at least half of the voxel is nodule; the value is its number).
    """

    nodules: tuple[PhantomNodule, ...]
    fixed_nodule_labels: Volume
    moving_nodule_labels: Volume

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Writes what :meth:`KnownPair.save` writes, and the nodules.

        More keys: fixed_nodule_labels and moving_nodule_labels (label maps), fixed_nodules and
        moving_nodules (centers as Slicer markups, labeled N1, N2, ...), nodule_truth (JSON).
        Raises :class:`OutputError`.
        """
        folder = Path(folder)
        paths = super().save(folder)
        for side in ("fixed", "moving"):
            labels = f"{side}_nodule_labels"
            paths[labels] = folder / f"{labels}.nii.gz"
            write_volume(paths[labels], getattr(self, labels), np.uint8)
            there = [n for n in self.nodules if getattr(n, f"{side}_center") is not None]
            points = np.array([getattr(n, f"{side}_center") for n in there])
            paths[f"{side}_nodules"] = folder / f"{side}_nodules.mrk.json"
            write_landmarks(paths[f"{side}_nodules"], points, [f"N{n.number}" for n in there])
        paths["nodule_truth"] = folder / "nodule_truth.json"
        replace_whole(paths["nodule_truth"], partial(_write_truth, self.nodules))
        return paths


def make_nodule_phantom(
    seed: int = 0,
    spacing: float = 1.5,
    noise: float = 18.0,
    amplitude: float = 16.0,
    irregularity: float = 1.5,
) -> NodulePair:
    """The follow-up pair; the same arguments give the same pair.

    ``spacing`` (mm, 1 to 3) of both grids, ``noise`` in HU, ``amplitude`` of the diaphragm between
    the two scans and ``irregularity`` of the motion in mm. Takes about 10 s at 1.5 mm. Raises
    :class:`SettingsError` for values out of range, or if the nodules find no room.
    """
    if not 1.0 <= spacing <= 3.0 or not 0 <= noise <= 200 or not 0 <= amplitude <= 40:
        raise SettingsError("The phantom needs spacing 1-3 mm, noise 0-200 HU, amplitude 0-40 mm.")
    anatomy = Anatomy(seed, vessel_targets=300)
    anatomy.nodules = []  # ours are drawn last, with exact partial volume
    breathing = Breathing(
        anatomy, seed, amplitude, False, irregularity, (5.0, -4.0, 7.0), (1.0, 0.0, 3.0)
    )
    truth, prior, current = _nodules(anatomy, breathing, seed)
    images = _Images(anatomy, breathing, seed, spacing)
    moving, fixed = images.prior(prior), images.current(current)
    noise_of = np.random.default_rng([seed, 4])
    landmarks = _landmarks(anatomy, breathing, fixed.grid, moving.grid, seed)
    return NodulePair(
        name=f"nodule-phantom-{seed}",
        description="Analytic thorax phantom, prior and current scan with nodules; exact truth.",
        fixed=Volume(with_noise(fixed.hu, noise, noise_of), fixed.grid),
        moving=Volume(with_noise(moving.hu, noise, noise_of), moving.grid),
        fixed_labels=Volume(fixed.labels, fixed.grid),
        moving_labels=Volume(moving.labels, moving.grid),
        label_names=dict(LABEL_NAMES),
        displacement=images.displacement,
        jacobian=images.jacobian,
        fixed_landmarks=landmarks[0],
        moving_landmarks=landmarks[1],
        nodules=truth,
        fixed_nodule_labels=Volume(fixed.nodules, fixed.grid),
        moving_nodule_labels=Volume(moving.nodules, moving.grid),
    )


def _nodules(
    anatomy: Anatomy, breathing: Breathing, seed: int
) -> tuple[tuple[PhantomNodule, ...], dict[int, NoduleShape], dict[int, NoduleShape]]:
    """The truth, and the shapes in the prior and in the current image by number."""
    centers = np.array(find_sites(anatomy, breathing, seed))
    mapped = breathing.inverse(centers)[0]
    truth, prior, current = [], {}, {}
    for number, planned in enumerate(PLAN, start=1):
        volume, cut = np.pi / 6 * planned.diameter**3, planned.kind == "juxtapleural"
        center, place = centers[number - 1], mapped[number - 1]
        there = None
        if planned.state != "new":
            prior[number] = NoduleShape(center, volume, cut, anatomy, None)
            there = breathing.inverse(prior[number].centroid[None])[0][0]
        if planned.state in ("matched", "new"):
            grown = volume * planned.factor
            current[number] = NoduleShape(place, grown, cut, anatomy, breathing)
        truth.append(
            PhantomNodule(
                number,
                planned.kind,
                planned.state,
                *(_lps(s[number].centroid) if number in s else None for s in (prior, current)),
                None if there is None else _lps(there),
                *(s[number].volume if number in s else None for s in (prior, current)),
            )
        )
    return tuple(truth), prior, current


def _lps(scene: np.ndarray) -> tuple[float, float, float]:
    """Scene mm to LPS mm."""
    return tuple(float(value) for value in scene + CHEST_CENTER)


# --- images ---------------------------------------------------------------------------------------


@dataclass
class _Image:
    """What is drawn of one scan: HU, organ labels, nodule numbers, all (Z, Y, X) on ``grid``."""

    grid: Grid
    hu: np.ndarray
    labels: np.ndarray
    nodules: np.ndarray


class _Images:
    """Draws both scans of one anatomy."""

    def __init__(self, anatomy: Anatomy, breathing: Breathing, seed: int, spacing: float) -> None:
        self.breathing, self.spacing = breathing, spacing
        self.painter = Painter(anatomy, seed, edge=spacing / 2)
        # The same scene for the samples inside a voxel, whose own edges are finer.
        self.fine_painter = Painter(anatomy, seed, edge=spacing / (2 * _SAMPLES))
        self.displacement = self.jacobian = np.zeros(0)

    def prior(self, shapes: dict[int, NoduleShape]) -> _Image:
        """The moving image: the scene itself."""
        grid, axes = self._grid(_PRIOR_EXTENT)
        return self._draw(grid, _points(axes), None, shapes)

    def current(self, shapes: dict[int, NoduleShape]) -> _Image:
        """The fixed image: the scene after the motion; also keeps the field and its Jacobian."""
        grid, axes = self._grid(_CURRENT_EXTENT)
        branches = self.breathing.on_axes(*axes)
        self.displacement = branches.blended().astype(np.float32)
        self.jacobian = true_jacobian(branches, False, grid)
        points = _points(axes) + np.moveaxis(self.displacement, 0, -1).reshape(-1, 3)
        return self._draw(grid, points, self.jacobian.ravel(), shapes)

    def _grid(self, z_extent: tuple[float, float]) -> tuple[Grid, list[np.ndarray]]:
        extents = [(-half, half) for half in _HALF_WIDTH] + [z_extent]
        size = [round((high - low) / self.spacing) for low, high in extents]
        first = np.array([low + self.spacing / 2 for low, _ in extents])
        origin = tuple(float(o) for o in first + CHEST_CENTER)
        grid = Grid(tuple(size), (self.spacing,) * 3, origin)
        return grid, [f + self.spacing * np.arange(n) for f, n in zip(first, size, strict=True)]

    def _draw(
        self,
        grid: Grid,
        points: np.ndarray,
        density: np.ndarray | None,
        shapes: dict[int, NoduleShape],
    ) -> _Image:
        hu, labels = self.painter.render(points.astype(np.float32), density)
        image = _Image(
            grid,
            hu.reshape(grid.shape),
            labels.reshape(grid.shape),
            np.zeros(grid.shape, np.uint8),
        )
        for number, shape in shapes.items():
            self._draw_nodule(image, density, number, shape)
        return image

    def _draw_nodule(
        self, image: _Image, density: np.ndarray | None, number: int, shape: NoduleShape
    ) -> None:
        """Every voxel that the nodule touches becomes the mean of what lies inside it."""
        grid, nodule_hu = image.grid, 20.0 + 7 * (number % 6)
        center = grid.to_index(shape.center[None] + CHEST_CENTER)[0]
        reach = shape.radii / self.spacing + 1
        box = [
            np.arange(max(int(c - r), 0), min(int(c + r) + 2, n))
            for c, r, n in zip(center, reach, grid.size, strict=True)
        ]
        voxels = np.stack(np.meshgrid(*box, indexing="ij"), -1).reshape(-1, 3)
        steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
        inner = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        index = (voxels[:, None] + inner[None]).reshape(-1, 3)
        samples = grid.to_physical(index) - CHEST_CENTER
        inside = shape.contains(samples).reshape(len(voxels), -1)
        touched = inside.any(axis=1)
        voxels, inside = voxels[touched], inside[touched]
        where = tuple(voxels[:, ::-1].T)
        values = np.full(inside.shape, nodule_hu, np.float32)
        outside = samples.reshape(len(touched), -1, 3)[touched][~inside]
        if len(outside):
            there = None
            if density is not None:
                row = np.broadcast_to(np.arange(len(voxels))[:, None], inside.shape)[~inside]
                there = density.reshape(grid.shape)[where][row]
                outside = outside + self.breathing.at(outside)
            values[~inside] = self.fine_painter.render(outside.astype(np.float32), there)[0]
        image.hu[where] = values.mean(axis=1)
        half = inside.mean(axis=1) >= 0.5
        image.nodules[tuple(voxels[half][:, ::-1].T)] = number


def _points(axes: list[np.ndarray]) -> np.ndarray:
    """All voxel centers (N, 3) in scene mm, in array order."""
    return np.stack(np.meshgrid(*axes[::-1], indexing="ij")[::-1], axis=-1).reshape(-1, 3)


def _landmarks(
    anatomy: Anatomy, breathing: Breathing, fixed: Grid, moving: Grid, seed: int, count: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Vessel forks of the lung that both images hold, LPS mm (N, 3) each."""
    forks = np.concatenate([tree.forks for tree in anatomy.vessel_trees])
    forks = np.random.default_rng([seed, 5]).permutation(forks)
    forks = forks[anatomy.lungs(forks.astype(np.float32)) < -5]
    # Some thin vessels made room for nodules: a fork of which nothing is left is no landmark.
    to_vessels = PointCells(forks.astype(np.float32)).distance(anatomy.vessels, 3)
    forks = forks[to_vessels < 0]
    origin, missing = breathing.inverse(forks)
    kept = (missing < 1e-3) & fixed.contains(origin + CHEST_CENTER)
    kept &= moving.contains(forks + CHEST_CENTER)
    return (origin + CHEST_CENTER)[kept][:count], (forks + CHEST_CENTER)[kept][:count]


def _write_truth(nodules: tuple[PhantomNodule, ...], path: Path) -> None:
    rows = [{**vars(nodule), "factor": nodule.factor} for nodule in nodules]
    about = {"frame": "LPS", "unit": "mm, mm^3", "nodules": rows}
    path.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
