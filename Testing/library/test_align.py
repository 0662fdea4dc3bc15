"""Initial alignment on synthetic bodies: large offsets, turns, fields of view, and restraint."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from known_scenes import Moved, Scene, centered_grid, draw, rotation, shifted, waves

from GlideRegLib.align import _is_plausible, _Scorer, _starts, initial_alignment
from GlideRegLib.errors import Cancelled
from GlideRegLib.geometry import Grid, transform_points
from GlideRegLib.prepare import body_mask, normalize_intensity
from GlideRegLib.progress import Progress
from GlideRegLib.volume import Volume

GRID = centered_grid((60, 52, 50), (4.0, 4.0, 4.0))


def thorax(lung_hu: float = -820.0) -> Scene:
    """HU: an asymmetric torso with two unequal lungs, a heart and a spine."""
    texture = waves(4, shortest=20.0, longest=50.0)
    parts = (
        ((0, 0, 0), (85, 62, 160), 40.0),
        ((-40, -5, 5), (26, 38, 62), lung_hu),
        ((38, -5, 0), (28, 38, 70), lung_hu),
        ((10, -20, -20), (24, 20, 28), 90.0),
        ((0, 45, 0), (14, 12, 300), 400.0),
        ((-35, 0, -75), (40, 40, 35), 120.0),
    )

    def scene(points: np.ndarray) -> np.ndarray:
        values = np.full(len(points), -1000.0)
        for center, radii, value in parts:
            r = (((points - np.array(center)) / np.array(radii)) ** 2).sum(axis=1)
            values[r < 1] = value
        return values + 25 * texture(points)

    return scene


def align(
    fixed: Volume, moving: Volume, modality: str = "ct", progress: Progress | None = None
) -> tuple[np.ndarray, str]:
    pair = [normalize_intensity(v, modality) for v in (fixed, moving)]
    masks = tuple(body_mask(v, modality) for v in pair)
    return initial_alignment(*pair, masks, modality, progress or Progress())


def body_points(count: int = 300) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.uniform((-60, -45, -70), (60, 45, 70), (count, 3))


def error_mm(matrix: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance between two affine maps over the body."""
    points = body_points()
    difference = transform_points(matrix, points) - transform_points(truth, points)
    return float(np.linalg.norm(difference, axis=1).mean())


def shift_by(*mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return matrix


def moved_by(matrix: np.ndarray, scene: Scene) -> Scene:
    """The scene after p -> matrix p."""
    inverse = np.linalg.inv(matrix)
    return Moved(scene, lambda points: transform_points(inverse, points))


def test_a_table_offset_of_35_mm_is_found() -> None:
    truth = shift_by(8.0, -10.0, 33.0)
    moving_grid = centered_grid((60, 52, 50), (4.0, 4.0, 4.0), center=(5.0, -5.0, 20.0))
    matrix, name = align(draw(thorax(), GRID), draw(shifted(thorax(), truth[:3, 3]), moving_grid))
    assert error_mm(np.eye(4), truth) > 35
    assert error_mm(matrix, truth) < 2.0
    assert name != "as is"


@pytest.mark.parametrize("degrees", [(0.0, 0.0, 10.0), (8.0, 0.0, 0.0), (0.0, -7.0, 5.0)])
def test_a_small_rotation_with_an_offset_is_found(degrees: tuple) -> None:
    truth = shift_by(12.0, 6.0, -15.0)
    truth[:3, :3] = rotation(degrees)
    matrix, _ = align(draw(thorax(), GRID), draw(moved_by(truth, thorax()), GRID))
    assert error_mm(matrix, truth) < 2.5


def test_another_patient_frame_and_grid_is_no_obstacle() -> None:
    """Another study: origin far away, oblique coronal slices, other spacing."""
    truth = shift_by(-250.0, 130.0, 900.0)
    direction = rotation((5.0, 0.0, 0.0)) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    grid = centered_grid((52, 50, 42), (4.5, 4.0, 5.0), direction, (-245.0, 125.0, 905.0))
    matrix, _ = align(draw(thorax(), GRID), draw(moved_by(truth, thorax()), grid))
    assert error_mm(matrix, truth) < 3.0


def test_a_shorter_field_of_view_along_the_body_is_no_obstacle() -> None:
    """The moving image shows the upper two thirds only: the centers of the images mislead."""
    truth = shift_by(0.0, 5.0, 12.0)
    short = Grid((60, 52, 33), GRID.spacing, tuple(GRID.to_physical(np.array([[0, 0, 17.0]]))[0]))
    matrix, _ = align(draw(thorax(), GRID), draw(shifted(thorax(), truth[:3, 3]), short))
    assert error_mm(matrix, truth) < 3.0


def test_a_breath_that_scales_the_body_is_followed_by_the_affine_part() -> None:
    truth = np.diag([1.04, 0.95, 1.08, 1.0])
    matrix, name = align(draw(thorax(), GRID), draw(moved_by(truth, thorax(-870.0)), GRID))
    assert error_mm(matrix, truth) < 0.5 * error_mm(np.eye(4), truth)
    assert "affine" in name


def test_images_that_agree_are_left_as_they_are() -> None:
    fixed = draw(thorax(), GRID)
    matrix, name = align(fixed, fixed)
    np.testing.assert_array_equal(matrix, np.eye(4))
    assert name == "as is"


def test_noise_alone_hardly_moves_images_that_agree() -> None:
    random = np.random.default_rng(0)
    fixed, moving = (
        Volume(
            draw(thorax(), GRID).array + random.normal(0, 40, GRID.shape).astype(np.float32), GRID
        )
        for _ in range(2)
    )
    matrix, _ = align(fixed, moving)
    assert error_mm(matrix, np.eye(4)) < 1.0


def test_mr_is_aligned_without_lungs() -> None:
    truth = shift_by(15.0, -8.0, 20.0)
    mr = thorax(-950.0)
    fixed = draw(lambda p: np.maximum(mr(p) + 1000, 0) * 0.5, GRID)
    moving = draw(lambda p: np.maximum(shifted(mr, truth[:3, 3])(p) + 1000, 0) * 1.3, GRID)
    matrix, _ = align(fixed, moving, "mr")
    assert error_mm(matrix, truth) < 2.5


def test_the_alignment_can_be_repeated_bit_by_bit_whatever_the_threads_of_simpleitk() -> None:
    truth = shift_by(20.0, 5.0, -12.0)
    fixed, moving = draw(thorax(), GRID), draw(shifted(thorax(), truth[:3, 3]), GRID)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 4):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(align(fixed, moving)[0])
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(found[0], found[1])


def test_the_score_is_highest_at_the_truth() -> None:
    truth = shift_by(12.0, 0.0, 0.0)
    pair = [draw(thorax(), GRID), draw(shifted(thorax(), truth[:3, 3]), GRID)]
    masks = tuple(body_mask(v, "ct") for v in pair)
    scorer = _Scorer(*pair, masks, 6.0)
    scores = [scorer.score(shift_by(x, 0.0, 0.0)) for x in (-12.0, 0.0, 6.0, 12.0, 18.0, 24.0)]
    assert int(np.argmax(scores)) == 3
    assert scorer.score(shift_by(500.0, 0.0, 0.0)) == 0.0


def test_the_starts_bring_centers_onto_centers() -> None:
    """Images, bodies and lungs, each with its own offset between fixed and moving."""
    fixed = draw(thorax(), GRID)
    shift = np.array((14.0, -6.0, 11.0))
    moving = draw(
        shifted(thorax(), shift), centered_grid((60, 52, 50), (4, 4, 4), center=(9, 3, 5))
    )
    masks = tuple(body_mask(v, "ct") for v in (fixed, moving))
    starts = _starts(fixed, moving, masks, "ct")
    np.testing.assert_array_equal(starts["as is"], np.eye(4))
    np.testing.assert_allclose(starts["image centers"][:3, 3], (9, 3, 5), atol=1e-9)
    # the body is cut at the ends of the images along z: only its x and y follow the shift
    np.testing.assert_allclose(starts["body centroids"][:2, 3], shift[:2], atol=1.0)
    np.testing.assert_allclose(starts["lung centroids"][:3, 3], shift, atol=1.5)
    assert "lung centroids" not in _starts(fixed, moving, masks, "mr")


def test_mirrors_and_wild_scales_are_not_plausible() -> None:
    assert _is_plausible(shift_by(300.0, 0.0, 0.0))
    assert _is_plausible(np.diag([1.2, 0.85, 1.1, 1.0]))
    assert not _is_plausible(np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert not _is_plausible(np.diag([1.5, 1.0, 1.0, 1.0]))
    assert not _is_plausible(np.diag([1.0, 0.6, 1.0, 1.0]))


def test_a_wish_to_cancel_is_heard_between_the_starts() -> None:
    fixed = draw(thorax(), GRID)
    calls = []

    def should_cancel() -> bool:
        calls.append(1)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        align(fixed, fixed, progress=Progress(should_cancel=should_cancel))
