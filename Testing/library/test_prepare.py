"""Preparation: modality, intensities, body masks, the working grid and the pair on it."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from known_scenes import (
    Scene,
    centered_grid,
    draw,
    rotation,
    shifted,
    soft_ellipsoid,
    textured_body,
    voxel_centers,
    waves,
)

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import Grid
from GlideRegLib.pair import trusted
from GlideRegLib.pipeline import _multiple
from GlideRegLib.prepare import (
    MR_SCALE,
    background_value,
    body_mask,
    detect_modality,
    normalize_intensity,
    prepare_pair,
    working_grid,
)
from GlideRegLib.settings import Settings
from GlideRegLib.volume import Volume

TORSO = ((0.0, 0.0, 0.0), (70.0, 50.0, 200.0))
LUNGS = (((-32.0, -4.0, 0.0), (22.0, 24.0, 55.0)), ((32.0, -4.0, 0.0), (22.0, 24.0, 55.0)))
GRID = centered_grid((72, 60, 40), (2.5, 2.5, 3.0))
OBLIQUE = rotation((12.0, -18.0, 25.0))


def inside(shape: tuple, points: np.ndarray) -> np.ndarray:
    center, radii = shape
    return (((points - np.array(center)) / np.array(radii)) ** 2).sum(axis=1) < 1


def thorax(table: tuple[float, float] | None = None, noise: float = 20.0) -> Scene:
    """HU: torso, two lungs, air around; ``table`` gives its top and thickness in mm (posterior)."""
    texture = waves(2)

    def scene(points: np.ndarray) -> np.ndarray:
        values = np.full(len(points), -1000.0)
        values[inside(TORSO, points)] = 40.0
        for lung in LUNGS:
            values[inside(lung, points)] = -820.0
        if table:
            top, thickness = table
            values[(points[:, 1] > top) & (points[:, 1] < top + thickness)] = 60.0
        return np.maximum(values + noise * texture(points), -1024)

    return scene


def torso_on(grid: Grid) -> np.ndarray:
    return inside(TORSO, voxel_centers(grid)).reshape(grid.shape)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


# --- modality and intensities ---------------------------------------------------------------------


def test_a_ct_is_known_by_its_air_and_an_mr_by_the_lack_of_it() -> None:
    ct = draw(thorax(), GRID)
    mr = draw(lambda p: np.maximum(thorax()(p) + 1000, 0), GRID)
    assert detect_modality(ct) == "ct"
    assert detect_modality(mr) == "mr"
    zoomed = draw(thorax(), centered_grid((30, 30, 30), (1.5, 1.5, 1.5), center=(32.0, 0, 0)))
    assert detect_modality(zoomed) == "ct"


def test_ct_is_clipped_to_the_stated_range_and_not_scaled() -> None:
    grid = centered_grid((8, 8, 8), (1.0, 1.0, 1.0))
    array = np.zeros((8, 8, 8), np.float32)
    array[0, 0, :4] = (-3024.0, -1000.0, 700.0, 30000.0)
    normal = normalize_intensity(Volume(array, grid), "ct")
    assert normal.array[0, 0, :4].tolist() == [-1024.0, -1000.0, 700.0, 1500.0]
    assert background_value(normal, "ct") == -1024.0


def test_mr_is_scaled_by_its_foreground_so_that_gain_and_offset_do_not_matter() -> None:
    image = draw(lambda p: np.maximum(thorax()(p) + 1000, 0), GRID)
    normal = normalize_intensity(image, "mr")
    other = normalize_intensity(Volume(image.array * 3.7 + 55, GRID), "mr")
    np.testing.assert_allclose(other.array, normal.array, atol=0.1)
    assert normal.array.min() == 0
    foreground = image.array > 0.05 * np.percentile(image.array, 99)
    assert np.percentile(normal.array[foreground], 99.5) == pytest.approx(MR_SCALE, rel=1e-3)
    assert normal.array.dtype == np.float32


def test_a_few_bright_voxels_do_not_darken_an_mr() -> None:
    image = draw(lambda p: np.maximum(thorax()(p) + 1000, 0), GRID)
    bright = image.array.copy()
    bright[20, 30, 30:36] = 1e6
    expected = normalize_intensity(image, "mr").array
    found = normalize_intensity(Volume(bright, GRID), "mr").array
    ratio = np.median(found[expected > 500] / expected[expected > 500])
    assert ratio == pytest.approx(1.0, abs=0.02)
    assert found.max() <= 1.5 * MR_SCALE


# --- body mask ------------------------------------------------------------------------------------


def test_the_body_is_the_torso_with_its_lungs() -> None:
    mask = body_mask(draw(thorax(), GRID), "ct")
    assert mask.dtype == bool
    truth = torso_on(GRID)
    assert dice(mask, truth) > 0.99
    assert min(dice(m, t) for m, t in zip(mask, truth, strict=True)) > 0.98  # no slice is worn off
    for lung in LUNGS:
        assert mask[inside(lung, voxel_centers(GRID)).reshape(GRID.shape)].mean() > 0.999


@pytest.mark.parametrize(
    "table", [(58.0, 10.0), (49.0, 5.0)], ids=["thick and apart", "thin and touching"]
)
def test_the_table_does_not_belong_to_the_body(table: tuple[float, float]) -> None:
    volume = draw(thorax(table), GRID)
    mask = body_mask(volume, "ct")
    assert dice(mask, torso_on(GRID)) > 0.97
    far = np.abs(voxel_centers(GRID)[:, 0].reshape(GRID.shape)) > 45
    on_table = (volume.array > -400) & ~torso_on(GRID) & far
    assert on_table.sum() > 1000
    assert mask[on_table].mean() < 0.02


@pytest.mark.parametrize("side", ["left", "right", "front"])
def test_lungs_that_a_crop_cut_open_stay_inside_the_body(side: str) -> None:
    """Their air reaches the border of the image, like the air around the patient elsewhere."""
    center = {"left": (20.0, 0.0, 0.0), "right": (-20.0, 0.0, 0.0), "front": (0.0, 22.0, 0.0)}
    grid = centered_grid((26, 30, 30), (2.5, 2.5, 3.0), center=center[side])
    if side == "front":
        grid = centered_grid((50, 20, 30), (2.5, 2.5, 3.0), center=center[side])
    volume = draw(thorax(), grid)
    lungs = np.zeros(grid.shape, bool)
    for lung in LUNGS:
        lungs |= inside(lung, voxel_centers(grid)).reshape(grid.shape)
    faces = [lungs[:, 0], lungs[:, -1], lungs[:, :, 0], lungs[:, :, -1]]
    assert sum(face.sum() for face in faces) > 100  # really cut open
    mask = body_mask(volume, "ct")
    assert mask[lungs].mean() > 0.97
    assert dice(mask, torso_on(grid)) > 0.95


@pytest.mark.parametrize("spacing", [(2.5, 2.5, 3.0), (1.2, 1.2, 5.0)])
def test_a_chest_wall_of_a_centimeter_keeps_the_lungs_in(spacing: tuple) -> None:
    """Cut through, it would let the air around the patient into the lungs."""
    big = tuple((center, (22.0, 30.0, 55.0)) for center, _ in LUNGS)
    grid = centered_grid(tuple(int(180 / s) for s in spacing), spacing)
    volume = draw(thorax(), grid)
    lungs = np.zeros(grid.voxel_count, bool)
    for lung in big:
        lungs |= inside(lung, voxel_centers(grid))
    volume.array[lungs.reshape(grid.shape)] = -820.0
    mask = body_mask(volume, "ct")
    assert mask[lungs.reshape(grid.shape)].mean() > 0.99
    assert dice(mask, torso_on(grid)) > 0.97


def test_a_fine_image_has_the_same_body_as_a_coarse_one() -> None:
    """It is looked at in steps; sizes that the steps do not divide are no special case."""
    grid = centered_grid((197, 149, 11), (0.8, 0.9, 5.0))
    mask = body_mask(draw(thorax(), grid), "ct")
    assert mask.shape == grid.shape
    assert dice(mask, torso_on(grid)) > 0.975


def test_air_around_the_patient_is_not_body_even_where_an_arm_encloses_some() -> None:
    """A ring of tissue is filled slice by slice; the open air beside it is not."""
    mask = body_mask(draw(thorax(), GRID), "ct")
    outside = ~inside(((0, 0, 0), (76.0, 56.0, 206.0)), voxel_centers(GRID)).reshape(GRID.shape)
    assert not mask[outside].any()


def test_the_body_of_an_mr_is_found_in_noise() -> None:
    random = np.random.default_rng(0)
    image = draw(lambda p: 400.0 * soft_ellipsoid((0, 0, 0), (70, 50, 45))(p), GRID)
    noisy = np.abs(image.array + random.normal(0, 12, GRID.shape)).astype(np.float32)
    truth = inside(((0, 0, 0), (70, 50, 45)), voxel_centers(GRID)).reshape(GRID.shape)
    mask = body_mask(Volume(noisy, GRID), "mr")
    assert mask[truth].mean() > 0.999
    assert mask.sum() < 1.35 * truth.sum()  # the dim edge of the body counts too


def test_without_a_sensible_body_everything_counts() -> None:
    air = Volume(np.full(GRID.shape, -1000, np.float32), GRID)
    assert body_mask(air, "ct").all()


# --- the working grid -----------------------------------------------------------------------------

ACQUISITIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "oblique": OBLIQUE,
    "oblique coronal": OBLIQUE @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


def box_mask(grid: Grid) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    mask[5:30, 8:50, 10:60] = True
    return mask


@pytest.mark.parametrize("direction", ACQUISITIONS.values(), ids=ACQUISITIONS)
@pytest.mark.parametrize("spacing", [1.5, 2.0])
@pytest.mark.parametrize("margin", [0.0, 10.0])
def test_the_working_grid_is_isotropic_covers_the_mask_and_divides_by_sixteen(
    direction: np.ndarray, spacing: float, margin: float
) -> None:
    grid = centered_grid((72, 60, 40), (1.1, 1.3, 2.5), direction, (20.0, -30.0, 500.0))
    mask = box_mask(grid)
    working = working_grid(grid, mask, spacing, margin)
    assert working.spacing == (spacing,) * 3
    assert all(n % 16 == 0 for n in working.size)
    assert working.contains(voxel_centers(grid)[mask.ravel()]).all()
    # no more than the mask, its margin, and the rounding to 16 voxels
    extent = np.abs(working.direction_matrix.T @ grid.direction_matrix) @ (
        np.array((50, 42, 25)) * grid.spacing
    )
    assert (working.extent <= extent + 2 * margin + 16 * spacing + 1e-6).all()


@pytest.mark.parametrize("direction", ACQUISITIONS.values(), ids=ACQUISITIONS)
def test_the_axes_of_the_working_grid_run_near_left_posterior_and_superior(
    direction: np.ndarray,
) -> None:
    grid = centered_grid((72, 60, 40), (1.1, 1.3, 2.5), direction)
    axes = working_grid(grid, box_mask(grid), 2.0, 10.0).direction_matrix
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert (np.diag(axes) > 0.7).all()
    # they are the image's own axes: nothing is turned
    assert (np.abs(axes.T @ direction).max(axis=0) > 1 - 1e-9).all()


def test_any_order_and_sign_of_axes_gives_the_same_working_grid() -> None:
    reference = None
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            direction = OBLIQUE[:, order] * np.array(signs)
            size = np.array((72, 60, 40))[list(order)]
            spacing = np.array((1.1, 1.3, 2.5))[list(order)]
            grid = centered_grid(tuple(map(int, size)), tuple(spacing), direction)
            working = working_grid(grid, np.ones(grid.shape, bool), 2.0, 10.0)
            reference = reference or working
            assert working.is_close(reference, 1e-6)


def test_the_margin_does_not_reach_beyond_the_image_but_for_the_rounding() -> None:
    grid = centered_grid((64, 64, 64), (2.0, 2.0, 2.0))
    whole = working_grid(grid, np.ones(grid.shape, bool), 2.0, 50.0)
    assert whole.is_close(grid, 1e-6)


def test_the_multiple_serves_every_pooling_factor_in_use() -> None:
    grid = centered_grid((72, 60, 40), (1.1, 1.3, 2.5))
    assert _multiple(Settings()) == 16
    paper = _multiple(Settings.preset("paper"))
    assert paper % 6 == 0
    working = working_grid(grid, box_mask(grid), 1.0, 10.0, paper)
    assert all(n % 6 == 0 and n % 16 == 0 for n in working.size)


# --- the pair on the grid -------------------------------------------------------------------------


def prepared_pair(fixed_grid: Grid, moving_grid: Grid, shift: tuple, initial: np.ndarray):
    scene = textured_body(radii=(40.0, 36.0, 38.0))
    fixed, moving = draw(scene, fixed_grid), draw(shifted(scene, shift), moving_grid)
    masks = tuple(body_mask(v, "ct") for v in (fixed, moving))
    prepared = prepare_pair(fixed, moving, initial, 2.0, 10.0, "ct", masks)
    return scene, prepared


@pytest.mark.parametrize("direction", ACQUISITIONS.values(), ids=ACQUISITIONS)
def test_both_images_show_the_same_scene_on_the_working_grid(direction: np.ndarray) -> None:
    """With the true initial transform, whatever the acquisitions."""
    shift = (35.0, -20.0, 12.0)
    initial = np.eye(4)
    initial[:3, 3] = shift
    scene, prepared = prepared_pair(
        centered_grid((64, 64, 50), (2.0, 2.0, 2.5), direction),
        centered_grid((60, 60, 60), (2.2, 2.2, 2.2), OBLIQUE, (30.0, -20.0, 10.0)),
        shift,
        initial,
    )
    truth = scene(voxel_centers(prepared.grid)).reshape(prepared.grid.shape)
    core = truth > -100
    for image, mask, inside_image in (
        (prepared.fixed, prepared.fixed_mask, prepared.fixed_inside),
        (prepared.moving, prepared.moving_mask, prepared.moving_inside),
    ):
        assert image.dtype == torch.float32
        assert mask.dtype == inside_image.dtype == torch.bool
        assert np.abs(image.numpy() - truth)[core].mean() < 14
        assert dice(mask.numpy(), truth > -400) > 0.95
        assert inside_image.numpy()[core].all()


def test_outside_an_image_it_goes_on_as_it_ended_without_trust() -> None:
    scene = textured_body(radii=(40.0, 36.0, 38.0))
    fixed_grid = centered_grid((64, 64, 64), (2.0, 2.0, 2.0))
    short = centered_grid((64, 64, 24), (2.0, 2.0, 2.0))  # +-24 mm along z
    fixed, moving = draw(scene, fixed_grid), draw(scene, short)
    masks = (body_mask(fixed, "ct"), body_mask(moving, "ct"))
    prepared = prepare_pair(fixed, moving, np.eye(4), 2.0, 10.0, "ct", masks)
    z = voxel_centers(prepared.grid)[:, 2].reshape(prepared.grid.shape)
    np.testing.assert_array_equal(prepared.moving_inside.numpy(), np.abs(z) < 24)
    found, last = prepared.moving.numpy(), moving.array[-1]
    outside = found[z[:, 0, 0] > 25]  # an edge there would attract that of the other image
    assert len(outside) > 3
    assert all(np.array_equal(outside[0], slice_) for slice_ in outside)
    assert (np.sort(outside[0].ravel())[-20:] <= last.max()).all()
    assert outside[0].max() > 0.9 * last.max() > 0
    assert prepared.fixed_inside.all()
    free = trusted(prepared, False, False)
    assert torch.equal(free[1], prepared.moving_inside.float())
    masked = trusted(prepared, True, False)
    assert torch.equal(masked[0], (prepared.fixed_inside & prepared.fixed_mask).float())
    assert torch.equal(masked[1], free[1])


def test_detail_finer_than_the_working_grid_is_blurred_away_not_folded_down() -> None:
    """A wave of 2.5 mm on 0.5 mm voxels would appear as a long wave on a 4 mm grid."""
    grid = centered_grid((96, 96, 96), (0.5, 0.5, 0.5))
    slow = waves(5, shortest=30.0, longest=60.0)

    def scene(points: np.ndarray) -> np.ndarray:
        return 100 * slow(points) + 300 * np.sin(2 * np.pi * points[:, 0] / 2.5 + 0.4)

    volume = draw(scene, grid)
    mask = np.ones(grid.shape, bool)
    prepared = prepare_pair(volume, volume, np.eye(4), 4.0, 0.0, "ct", (mask, mask), 4)
    truth = 100 * slow(voxel_centers(prepared.grid)).reshape(prepared.grid.shape)
    core = (slice(2, -2),) * 3
    assert np.abs(prepared.fixed.numpy() - truth)[core].max() < 30
    assert np.corrcoef(prepared.fixed.numpy()[core].ravel(), truth[core].ravel())[0, 1] > 0.99


def test_an_image_coarser_than_the_working_grid_is_not_blurred() -> None:
    grid = centered_grid((24, 24, 24), (4.0, 4.0, 4.0))
    volume = draw(lambda p: 200 * waves(5)(p), grid)
    mask = np.ones(grid.shape, bool)
    prepared = prepare_pair(volume, volume, np.eye(4), 4.0, 0.0, "ct", (mask, mask), 8)
    assert prepared.grid.is_close(grid)
    np.testing.assert_allclose(prepared.fixed.numpy(), volume.array, atol=1e-2)


def test_a_pair_that_hardly_overlaps_is_refused_with_the_share() -> None:
    initial = np.eye(4)
    initial[:3, 3] = (70.0, 60.0, 60.0)
    with pytest.raises(InputError, match=r"overlap in only \d+\.\d % of the fixed body"):
        prepared_pair(
            centered_grid((64, 64, 64), (2.0, 2.0, 2.0)),
            centered_grid((64, 64, 64), (2.0, 2.0, 2.0)),
            (0.0, 0.0, 0.0),
            initial,
        )
