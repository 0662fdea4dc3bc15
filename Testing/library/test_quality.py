"""Measures: landmarks, labels and Jacobians against numpy, scipy, SimpleITK and pencil."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import centered_grid, rotation, voxel_centers
from scipy import ndimage, stats

from GlideRegLib.errors import InputError
from GlideRegLib.field import DisplacementField, affine_to_sitk
from GlideRegLib.geometry import Grid
from GlideRegLib.quality import (
    compare_labels,
    inverse_consistency,
    label_summary,
    landmark_errors,
    landmark_summary,
    mean_dice,
    points_within,
    sample_jacobian,
    summarize_errors,
    summarize_jacobian,
)
from GlideRegLib.volume import Volume

# --- landmarks ------------------------------------------------------------------------------------


def test_the_error_of_a_landmark_is_its_euclidean_distance_in_mm() -> None:
    mapped = np.array([[0.0, 0, 0], [1, 2, 3], [10, 10, 10]])
    moving = np.array([[3.0, 4, 0], [1, 2, 3], [10, 10, 11.5]])
    np.testing.assert_allclose(landmark_errors(mapped, moving), [5.0, 0.0, 1.5])


def test_landmarks_that_do_not_correspond_one_to_one_are_refused_with_both_counts() -> None:
    with pytest.raises(InputError, match="3 fixed and 2 moving"):
        landmark_errors(np.zeros((3, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("n", [2, 3, 51, 300])
def test_the_summary_of_errors_is_what_numpy_and_scipy_say(n: int) -> None:
    errors = np.random.default_rng(n).gamma(2.0, 0.7, n)
    found = summarize_errors(errors)
    assert found["n"] == n
    assert found["mean"] == pytest.approx(errors.mean())
    assert found["median"] == pytest.approx(np.median(errors))
    assert found["std"] == pytest.approx(errors.std(ddof=1))
    assert found["p95"] == pytest.approx(np.quantile(errors, 0.95))
    assert found["max"] == errors.max()
    interval = stats.t.interval(0.95, n - 1, loc=errors.mean(), scale=stats.sem(errors))
    assert found["ci95"] == pytest.approx(list(interval))


def test_a_single_landmark_has_no_interval() -> None:
    found = summarize_errors(np.array([1.25]))
    assert (found["mean"], found["median"], found["max"], found["n"]) == (1.25, 1.25, 1.25, 1)
    assert "ci95" not in found


def test_cpm_counts_points_within_each_threshold_the_threshold_included() -> None:
    errors = np.array([0.1, 0.5, 0.51, 1.0, 2.0, 4.9, 5.0, 5.01])
    assert points_within(errors) == {"0.5": 25.0, "1": 50.0, "2": 62.5, "5": 87.5}


def test_the_landmark_summary_keeps_before_and_after_apart() -> None:
    before, after = np.array([10.0, 12.0]), np.array([0.4, 1.4])
    found = landmark_summary(before, after)
    assert found["tre_mm"]["before"]["mean"] == 11.0
    assert found["tre_mm"]["after"]["mean"] == pytest.approx(0.9)
    assert found["cpm_percent"]["before"]["5"] == 0.0
    assert found["cpm_percent"]["after"]["0.5"] == 50.0


# --- labels ---------------------------------------------------------------------------------------


def cube(shape: tuple, start: tuple, side: int, label: int = 1) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(s, s + side) for s in start)] = label
    return array


def ball(grid: Grid, center: tuple, radius: float) -> np.ndarray:
    distance = np.linalg.norm(voxel_centers(grid) - np.array(center), axis=1)
    return (distance < radius).reshape(grid.shape).astype(np.uint8)


def one(first: np.ndarray, second: np.ndarray, grid: Grid) -> dict:
    return compare_labels(first, second, grid)["1"]


def test_equal_labels_have_dice_one_and_no_distance() -> None:
    grid = centered_grid((20, 20, 20), (1.0, 2.0, 3.0))
    a = cube(grid.shape, (5, 5, 5), 8)
    found = one(a, a, grid)
    assert (found["dice"], found["hd95_mm"], found["mean_distance_mm"]) == (1.0, 0.0, 0.0)
    assert found["fixed_voxels"] == found["warped_voxels"] == 512


def test_a_cube_shifted_by_two_voxels_has_the_dice_and_the_distances_of_the_drawing() -> None:
    """Side 10, shift 2 along x: Dice 0.8, and the far faces are 2 voxels (3 mm) apart."""
    spacing = (1.5, 1.0, 2.0)
    grid = centered_grid((24, 24, 24), spacing)
    a, b = cube(grid.shape, (6, 6, 6), 10), cube(grid.shape, (6, 6, 8), 10)
    found = one(a, b, grid)
    assert found["dice"] == pytest.approx(0.8)
    surfaces = [boundary_points(m, grid) for m in (a, b)]
    distances = directed_distances(*surfaces)
    assert len(surfaces[0]) == 10**3 - 8**3
    assert found["mean_distance_mm"] == pytest.approx(np.concatenate(distances).mean())
    assert found["hd95_mm"] == pytest.approx(max(np.percentile(d, 95) for d in distances))
    assert found["hd95_mm"] == pytest.approx(3.0)


def test_hd95_is_the_larger_of_both_directions() -> None:
    """A rod of one voxel's width, 20 mm long, against one of 100 mm that begins with it.

    From the short one to the long one every distance is 0. From the long one: 1 to 80 mm on 80 of
    its 100 voxels, so that 95 % lie within 75.05 mm (between the 95th and the 96th of 100). Pooled
    it would be 74.05 mm.
    """
    grid = centered_grid((110, 5, 5), (1.0, 1.0, 1.0))
    short, long = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    short[2, 2, 5:25], long[2, 2, 5:105] = 1, 1
    for pair in ((short, long), (long, short)):
        found = one(*pair, grid)
        assert found["hd95_mm"] == pytest.approx(75.05)
        assert found["mean_distance_mm"] == pytest.approx(np.arange(1, 81).sum() / 120)


def test_hd95_of_a_ball_with_a_protrusion_agrees_with_distance_maps_of_scipy() -> None:
    """8.0 mm pooled; 12.4 mm by hand and by MONAI 1.6.1 (compute_hausdorff_distance)."""
    grid = centered_grid((80, 60, 60), (2.0, 2.0, 2.0))
    z, y, x = np.mgrid[:60, :60, :80]
    plain = (x - 30) ** 2 + (y - 30) ** 2 + (z - 30) ** 2 < 15**2
    grown = plain | ((x >= 44) & (x < 52) & (abs(y - 30) < 6) & (abs(z - 30) < 6))
    edges = [m & ~ndimage.binary_erosion(m) for m in (plain, grown)]
    maps = [ndimage.distance_transform_edt(~edge, sampling=2.0) for edge in edges]
    directed = [maps[1][edges[0]], maps[0][edges[1]]]
    expected = max(np.percentile(d, 95) for d in directed)
    found = one(plain.astype(np.uint8), grown.astype(np.uint8), grid)
    assert found["hd95_mm"] == pytest.approx(expected)
    assert found["hd95_mm"] == pytest.approx(12.4, abs=0.01)


def boundary_points(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Voxels of the mask with a face neighbor outside it, LPS mm; voxel by voxel."""
    filled = {tuple(v) for v in np.argwhere(mask)}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    boundary = [v for v in filled if any(tuple(np.add(v, step)) not in filled for step in steps)]
    return grid.to_physical(np.array(boundary, float)[:, ::-1])


def directed_distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest distances from each point to the other set, both directions apart."""
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    return between.min(axis=1), between.min(axis=0)


@pytest.mark.parametrize("direction", [np.eye(3), rotation((20.0, 10.0, -30.0))])
def test_balls_of_known_shift_and_size_agree_with_brute_force(direction: np.ndarray) -> None:
    grid = centered_grid((30, 28, 20), (1.0, 1.3, 2.1), direction)
    a, b = ball(grid, (0, 0, 0), 9.0), ball(grid, (3.0, -1.0, 2.0), 7.5)
    found = one(a, b, grid)
    distances = directed_distances(boundary_points(a, grid), boundary_points(b, grid))
    larger = max(np.percentile(d, 95) for d in distances)
    assert found["mean_distance_mm"] == pytest.approx(np.concatenate(distances).mean(), abs=1e-6)
    assert found["hd95_mm"] == pytest.approx(larger, abs=1e-6)


def test_concentric_balls_are_as_far_apart_as_their_radii() -> None:
    grid = centered_grid((60, 60, 60), (1.0, 1.0, 1.0))
    found = one(ball(grid, (0, 0, 0), 25.0), ball(grid, (0, 0, 0), 20.0), grid)
    assert found["mean_distance_mm"] == pytest.approx(5.0, abs=0.25)
    assert found["hd95_mm"] == pytest.approx(5.0, abs=0.6)
    assert found["dice"] == pytest.approx(2 * 20**3 / (20**3 + 25**3), abs=0.01)


def test_dice_agrees_with_simpleitk_for_every_label() -> None:
    random = np.random.default_rng(3)
    grid = centered_grid((12, 11, 10), (1.0, 1.0, 1.0))
    a, b = (random.integers(0, 5, grid.shape).astype(np.uint8) for _ in range(2))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(Volume(a, grid).to_sitk(), Volume(b, grid).to_sitk())
    found = compare_labels(a, b, grid)
    assert sorted(found) == ["1", "2", "3", "4"]
    for label in range(1, 5):
        assert found[str(label)]["dice"] == pytest.approx(overlap.GetDiceCoefficient(label))


def test_the_largest_surface_distance_of_simpleitk_bounds_ours() -> None:
    """Its Hausdorff distance is the maximum; HD95 lies below it and above the mean."""
    grid = centered_grid((40, 40, 40), (1.0, 1.0, 1.5))
    a, b = ball(grid, (0, 0, 0), 12.0), ball(grid, (4.0, 0, 0), 12.0)
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(Volume(a, grid).to_sitk(), Volume(b, grid).to_sitk())
    found = one(a, b, grid)
    assert found["mean_distance_mm"] < found["hd95_mm"]
    assert found["hd95_mm"] <= hausdorff.GetHausdorffDistance() + 1e-6
    assert hausdorff.GetHausdorffDistance() == pytest.approx(4.0, abs=0.5)


def test_a_label_at_the_border_of_the_image_has_a_surface_there() -> None:
    grid = centered_grid((12, 12, 12), (1.0, 1.0, 1.0))
    a, b = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    a[:6], b[:8] = 1, 1
    found = one(a, b, grid)
    distances = directed_distances(boundary_points(a, grid), boundary_points(b, grid))
    assert found["mean_distance_mm"] == pytest.approx(np.concatenate(distances).mean())
    assert found["hd95_mm"] == pytest.approx(2.0)


def test_a_single_voxel_is_its_own_surface() -> None:
    grid = centered_grid((9, 9, 9), (2.0, 3.0, 4.0))
    found = one(cube(grid.shape, (4, 4, 4), 1), cube(grid.shape, (4, 5, 4), 1), grid)
    assert (found["dice"], found["hd95_mm"], found["mean_distance_mm"]) == (0.0, 3.0, 3.0)


def test_a_label_that_one_map_lacks_has_dice_zero_and_no_distances() -> None:
    grid = centered_grid((9, 9, 9), (1.0, 1.0, 1.0))
    full, empty = cube(grid.shape, (2, 2, 2), 4, label=7), np.zeros(grid.shape, np.uint8)
    for pair in ((full, empty), (empty, full)):
        found = compare_labels(*pair, grid)
        assert list(found) == ["7"]
        assert found["7"]["dice"] == 0.0
        assert found["7"]["hd95_mm"] is None
        assert found["7"]["mean_distance_mm"] is None
    assert compare_labels(empty, empty, grid) == {}


def test_label_maps_of_different_shapes_are_refused() -> None:
    grid = centered_grid((9, 9, 9), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="different shapes"):
        compare_labels(np.zeros((9, 9, 9)), np.zeros((9, 9, 8)), grid)


def test_the_mean_dice_counts_the_labels_of_the_fixed_map_only() -> None:
    grid = centered_grid((20, 20, 20), (1.0, 1.0, 1.0))
    fixed = cube(grid.shape, (2, 2, 2), 4) + cube(grid.shape, (12, 12, 12), 4, label=2)
    other = cube(grid.shape, (2, 2, 2), 4) + cube(grid.shape, (2, 12, 2), 4, label=3)
    assert mean_dice(compare_labels(fixed, other, grid)) == 0.5


def test_the_label_summary_names_every_label_of_all_maps() -> None:
    grid = centered_grid((20, 20, 20), (1.0, 1.0, 1.0))
    fixed = cube(grid.shape, (4, 4, 4), 5) + cube(grid.shape, (14, 14, 14), 3, label=10)
    unmoved = cube(grid.shape, (4, 4, 6), 5) + cube(grid.shape, (0, 0, 0), 2, label=9)
    warped = cube(grid.shape, (4, 4, 4), 5)
    found = label_summary(fixed, unmoved, warped, grid)
    assert list(found["labels"]) == ["1", "9", "10"]
    assert found["labels"]["1"]["before"]["dice"] == pytest.approx(0.6)
    assert found["labels"]["1"]["after"]["dice"] == 1.0
    assert found["labels"]["9"]["after"] is None
    assert found["mean_dice"] == {"before": pytest.approx(0.3), "after": 0.5}


# --- Jacobian -------------------------------------------------------------------------------------


def smooth_field(grid: Grid, amplitude: float = 5.0, length: float = 50.0) -> DisplacementField:
    k = 2 * np.pi / length
    x, y, z = voxel_centers(grid).T * k
    u = amplitude * np.stack((np.sin(y) * np.cos(z), np.sin(z + x), np.cos(x - y)))
    return DisplacementField(torch.from_numpy(u.reshape(3, *grid.shape)).float(), grid)


def some_affine() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((5.0, -10.0, 20.0)) @ np.diag([1.1, 0.9, 1.05])
    matrix[:3, 3] = (30.0, -10.0, 5.0)
    return matrix


@pytest.mark.parametrize("depth", [1, 2, 31, 32, 33, 70])
def test_the_jacobian_by_slabs_is_the_jacobian_of_the_whole_grid(depth: int) -> None:
    field = smooth_field(centered_grid((24, 22, 40), (4.0, 4.0, 4.0)))
    grid = centered_grid((20, 18, depth), (2.0, 2.5, 1.7), rotation((10.0, 20.0, 30.0)))
    whole = field.resampled(grid).jacobian_determinant()
    found = sample_jacobian(field, np.eye(4), grid)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)


def test_the_jacobian_of_the_total_transform_includes_the_initial_one() -> None:
    """det of p -> initial(p + u(p)), by differences of the transform itself."""
    field = smooth_field(centered_grid((40, 40, 40), (2.0, 2.0, 2.0)))
    grid = centered_grid((9, 8, 7), (2.0, 2.0, 2.0))
    matrix = some_affine()
    total = sitk.CompositeTransform([affine_to_sitk(matrix), field.to_sitk_transform()])
    found = sample_jacobian(field, matrix, grid).numpy()
    for index in ((4, 4, 3), (2, 5, 4), (6, 2, 2)):
        p = grid.to_physical(np.array([index], float))[0]
        columns = [
            (
                np.array(total.TransformPoint((p + step).tolist()))
                - np.array(total.TransformPoint((p - step).tolist()))
            )
            / 4.0
            for step in np.eye(3) * 2.0
        ]
        expected = np.linalg.det(np.stack(columns, axis=1))
        assert found[index[::-1]] == pytest.approx(expected, abs=2e-3)


def test_percentages_of_folding_are_counted_in_the_body_and_in_the_grid_without_the_border() -> (
    None
):
    """12^3 voxels, the two outer layers left out: 8^3 = 512 count."""
    jacobian = torch.ones(12, 12, 12)
    body = np.zeros((12, 12, 12), bool)
    body[2:10, 2:10, 2:6] = True  # 8 x 8 x 4 = 256
    jacobian[4, 4, 3] = -0.5  # in the body
    jacobian[4, 4, 4] = 0.0  # in the body: 0 folds too
    jacobian[4, 4, 8] = -1.0  # outside it
    jacobian[0, 5, 5] = jacobian[1, 5, 5] = jacobian[11, 5, 5] = -9.0  # in the border
    jacobian[5, 5, 5] = 1e-4  # hardly anything left, but no fold
    found = summarize_jacobian(jacobian, body)
    assert found["folding_percent"]["body"] == pytest.approx(100 * 2 / 256)
    assert found["folding_percent"]["grid"] == pytest.approx(100 * 3 / 512)
    assert found["jacobian"]["min"] == -0.5
    assert found["jacobian"]["max"] == 1.0


def test_the_spread_of_the_determinant_follows_both_formulas_to_the_letter() -> None:
    jacobian = torch.from_numpy(np.random.default_rng(0).normal(1, 0.6, (14, 13, 12))).float()
    body = np.random.default_rng(1).random((14, 13, 12)) < 0.4
    found = summarize_jacobian(jacobian, body)
    inner = jacobian.numpy()[2:-2, 2:-2, 2:-2]
    in_body = inner[body[2:-2, 2:-2, 2:-2]]
    assert in_body.min() < 0
    learn2reg = np.log((inner + 3).clip(1e-9, 1e9)).std()
    assert found["sd_log_jacobian_learn2reg"] == pytest.approx(learn2reg, rel=1e-5)
    plain = np.log(np.maximum(in_body, 1e-6)).std()
    assert found["sd_log_jacobian"] == pytest.approx(plain, rel=1e-5)
    for p in (1, 5, 50, 95, 99):
        assert found["jacobian"][f"p{p}"] == pytest.approx(np.percentile(in_body, p), rel=1e-5)


def test_a_uniform_expansion_has_no_spread() -> None:
    found = summarize_jacobian(torch.full((9, 9, 9), 1.3), np.ones((9, 9, 9), bool))
    assert found["sd_log_jacobian"] == pytest.approx(0, abs=1e-5)
    assert found["folding_percent"] == {"body": 0.0, "grid": 0.0}


def test_without_a_body_the_grid_is_measured() -> None:
    found = summarize_jacobian(torch.full((9, 9, 9), -1.0), np.zeros((9, 9, 9), bool))
    assert found["folding_percent"] == {"body": 100.0, "grid": 100.0}


def test_a_thin_grid_keeps_its_few_slices() -> None:
    found = summarize_jacobian(torch.full((3, 9, 9), -1.0), np.ones((3, 9, 9), bool))
    assert found["folding_percent"]["grid"] == 100.0


# --- consistency ----------------------------------------------------------------------------------


def test_inverse_consistency_is_the_distance_after_going_there_and_back() -> None:
    grid = centered_grid((20, 20, 20), (3.0, 3.0, 3.0))
    there = DisplacementField(torch.zeros(3, *grid.shape), grid)
    there.vectors[0] = 5.0
    back = DisplacementField(torch.zeros(3, *grid.shape), grid)
    back.vectors[0], back.vectors[1] = -5.0, 0.25
    points = np.random.default_rng(0).uniform(-15, 15, (50, 3))
    found = inverse_consistency(there, back, points)
    for name in ("mean", "p95", "max"):
        assert found[name] == pytest.approx(0.25, abs=1e-5)


def test_a_numerical_inverse_is_consistent_within_a_fraction_of_its_grid() -> None:
    grid = centered_grid((40, 40, 40), (2.0, 2.0, 2.0))
    field = smooth_field(grid, 3.0).with_zero_border()
    points = np.random.default_rng(0).uniform(-35, 35, (500, 3))
    found = inverse_consistency(field, field.inverse(), points)
    assert found["mean"] < 0.06
    assert found["max"] < 0.25
