"""The phantom: exact truth, plausible anatomy in the right place, and the same pair every time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from GlideRegLib.errors import SettingsError
from GlideRegLib.sample_data.phantom import (
    LABEL_NAMES,
    PRESETS,
    PhantomPair,
    make_phantom_pair,
)
from GlideRegLib.sample_data.phantom.anatomy import HALF_EXTENT, Anatomy
from GlideRegLib.sample_data.phantom.motion import Breathing
from GlideRegLib.sample_data.phantom.pair import CHEST_CENTER
from GlideRegLib.sample_data.phantom.shapes import Capsules, PointCells
from GlideRegLib.sample_data.phantom.texture import SplineNoise, Texture
from GlideRegLib.sample_data.phantom.trees import grow_tree
from GlideRegLib.sample_data.splines import map_gradient

SMALL = {"size": (80, 64, 80), "spacing": (4.0, 4.0, 4.0)}
TINY = {"size": (40, 32, 40), "spacing": (8.0, 8.0, 8.0), "vessel_targets": 60}
LABEL = {name: value for value, name in LABEL_NAMES.items()}


@pytest.fixture(scope="module")
def quiet() -> PhantomPair:
    """Without noise, fine enough to compare images: 3 mm."""
    return make_phantom_pair(size=(108, 86, 108), spacing=(3.0, 3.0, 3.0), noise=0.0)


@pytest.fixture(scope="module")
def sliding() -> PhantomPair:
    return make_phantom_pair(**SMALL, sliding=True, noise=0.0)


def interpolate(pair: PhantomPair, array: np.ndarray, points: np.ndarray, order: int) -> np.ndarray:
    """Values of an array on the pair's grid at LPS points (N, 3), by a spline of some order."""
    index = pair.fixed.grid.to_index(points)[:, ::-1].T
    return map_coordinates(array, index, order=order, mode="nearest")


def true_displacement(pair: PhantomPair, points: np.ndarray) -> np.ndarray:
    return np.stack([interpolate(pair, u, points, 3) for u in pair.displacement], axis=1)


def centroid(pair: PhantomPair, mask: np.ndarray) -> np.ndarray:
    """Center of a mask on the pair's grid, LPS mm."""
    return pair.moving.grid.to_physical(np.argwhere(mask)[:, ::-1].mean(axis=0)[None])[0]


def test_images_agree_with_the_field(quiet: PhantomPair) -> None:
    grid = quiet.fixed.grid
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)[..., ::-1]
    moved = grid.to_physical(index.reshape(-1, 3)) + quiet.displacement.reshape(3, -1).T
    warped = interpolate(quiet, quiet.moving.array, moved, 1).reshape(grid.shape)
    inside = grid.contains(moved).reshape(grid.shape)
    labels = quiet.fixed_labels.array
    # Homogeneous tissue: what is left is the linear interpolation of the texture.
    for name in ("heart", "liver"):
        difference = (warped - quiet.fixed.array)[(labels == LABEL[name]) & inside]
        assert np.abs(np.median(difference)) < 1
        assert np.median(np.abs(difference)) < 4
    # In the lung the density grows by the determinant; without it the images differ.
    lung = (labels == LABEL["lung"]) & (warped < -780)  # tissue, not vessels
    scaled = (warped + 1000) * quiet.jacobian - 1000
    assert np.median(np.abs(scaled - quiet.fixed.array)[lung]) < 6
    assert abs(np.median((scaled - quiet.fixed.array)[lung])) < 3
    assert np.median((quiet.fixed.array - warped)[lung]) > 15
    # Borders lie where the field says: labels agree up to partial volume.
    warped_labels = interpolate(quiet, quiet.moving_labels.array, moved, 0).reshape(grid.shape)
    for name in ("lung", "heart", "liver", "skeleton"):
        a, b = warped_labels == LABEL[name], labels == LABEL[name]
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85, name


def test_opposite_field_does_not_explain_the_images(quiet: PhantomPair) -> None:
    heart = quiet.moving_labels.array == LABEL["heart"]
    fixed_heart = quiet.fixed_labels.array == LABEL["heart"]
    motion = quiet.displacement[:, fixed_heart].mean(axis=1)
    expected = centroid(quiet, heart) - centroid(quiet, fixed_heart)
    assert np.abs(motion - expected).max() < 1.5
    assert motion[2] < -3  # inhale: the heart goes down from fixed to moving


@pytest.mark.parametrize("changes", [{}, PRESETS["sliding"], PRESETS["extreme"]])
def test_landmarks_agree_with_the_field(changes: dict) -> None:
    pair = make_phantom_pair(**{**SMALL, **changes})
    for fixed, moving in (
        (pair.fixed_landmarks, pair.moving_landmarks),
        (pair.fixed_nodules, pair.moving_nodules),
    ):
        assert len(fixed) == len(moving)
        error = np.linalg.norm(fixed + true_displacement(pair, fixed) - moving, axis=1)
        # A spline through a sliding wall rings a little beside it.
        assert error.max() < (0.15 if pair.settings.sliding else 0.05)
        assert np.linalg.norm(fixed - moving, axis=1).mean() > 5
        assert pair.fixed.grid.contains(fixed).all()
        assert pair.moving.grid.contains(moving).all()
    assert len(pair.fixed_landmarks) >= 100
    assert len(pair.fixed_nodules) == len(pair.nodule_radii) >= 7
    assert pair.jacobian.min() > 0.3


def test_nodules_are_where_they_are_said_to_be(quiet: PhantomPair) -> None:
    for volume, centers in (
        (quiet.moving, quiet.moving_nodules),
        (quiet.fixed, quiet.fixed_nodules),
    ):
        large = quiet.nodule_radii > 3.5
        assert (interpolate(quiet, volume.array, centers[large], 1) > -250).all()


def test_jacobian_is_that_of_the_map(quiet: PhantomPair) -> None:
    chosen = quiet.settings
    breathing = Breathing(
        Anatomy(chosen.seed, 10),  # the motion does not depend on the trees
        chosen.seed,
        chosen.amplitude,
        chosen.sliding,
        chosen.irregularity,
        chosen.offset,
        chosen.rotation,
    )
    points = np.random.default_rng(0).uniform(-90, 90, (200, 3))
    exact = np.linalg.det(map_gradient(breathing.at, points))
    dense = interpolate(quiet, quiet.jacobian, points + CHEST_CENTER, 3)
    assert np.abs(exact - dense).max() < 0.03
    moving = points + breathing.at(points)
    assert np.abs(breathing.inverse(moving)[0] - points).max() < 1e-6


def test_left_is_left_and_front_is_front(quiet: PhantomPair) -> None:
    labels = quiet.moving_labels.array
    middle = centroid(quiet, labels == LABEL["lung"])
    liver = centroid(quiet, labels == LABEL["liver"])
    heart = centroid(quiet, labels == LABEL["heart"])
    assert liver[0] < middle[0] - 20  # LPS: the patient's right is negative
    assert liver[2] < middle[2] - 50  # below the lungs
    assert heart[0] > middle[0] + 5  # to the left,
    assert heart[1] < middle[1]  # and in front
    points = quiet.moving.grid.to_physical(np.argwhere(labels == LABEL["skeleton"])[:, ::-1])
    near_midline = np.abs(points[:, 0] - CHEST_CENTER[0]) < 10
    behind = points[near_midline, 1] > CHEST_CENTER[1]
    assert behind.mean() > 0.75  # the spine is at the back (high y)
    airway = quiet.moving.grid.to_physical(np.argwhere(labels == LABEL["airway"])[:, ::-1])
    assert np.abs(airway[airway[:, 2] > CHEST_CENTER[2] + 130, 0] - CHEST_CENTER[0]).max() < 12


def test_hounsfield_units_are_plausible(quiet: PhantomPair) -> None:
    def median(name: str) -> float:
        return float(np.median(quiet.moving.array[quiet.moving_labels.array == LABEL[name]]))

    assert -900 < median("lung") < -780
    assert 20 < median("heart") < 70 and 40 < median("liver") < 80
    assert median("skeleton") > 200 and median("airway") < -700
    assert quiet.moving.array[0, 0, 0] == -1000
    assert quiet.fixed.array.dtype == quiet.displacement.dtype == np.float32
    assert quiet.fixed_labels.array.dtype == np.uint8
    assert all((quiet.fixed_labels.array == value).any() for value in LABEL_NAMES)


def test_breathing_in_enlarges_the_lungs(quiet: PhantomPair) -> None:
    lung = [np.sum(v.array == LABEL["lung"]) for v in (quiet.fixed_labels, quiet.moving_labels)]
    assert 1.15 < lung[1] / lung[0] < 1.5
    expected = quiet.jacobian[quiet.fixed_labels.array == LABEL["lung"]].mean()
    assert abs(lung[1] / lung[0] - expected) < 0.05


def test_sliding_jumps_along_the_wall_only(sliding: PhantomPair) -> None:
    displacement, inside = sliding.displacement, sliding.cavity
    jumps = np.abs(np.diff(displacement, axis=3))  # between neighbors along x
    at_wall = inside[:, :, 1:] != inside[:, :, :-1]
    assert jumps[2][at_wall].max() > 20  # along the wall: up and down
    # Across the wall nothing happens beyond what a smooth field does between two voxels.
    assert jumps[:2][:, at_wall].max() < 1.5
    assert jumps[2][~at_wall].max() < 5
    smooth = make_phantom_pair(**SMALL, noise=0.0)
    assert np.abs(np.diff(smooth.displacement, axis=3)).max() < 10
    assert sliding.jacobian.min() > 0.5
    # Both compartments keep their contents: the lungs lie inside, the ribs' motion is small.
    lung = sliding.fixed_labels.array == LABEL["lung"]
    assert inside[lung].mean() > 0.999


def test_rigid_part_is_added_last() -> None:
    plain = make_phantom_pair(**TINY, amplitude=0.0, irregularity=0.0)
    assert np.abs(plain.displacement).max() < 1e-6
    turned = make_phantom_pair(
        **TINY, amplitude=0.0, irregularity=0.0, offset=(5.0, -3.0, 8.0), rotation=(0, 0, 90)
    )
    # 90 degrees about the axis to the head turn left (x) into back (y).
    point = CHEST_CENTER + np.array([[20.0, 0.0, 0.0]])
    image = point + true_displacement(turned, point)
    assert image - CHEST_CENTER == pytest.approx(np.array([[5.0, 17.0, 8.0]]), abs=1e-3)


def test_same_seed_same_pair_other_seed_other_pair() -> None:
    first, again = make_phantom_pair(**TINY, seed=4), make_phantom_pair(**TINY, seed=4)
    other = make_phantom_pair(**TINY, seed=5)
    for name in ("displacement", "fixed_landmarks", "moving_landmarks", "jacobian"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        assert np.array_equal(getattr(first, name).array, getattr(again, name).array)
    assert not np.array_equal(first.fixed_labels.array, other.fixed_labels.array)
    assert not np.array_equal(first.displacement, other.displacement)


def test_noise_is_independent_and_as_strong_as_asked() -> None:
    quiet, noisy = (make_phantom_pair(**TINY, noise=n) for n in (0.0, 30.0))
    body = quiet.fixed.array > -500
    grains = [(getattr(noisy, n).array - getattr(quiet, n).array) for n in ("fixed", "moving")]
    assert grains[0][body].std() == pytest.approx(30, rel=0.1)
    assert abs(np.corrcoef(grains[0][body], grains[1][body])[0, 1]) < 0.05


def test_decorrelation_changes_the_fixed_texture_only() -> None:
    plain, other = (make_phantom_pair(**TINY, noise=0.0, decorrelation=d) for d in (0.0, 1.0))
    assert np.array_equal(plain.moving.array, other.moving.array)
    lung = plain.fixed_labels.array == LABEL["lung"]
    difference = (plain.fixed.array - other.fixed.array)[lung]
    assert 20 < difference.std() < 60


def test_saved_files_read_back(tmp_path) -> None:
    from GlideRegLib.landmarks import read_landmark_pair
    from GlideRegLib.volume import read_labels, read_volume

    pair = make_phantom_pair(**TINY)
    paths = pair.save(tmp_path / "pair")
    image = read_volume(paths["fixed"])
    assert image.grid.is_close(pair.fixed.grid)
    assert np.abs(image.array - pair.fixed.array).max() <= 0.5 + 1e-3
    assert np.array_equal(read_labels(paths["moving_labels"]).array, pair.moving_labels.array)
    fixed, moving = read_landmark_pair(paths["fixed_landmarks"], paths["moving_landmarks"])
    assert np.array_equal(fixed.points, pair.fixed_landmarks)
    assert np.array_equal(moving.points, pair.moving_landmarks)
    assert paths["about"].is_file() and paths["displacement"].is_file()


@pytest.mark.parametrize(
    "wrong", [{"amplitude": 500.0}, {"decorrelation": 2.0}, {"size": (4, 4, 4)}, {"noise": -1.0}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError):
        make_phantom_pair(**wrong)


# --- bricks -----------------------------------------------------------------------------------


def test_spline_noise_is_one_function() -> None:
    noise = SplineNoise(np.random.default_rng(0), HALF_EXTENT, 48.0)
    axes = [np.linspace(-half, half, 7) for half in HALF_EXTENT]
    grid = noise.on_axes(*axes)
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    at = noise.at(np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1))
    assert np.abs(grid.ravel() - at).max() < 1e-5


def test_texture_has_unit_variance_and_its_scale() -> None:
    texture = Texture(np.random.default_rng(0), HALF_EXTENT, 14.0)
    points = np.random.default_rng(1).uniform(-100, 100, (20000, 3))
    values, near, far = (texture(points + np.array([shift, 0, 0])) for shift in (0, 2, 28))
    assert values.std() == pytest.approx(1, abs=0.15)
    assert np.corrcoef(values, near)[0, 1] > 0.9
    assert abs(np.corrcoef(values, far)[0, 1]) < 0.1


def test_trees_follow_murray_and_reach_every_target() -> None:
    targets = np.random.default_rng(0).uniform(-50, 50, (60, 3))
    tree = grow_tree((0, 0, -60), targets, 0.4, 0.5, 100.0)
    assert len(tree.tubes) == 60
    ends = {tuple(p) for p in tree.tubes.end}
    assert ends == {tuple(p) for p in targets}
    cubes = tree.tubes.end_radius**3
    for k, end in enumerate(tree.tubes.end):
        children = cubes[(tree.tubes.start == end).all(axis=1)]
        expected = children.sum() if len(children) else 0.5**3
        assert cubes[k] == pytest.approx(expected)


def test_capsule_distance_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-40, 40, (3000, 3)).astype(np.float32)
    capsules = Capsules.along(rng.uniform(-30, 30, (6, 3)), [1.0, 2.0, 3.0, 2.0, 1.0, 0.5])
    found = PointCells(points).distance(capsules, band=4.0)
    brute = np.full(len(points), np.inf)
    for a, b, ra, rb in zip(
        capsules.start, capsules.end, capsules.start_radius, capsules.end_radius, strict=True
    ):
        t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        away = np.linalg.norm(points - a - t[:, None] * (b - a), axis=1) - (ra + t * (rb - ra))
        brute = np.minimum(brute, away)
    near = brute < 4
    assert near.sum() > 50
    assert np.abs(found[near] - brute[near]).max() < 1e-3
    assert (found[~near] > 4).all()
