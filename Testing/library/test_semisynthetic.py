"""Semi-synthetic pairs: the field has the size asked for, never folds, and explains the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.linalg import expm
from scipy.ndimage import binary_dilation, map_coordinates

from GlideRegLib.errors import InputError, SettingsError
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import read_landmark_pair
from GlideRegLib.sample_data.phantom import make_phantom_pair
from GlideRegLib.sample_data.semisynthetic import (
    SemiSyntheticPair,
    lidc_pair,
    pair_from_breathing,
    pair_from_landmarks,
    popi_pair,
)
from GlideRegLib.sample_data.semisynthetic.corners import salient_points
from GlideRegLib.sample_data.semisynthetic.motion import follow
from GlideRegLib.sample_data.splines import LatticeSpline
from GlideRegLib.volume import Volume, read_labels, read_volume

LOBES = (10, 11, 12, 13, 14)


def halved(volume: Volume) -> Volume:
    """Every second voxel, 4 mm: a quarter of the work in each plane."""
    grid = volume.grid
    size = tuple((n + 1) // 2 for n in grid.size)
    coarse = Grid(size, tuple(2 * s for s in grid.spacing), grid.origin, grid.direction)
    return Volume(np.ascontiguousarray(volume.array[::2, ::2, ::2]), coarse)


@pytest.fixture(scope="module")
def popi_points(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = shared_data / "thorax_popi00"
    exhale, inhale = read_landmark_pair(folder / "50_lps_mm.csv", folder / "00_lps_mm.csv")
    return exhale.points[:40], inhale.points[:40]


@pytest.fixture(scope="module")
def popi(shared_data: Path, popi_points: tuple[np.ndarray, np.ndarray]) -> SemiSyntheticPair:
    image = halved(read_volume(shared_data / "thorax_popi00" / "popi_phase00_ct.nii.gz"))
    return pair_from_landmarks(image, *popi_points, noise=0.0)


@pytest.fixture(scope="module")
def lidc(shared_data: Path) -> SemiSyntheticPair:
    folder = shared_data / "thorax_lidc0001"
    image = halved(read_volume(folder / "LIDC-IDRI-0001_ct.nii.gz"))
    labels = halved(read_labels(folder / "LIDC-IDRI-0001_seg118.nii.gz"))
    names = {label: str(label) for label in range(1, 119)}
    return pair_from_breathing(image, labels, names, LOBES, noise=0.0)


@pytest.fixture(scope="module", params=["popi", "lidc"])
def pair(request: pytest.FixtureRequest) -> SemiSyntheticPair:
    return request.getfixturevalue(request.param)


def fixed_lungs(pair: SemiSyntheticPair) -> np.ndarray:
    wanted = [1] if pair.label_names == {1: "lung"} else LOBES
    return np.isin(pair.fixed_labels.array, wanted)


def test_motion_is_as_large_as_asked_and_never_folds(pair: SemiSyntheticPair) -> None:
    motion = np.linalg.norm(pair.displacement, axis=0)[fixed_lungs(pair)]
    assert motion.mean() == pytest.approx(20, rel=0.05)
    assert motion.max() == pytest.approx(50, rel=0.08)
    assert pair.jacobian.min() > 0.1
    # An independent look at the determinant, with numpy.
    slopes = np.stack(
        [
            np.stack([np.gradient(u, 4.0, axis=2 - j) for j in range(3)], axis=-1)
            for u in pair.displacement
        ],
        axis=-2,
    )
    determinant = np.linalg.det(slopes + np.eye(3))
    assert np.abs(determinant - pair.jacobian).max() < 1e-3
    assert pair.description.startswith("Semi-synthetic") and "fold-free" in pair.description
    assert pair.name == "semi-synthetic"


def test_field_explains_the_images(pair: SemiSyntheticPair) -> None:
    """Against SimpleITK: the moving image resampled through the field is the fixed image."""
    transform = pair.field.to_sitk_transform()
    grid = pair.fixed.grid
    reference = grid.copy_to_sitk(sitk.Image(grid.size, sitk.sitkFloat32))
    moving = pair.moving.to_sitk()
    warped = sitk.GetArrayFromImage(
        sitk.Resample(moving, reference, transform, sitk.sitkBSpline3, -1024.0)
    )
    warped = np.clip(warped, -1024, 3000)
    inside = np.zeros(grid.shape, bool)
    inside[2:-2, 2:-2, 2:-2] = True
    near_lungs = binary_dilation(fixed_lungs(pair), iterations=4)
    elsewhere = inside & ~near_lungs & (warped > -300)
    difference = np.abs(warped - pair.fixed.array)
    assert np.percentile(difference[elsewhere], 99) < 8
    tissue = fixed_lungs(pair) & inside & (warped < -750) & (warped > -990)
    scaled = (warped + 1000) * np.clip(pair.jacobian, 0.4, 2.5) - 1000
    assert np.median(np.abs(scaled - pair.fixed.array)[tissue]) < 3
    assert np.median(np.abs(warped - pair.fixed.array)[tissue]) > 10
    # Nothing was invented: what the fixed image shows lies inside the moving scan.
    body = inside & (warped > -300)
    index = np.argwhere(body)[::50, ::-1]
    shift = pair.displacement[:, index[:, 2], index[:, 1], index[:, 0]].T
    assert pair.moving.grid.contains(grid.to_physical(index) + shift).all()


def test_landmarks_agree_with_the_field(pair: SemiSyntheticPair) -> None:
    fixed, moving = pair.fixed_landmarks, pair.moving_landmarks
    assert 100 <= len(fixed) == len(moving) <= 300
    assert np.abs(fixed + pair.motion_field.at(fixed) - moving).max() < 1e-6
    index = pair.fixed.grid.to_index(fixed)[:, ::-1].T
    u = np.stack([map_coordinates(v, index, order=3, mode="nearest") for v in pair.displacement], 1)
    # At the image's faces the interpolating spline has no neighbors to be exact with.
    size = np.asarray(pair.fixed.grid.shape)[:, None]
    inner = ((index > 2) & (index < size - 3)).all(axis=0)
    assert inner.mean() > 0.9
    assert np.linalg.norm(fixed + u - moving, axis=1)[inner].max() < 0.05
    # They are spread over the lungs and see most of the motion.
    motion = np.linalg.norm(moving - fixed, axis=1)
    assert motion.mean() > 12 and motion.max() > 35
    assert pair.fixed.grid.contains(fixed).all() and pair.moving.grid.contains(moving).all()
    lungs = binary_dilation(fixed_lungs(pair), iterations=2)
    z, y, x = np.rint(index).astype(int)
    assert lungs[z, y, x].mean() > 0.97


def test_labels_move_with_the_image(pair: SemiSyntheticPair) -> None:
    lungs = [1] if pair.label_names == {1: "lung"} else LOBES
    labels, moving = pair.fixed_labels, pair.moving_labels
    assert labels.array.dtype == moving.array.dtype == np.uint8
    oracle = moving.resampled(labels.grid, pair.field.to_sitk_transform(), labels=True).array
    a, b = np.isin(labels.array, lungs), np.isin(oracle, lungs)
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.995
    # Breathing in: the moving lungs are larger, by the determinant.
    assert np.isin(moving.array, lungs).sum() > 1.05 * a.sum()
    assert pair.jacobian[a].mean() > 1.05


def test_skin_is_still(pair: SemiSyntheticPair) -> None:
    motion = np.linalg.norm(pair.displacement, axis=0)
    faces = (motion[:, 0], motion[:, -1], motion[:, :, 0], motion[:, :, -1])
    assert max(face.max() for face in faces) < 0.5


def test_real_landmarks_drive_the_field(popi: SemiSyntheticPair, popi_points: tuple) -> None:
    exhale, inhale = popi_points
    real, made = inhale - exhale, popi.motion_field.at(exhale)
    large = np.linalg.norm(real, axis=1) > 3
    cosine = (real * made).sum(1) / np.linalg.norm(real, axis=1) / np.linalg.norm(made, axis=1)
    assert large.sum() > 20 and np.median(cosine[large]) > 0.85
    lengths = np.linalg.norm(real, axis=1), np.linalg.norm(made, axis=1)
    assert np.corrcoef(*lengths)[0, 1] > 0.6


def test_diaphragm_moves_down_most(lidc: SemiSyntheticPair) -> None:
    lungs = fixed_lungs(lidc)
    z = np.argwhere(lungs)[:, 0]
    down = -lidc.displacement[2]
    lower, upper = np.zeros_like(lungs), np.zeros_like(lungs)
    lower[: int(np.percentile(z, 25))] = True
    upper[int(np.percentile(z, 85)) :] = True
    assert down[lungs & lower].mean() > 3 * down[lungs & upper].mean() > -10
    assert down[lungs & lower].mean() > 20


# --- with the phantom as the CT: fast -----------------------------------------------------------


@pytest.fixture(scope="module")
def scan() -> Volume:
    return make_phantom_pair(size=(64, 52, 64), spacing=(5.0, 5.0, 5.0), noise=10.0).moving


def test_same_seed_same_pair(scan: Volume) -> None:
    settings = {"mean_motion": 8.0, "max_motion": 20.0}
    first, again = (pair_from_breathing(scan, **settings, seed=3) for _ in range(2))
    other = pair_from_breathing(scan, **settings, seed=4)
    assert np.array_equal(first.fixed.array, again.fixed.array)
    assert np.array_equal(first.displacement, again.displacement)
    assert np.array_equal(first.fixed_landmarks, again.fixed_landmarks)
    assert not np.array_equal(first.displacement[:, :10], other.displacement[:, :10])
    assert first.motion(1).mean() == pytest.approx(8, rel=0.06)
    assert first.motion(1).max() == pytest.approx(20, rel=0.1)


def test_noise_is_independent(scan: Volume) -> None:
    settings = {"mean_motion": 6.0, "max_motion": 15.0}
    quiet, noisy = (pair_from_breathing(scan, **settings, noise=n) for n in (0.0, 30.0))
    assert np.array_equal(quiet.displacement, noisy.displacement)
    assert np.array_equal(quiet.moving.array, scan.array)
    body = quiet.fixed.array > -500
    grain = noisy.fixed.array - quiet.fixed.array
    assert grain[body].std() == pytest.approx(30, rel=0.1)
    other = (noisy.moving.array - quiet.moving.array)[: len(grain)]
    assert abs(np.corrcoef(grain[body], other[body])[0, 1]) < 0.05


def test_bad_input_gives_a_sentence(scan: Volume) -> None:
    points = np.zeros((3, 3))
    with pytest.raises(InputError, match="landmark"):
        pair_from_landmarks(scan, points, points)
    with pytest.raises(InputError, match="lungs"):
        pair_from_breathing(Volume(np.full_like(scan.array, 40.0), scan.grid))
    turned = Grid(
        scan.grid.size, scan.grid.spacing, scan.grid.origin, (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    )
    with pytest.raises(InputError, match="axes"):
        pair_from_breathing(Volume(scan.array, turned))
    with pytest.raises(SettingsError, match="mean_motion"):
        pair_from_breathing(scan, mean_motion=30.0, max_motion=20.0)
    with pytest.raises(SettingsError, match="noise"):
        pair_from_breathing(scan, noise=-1.0)


# --- bricks -----------------------------------------------------------------------------------


def test_following_a_linear_velocity_is_the_matrix_exponential() -> None:
    lattice = Grid((41, 41, 41), (8.0, 8.0, 8.0), (-160.0, -160.0, -160.0))
    slope = np.array([[0.2, -0.5, 0.0], [0.4, 0.0, 0.1], [0.0, 0.0, -0.6]])
    index = np.argwhere(np.ones(lattice.shape, bool))[:, ::-1]
    velocity = (lattice.to_physical(index) @ slope.T).T.reshape(3, *lattice.shape)
    points = np.random.default_rng(0).uniform(-50, 50, (100, 3))
    nodes = follow(velocity, lattice)
    found = points + DisplacementField(torch.from_numpy(nodes), lattice).sample(points)
    assert np.abs(found - points @ expm(slope).T).max() < 0.2


def test_corners_of_a_box_are_salient() -> None:
    array = np.full((40, 40, 40), -850.0, np.float32)
    array[12:28, 12:28, 12:28] = 0.0
    grid = Grid((40, 40, 40), (2.0, 2.0, 2.0), (5.0, 6.0, 7.0))
    lungs = np.zeros(array.shape, bool)
    lungs[2:-2, 2:-2, 2:-2] = True
    found = salient_points(Volume(array, grid), lungs, 8)
    ends = np.array([11.5, 27.5])
    corners = grid.to_physical(np.stack(np.meshgrid(ends, ends, ends), axis=-1).reshape(-1, 3))
    nearest = np.linalg.norm(found[:, None] - corners[None], axis=2).min(axis=0)
    assert len(found) == 8 and nearest.max() < 6


def test_spline_passes_through_its_values() -> None:
    values = np.random.default_rng(0).standard_normal((9, 8, 7))
    spline = LatticeSpline.through(values)
    inner = np.arange(1, 6)
    assert np.abs(spline.on_axes(inner, inner, inner) - values[1:6, 1:6, 1:6]).max() < 0.02
    points = np.random.default_rng(1).uniform(1, 5, (20, 3))
    grid = spline.on_axes(points[:, 0], points[:, 1], points[:, 2])
    diagonal = grid[np.arange(20), np.arange(20), np.arange(20)]
    assert np.abs(spline.at(points) - diagonal).max() < 1e-5


# --- the two named pairs at full resolution -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [popi_pair, lidc_pair])
def test_named_pairs(make, shared_data: Path) -> None:
    pair = make(shared_data, mean_motion=8.0, max_motion=20.0)
    assert pair.name.startswith("semi-synthetic") and len(pair.fixed_landmarks) >= 250
    motion = np.linalg.norm(pair.displacement, axis=0)[fixed_lungs(pair)]
    assert motion.mean() == pytest.approx(8, rel=0.05)
