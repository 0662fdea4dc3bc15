"""Makes a pair from one real chest CT and a known motion: semi-synthetic.

What remains easier than a real pair: both images share the anatomy's fine texture and the CT's own
noise (only the added noise is independent), and the motion is smooth where real lungs slide.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from ...errors import InputError, SettingsError
from ...geometry import Grid
from ...landmarks import read_landmark_pair
from ...volume import Volume, read_labels, read_volume
from ..known_pair import KnownPair
from ..local import data_folder
from ..splines import invert_points
from .corners import salient_points
from .motion import SmoothMotion, lattice_around, motion_of_size
from .regions import Regions, find_regions, lung_label_map
from .velocity import breathing_velocity, velocity_through_landmarks

_HU_RANGE = (-1024.0, 3000.0)
#: Lung lobes in the label map of ``thorax_lidc0001``.
_LIDC_LOBES = (10, 11, 12, 13, 14)
#: Rows of the POPI landmark files that count; row 41 lies on an image artifact.
_POPI_SCORED = 40


@dataclass(frozen=True)
class MotionSettings:
    """How far and how noisily.

    ``mean_motion`` and ``max_motion`` in mm over the lungs of the fixed image; the default is the
    size of COPD breath-hold pairs, 8 and 20 is ordinary 4-D CT. ``noise`` is the standard deviation
    in HU of the independent noise added to both images, ``landmarks`` how many test points at most.
    """

    mean_motion: float = 20.0
    max_motion: float = 50.0
    noise: float = 20.0
    landmarks: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.mean_motion < self.max_motion <= 80:
            raise SettingsError("The motion needs 0 < mean_motion < max_motion <= 80 mm.")
        if not 0 <= self.noise <= 300 or self.landmarks < 1:
            raise SettingsError("The noise must be 0 to 300 HU, and at least 1 landmark be asked.")


@dataclass(frozen=True)
class SemiSyntheticPair(KnownPair):
    """A known pair from a real CT; ``motion_field`` evaluates the true field anywhere."""

    motion_field: SmoothMotion


def pair_from_landmarks(
    image: Volume,
    fixed_points: np.ndarray,
    moving_points: np.ndarray,
    labels: Volume | None = None,
    label_names: dict[int, str] | None = None,
    lung_labels: Sequence[int] = (),
    name: str = "semi-synthetic",
    **settings: object,
) -> SemiSyntheticPair:
    """A pair whose motion follows real landmark displacements, scaled to the size asked for.

    ``image`` (HU) becomes the moving image; ``moving_points`` (N, 3) lie in it and ``fixed_points``
    in the breathing phase that the fixed image shall resemble, both LPS mm. ``settings`` are those
    of :class:`MotionSettings`. ``labels`` may give structures to be warped along; without them the
    lungs are found and labeled 1. Raises :class:`InputError` and :class:`SettingsError`.
    """
    chosen = MotionSettings(**settings)
    regions = find_regions(image, labels, lung_labels)
    lattice = lattice_around(regions)
    velocity = velocity_through_landmarks(fixed_points, moving_points, lattice, regions)
    motion = motion_of_size(
        velocity, lattice, regions, chosen.mean_motion, chosen.max_motion, image.grid
    )
    source = f"{len(fixed_points)} real landmark displacements"
    return _assemble(image, motion, regions, labels, label_names, name, source, chosen)


def pair_from_breathing(
    image: Volume,
    labels: Volume | None = None,
    label_names: dict[int, str] | None = None,
    lung_labels: Sequence[int] = (),
    name: str = "semi-synthetic",
    **settings: object,
) -> SemiSyntheticPair:
    """A pair whose motion is a random breathing motion shaped by the lungs of ``image`` (HU).

    For a CT without landmarks; the arguments are those of :func:`pair_from_landmarks`.
    """
    chosen = MotionSettings(**settings)
    regions = find_regions(image, labels, lung_labels)
    lattice = lattice_around(regions)
    velocity = breathing_velocity(lattice, regions, np.random.default_rng([chosen.seed, 1]))
    motion = motion_of_size(
        velocity, lattice, regions, chosen.mean_motion, chosen.max_motion, image.grid
    )
    source = "a random breathing motion"
    return _assemble(image, motion, regions, labels, label_names, name, source, chosen)


def popi_pair(folder: Path | None = None, **settings: object) -> SemiSyntheticPair:
    """From POPI phase 00 (inhale), driven by its 40 expert landmarks in phases 50 and 00."""
    folder = (folder or data_folder()) / "thorax_popi00"
    exhale, inhale = read_landmark_pair(folder / "50_lps_mm.csv", folder / "00_lps_mm.csv")
    return pair_from_landmarks(
        read_volume(folder / "popi_phase00_ct.nii.gz"),
        exhale.points[:_POPI_SCORED],
        inhale.points[:_POPI_SCORED],
        name="semi-synthetic-popi",
        **settings,
    )


def lidc_pair(folder: Path | None = None, **settings: object) -> SemiSyntheticPair:
    """From LIDC-IDRI-0001 with its 118 automatic labels, and a random breathing motion."""
    folder = (folder or data_folder()) / "thorax_lidc0001"
    with (folder / "structures.csv").open(newline="", encoding="utf-8") as stream:
        names = {int(row["id"]): row["structure"] for row in csv.DictReader(stream)}
    return pair_from_breathing(
        read_volume(folder / "LIDC-IDRI-0001_ct.nii.gz"),
        read_labels(folder / "LIDC-IDRI-0001_seg118.nii.gz"),
        names,
        _LIDC_LOBES,
        name="semi-synthetic-lidc",
        **settings,
    )


# --- making the images ------------------------------------------------------------------------


def _assemble(
    image: Volume,
    motion: SmoothMotion,
    regions: Regions,
    labels: Volume | None,
    label_names: dict[int, str] | None,
    name: str,
    source: str,
    chosen: MotionSettings,
) -> SemiSyntheticPair:
    lungs = lung_label_map(image, regions)
    if labels is None:
        labels, label_names = lungs, {1: "lung"}
    grid = _seen_by_both(image, motion, regions)
    displacement = motion.on_grid(grid)
    jacobian = motion.jacobian(grid)
    index = _moved_index(image.grid, grid, displacement)
    fixed = _warped(image.array, index)
    fixed = _with_density(fixed, jacobian, _nearest(lungs.array, index) > 0)
    rng = np.random.default_rng([chosen.seed, 2])
    fixed_points, moving_points = _test_points(image, lungs, motion, grid, chosen.landmarks)
    return SemiSyntheticPair(
        name=name,
        description=(
            f"Semi-synthetic: the moving image is a real CT, the fixed image the same CT warped by "
            f"a known fold-free motion (smallest Jacobian {jacobian.min():.2f}) from {source}, "
            f"scaled to a mean of {chosen.mean_motion:g} and a maximum of {chosen.max_motion:g} mm "
            f"in the lungs; lung density follows the volume, {chosen.noise:g} HU of independent "
            "noise on both."
        ),
        fixed=Volume(with_noise(fixed, chosen.noise, rng), grid),
        moving=Volume(with_noise(image.array, chosen.noise, rng), image.grid),
        fixed_labels=Volume(_nearest(labels.array, index), grid),
        moving_labels=labels,
        label_names=dict(label_names or {}),
        displacement=displacement,
        jacobian=jacobian,
        fixed_landmarks=fixed_points,
        moving_landmarks=moving_points,
        motion_field=motion,
    )


def _seen_by_both(image: Volume, motion: SmoothMotion, regions: Regions) -> Grid:
    """The image's grid without the slices at its ends that show tissue the scan did not reach."""
    grid = image.grid
    body = regions.sample(regions.body.astype(np.float32), regions.grid) > 0.5
    points = regions.grid.to_physical(np.argwhere(body)[:, ::-1].astype(float))
    moved = grid.to_index(points + motion.at(points))[:, 2]
    outside = points[(moved < 0) | (moved > grid.size[2] - 1)]
    slices = grid.to_index(outside)[:, 2]
    half = grid.size[2] / 2
    below = slices[slices < half].max(initial=-1)
    above = slices[slices > half].min(initial=grid.size[2])
    # Coarse voxels were tested: one of them more on either side.
    step = regions.grid.spacing[2] / grid.spacing[2]
    low = int(np.ceil(below + step)) if below >= 0 else 0
    high = int(np.ceil(grid.size[2] - above + step)) if above < grid.size[2] else 0
    if low + high > 0.6 * grid.size[2]:
        raise InputError("So much motion leaves too little of this scan; ask for less.")
    return grid.padded((0, 0, -low), (0, 0, -high))


def _moved_index(source: Grid, grid: Grid, displacement: np.ndarray) -> np.ndarray:
    """Source indices (3, Z, Y, X), z y x order, of every voxel of ``grid`` after the motion."""
    offset = source.to_index(np.asarray(grid.origin)[None])[0]
    index = displacement[::-1] / np.asarray(source.spacing[::-1], np.float32)[:, None, None, None]
    for row, size in enumerate(grid.shape):
        axis = np.arange(size, dtype=np.float32) + np.float32(offset[2 - row])
        index[row] += axis.reshape([-1 if k == row else 1 for k in range(3)])
    return index


def _warped(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The image (HU) at the given indices by cubic B-spline interpolation: hardly any blur."""
    coefficients = spline_filter(array, order=3, output=np.float32, mode="nearest")
    warped = np.empty(index.shape[1:], np.float32)
    for k in range(len(warped)):  # slice by slice: no second copy of the coordinates in memory
        warped[k] = map_coordinates(
            coefficients, index[:, k], order=3, prefilter=False, mode="nearest"
        )
    return np.clip(warped, *_HU_RANGE)


def _nearest(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Labels at the given indices, nearest neighbor; 0 outside."""
    z, y, x = np.rint(index).astype(np.int32)
    inside = np.ones(z.shape, bool)
    for place, size in zip((z, y, x), array.shape, strict=True):
        inside &= (place >= 0) & (place < size)
        np.clip(place, 0, size - 1, out=place)
    return np.where(inside, array[z, y, x], 0).astype(np.uint8)


def _with_density(fixed: np.ndarray, jacobian: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Lung tissue that fills a smaller volume is denser; vessels keep their HU."""
    soft = gaussian_filter(lungs.astype(np.float32), 0.7)
    tissue = soft * np.clip((-500 - fixed) / 200, 0, 1)
    return fixed + tissue * (fixed + 1000) * (np.clip(jacobian, 0.4, 2.5) - 1)


def with_noise(image: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The image (Z, Y, X) in HU with grainy noise of a standard deviation of ``noise`` HU."""
    grain = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.6)
    return np.clip(image + grain * np.float32(noise / grain.std()), *_HU_RANGE).astype(np.float32)


def _test_points(
    image: Volume, lungs: Volume, motion: SmoothMotion, grid: Grid, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the moving lung and where they come from: fixed and moving, LPS mm (N, 3).

    The moving point is p + u(p) of the fixed one, so both are exact.
    """
    corners = salient_points(image, lungs.array > 0, 2 * count)
    fixed, missing = invert_points(motion.at, corners)
    kept = (missing < 1e-3) & grid.contains(fixed)
    fixed = fixed[kept][:count]
    return fixed, fixed + motion.at(fixed)
