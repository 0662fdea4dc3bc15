"""The uncertainty: where it must grow, what it may never be, and that it predicts errors."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_scenes import centered_grid, draw, shifted, waves
from scipy.stats import spearmanr

from GlideRegLib import confidence
from GlideRegLib.confidence import (
    COVERAGE,
    SMALLEST_MM,
    UNKNOWN_MM,
    estimate_uncertainty,
    expected_error,
    gather_evidence,
    sample_uncertainty,
    summarize_uncertainty,
)
from GlideRegLib.errors import Cancelled, InputError
from GlideRegLib.features.pyramid import FeaturePyramid
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.optimize.energy import FeaturePair
from GlideRegLib.pipeline import register
from GlideRegLib.prepare import Prepared
from GlideRegLib.result import Result
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import FeatureSettings, Settings, with_changes
from GlideRegLib.volume import Volume

GRID = centered_grid((64, 64, 64), (2.0, 2.0, 2.0))
SHIFT = np.array([4.0, -2.0, 2.0])
TRUTH = DisplacementField(torch.tensor(SHIFT).float().view(3, 1, 1, 1).expand(3, 64, 64, 64), GRID)


def textured(shift: np.ndarray, noise: float, seed: int, flat: np.ndarray | None = None) -> Volume:
    """Band-limited texture of 100 HU with independent noise, and without texture in ``flat``."""
    array = 100 * draw(shifted(waves(0, shortest=14.0), shift), GRID).array
    if flat is not None:
        array = np.where(flat, 0, array)
    grain = np.random.default_rng(seed).standard_normal(GRID.shape)
    return Volume((array + noise * grain).astype(np.float32), GRID)


def pyramid_of(fixed: Volume, moving: Volume, moving_inside: np.ndarray | None = None):
    """The features of a pair that is already on its working grid."""
    everywhere = torch.ones(GRID.shape, dtype=torch.bool)
    inside = everywhere if moving_inside is None else torch.from_numpy(moving_inside)
    images = [torch.from_numpy(v.array) for v in (fixed, moving)]
    masks = (everywhere, everywhere, everywhere, inside)
    prepared = Prepared(*images, *masks, GRID, np.eye(4), "ct")
    trust = (everywhere.float(), inside.float())
    return FeaturePyramid(prepared, trust, FeatureSettings(encoder="none"), None)


def uncertainty_of(field: DisplacementField = TRUTH, **images: object) -> Volume:
    noise, flat, inside = (images.get(k) for k in ("noise", "flat", "inside"))
    moved_flat = None
    if flat is not None:  # the hole moves along, as everything does
        steps = (SHIFT / GRID.spacing).astype(int)
        moved_flat = np.roll(flat, steps[::-1], axis=(0, 1, 2))
    fixed = textured(np.zeros(3), noise or 5.0, 1, flat)
    moving = textured(SHIFT, noise or 5.0, 2, moved_flat)
    return estimate_uncertainty(pyramid_of(fixed, moving, inside), field)


def inner(values: np.ndarray) -> np.ndarray:
    return values[3:-3, 3:-3, 3:-3]


# --- where it grows -------------------------------------------------------------------------------


def test_it_grows_with_the_noise() -> None:
    levels = [float(np.median(inner(uncertainty_of(noise=n).array))) for n in (2.0, 40.0, 160.0)]
    assert levels[0] < 0.9 * levels[1]
    assert 3 * levels[1] < levels[2]


def test_it_is_larger_where_the_texture_was_removed() -> None:
    z, y, x = np.indices(GRID.shape) - 32
    ball = x**2 + y**2 + z**2 < 18**2
    found = uncertainty_of(flat=ball, noise=10.0)
    index = found.grid.to_index(np.zeros((1, 3)))[0].round().astype(int)
    cx, cy, cz = index
    center = found.array[cz - 1 : cz + 2, cy - 1 : cy + 2, cx - 1 : cx + 2].mean()
    whole = uncertainty_of(noise=10.0).array
    assert center > 3 * whole[cz - 1 : cz + 2, cy - 1 : cy + 2, cx - 1 : cx + 2].mean()


def test_it_is_larger_for_a_wrong_field_than_for_the_true_one() -> None:
    wrong = DisplacementField(TRUTH.vectors + 7.0, GRID)
    right, off = (inner(uncertainty_of(f).array) for f in (TRUTH, wrong))
    assert np.median(off) > 2 * np.median(right)


def test_it_is_larger_where_the_field_bends() -> None:
    waves_ = 3 * torch.sin(torch.arange(64) / 3.0).view(1, -1, 1, 1) * torch.ones(3, 64, 64, 64)
    assert np.median(uncertainty_of(DisplacementField(TRUTH.vectors + waves_, GRID)).array) > (
        2 * np.median(uncertainty_of().array)
    )


def test_out_of_view_it_is_unknown_and_grows_towards_there() -> None:
    inside = np.ones(GRID.shape, dtype=bool)
    inside[:24] = False
    found = uncertainty_of(inside=inside).array
    rows = found[:, 4:-4, 4:-4].mean(axis=(1, 2))
    assert rows[:4] == pytest.approx(UNKNOWN_MM, rel=1e-3)
    assert rows[-5:].max() < 3.0
    assert (np.diff(rows[3:9]) < 1e-3).all()


def test_beyond_the_moving_grid_it_is_unknown() -> None:
    away = DisplacementField(TRUTH.vectors + torch.tensor([300.0, 0, 0]).view(3, 1, 1, 1), GRID)
    assert uncertainty_of(away).array == pytest.approx(UNKNOWN_MM, rel=1e-3)


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_images_that_say_nothing_give_large_finite_numbers(value: float) -> None:
    flat = Volume(np.full(GRID.shape, value, np.float32), GRID)
    found = estimate_uncertainty(pyramid_of(flat, flat), DisplacementField.zeros(GRID))
    assert found.array.dtype == np.float32
    assert np.isfinite(found.array).all()
    assert found.array.min() > 2.0
    assert found.array.max() <= UNKNOWN_MM * 1.001


def test_it_stays_between_its_limits() -> None:
    found = uncertainty_of().array
    assert found.min() >= SMALLEST_MM * 0.999
    assert found.max() <= UNKNOWN_MM * 1.001


def test_the_evidence_equals_its_literal_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = FeaturePair(*(torch.rand(4, 9, 10, 11, generator=generator) for _ in range(2)))
    seen = torch.ones(9, 10, 11)
    found = gather_evidence(pair, torch.zeros(3, 9, 10, 11), (seen, seen), 5.0)
    tensor, costs = _literal(pair)
    looseness = np.sqrt(np.trace(np.linalg.inv(tensor), axis1=-2, axis2=-1))
    np.testing.assert_allclose(found.looseness.numpy(), looseness, rtol=1e-3)
    rivalry = (costs[13] - costs.min(axis=0)) / (costs[13] + 0.05)
    expected = confidence.box_filter(torch.from_numpy(rivalry), 2).numpy()
    np.testing.assert_allclose(found.rivalry.numpy(), expected, atol=1e-5)
    assert not found.bending.any()


def _literal(pair: FeaturePair) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed structure tensors (Z, Y, X, 3, 3), and the costs of 27 shifts, by slicing."""
    fixed, moving = pair.fixed.double().numpy(), pair.moving.double().numpy()
    padded = np.pad((fixed + moving) / 2, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge")
    slopes = [np.gradient(padded, axis=axis)[:, 1:-1, 1:-1, 1:-1] for axis in (3, 2, 1)]
    products = np.array([[(a * b).sum(axis=0) for b in slopes] for a in slopes])
    products += 1e-3 * np.eye(3)[:, :, None, None, None]
    smooth = confidence.box_filter(torch.from_numpy(products), 4).numpy()
    padded = np.pad(moving, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge")
    costs = []
    for z, y, x in itertools.product(range(3), repeat=3):
        part = padded[:, z : z + 9, y : y + 10, x : x + 11]
        costs.append(confidence.box_filter(torch.from_numpy(((part - fixed) ** 2).sum(axis=0))))
    return np.moveaxis(smooth, (0, 1), (-2, -1)), np.stack(costs)


def test_it_is_deterministic() -> None:
    assert np.array_equal(uncertainty_of().array, uncertainty_of().array)


def test_it_can_be_cancelled() -> None:
    fixed = textured(np.zeros(3), 5.0, 1)
    calls = iter([None] * 3)

    def check() -> None:
        if next(calls, "stop") == "stop":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        estimate_uncertainty(pyramid_of(fixed, fixed), TRUTH, check)


def test_the_inputs_are_not_modified() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = FeaturePair(*(torch.rand(4, 9, 10, 11, generator=generator) for _ in range(2)))
    u, trust = torch.rand(3, 9, 10, 11, generator=generator), torch.ones(9, 10, 11)
    before = [t.clone() for t in (pair.fixed, pair.moving, u, trust)]
    expected_error(gather_evidence(pair, u, (trust, trust), 5.0))
    for old, new in zip(before, (pair.fixed, pair.moving, u, trust), strict=True):
        assert torch.equal(old, new)


# --- at points, and in files ----------------------------------------------------------------------


def ramp() -> Volume:
    """x / 10 mm at LPS x, on a grid whose axes do not run along L, P, S."""
    grid = Grid((6, 7, 8), (8.0,) * 3, (40.0, 0.0, 10.0), (0, 1, 0, -1, 0, 0, 0, 0, 1))
    centers = grid.to_physical(grid.index_tensor().reshape(3, -1).T.numpy())
    return Volume((centers[:, 0] / 10).reshape(grid.shape).astype(np.float32), grid)


def test_between_voxels_it_is_linear_and_outside_unknown() -> None:
    volume = ramp()
    corners = volume.grid.corners()
    points = np.array([0.37, 0.5, 0.62])[:, None] * (corners[-1] - corners[0]) + corners[0]
    np.testing.assert_allclose(sample_uncertainty(volume, points), points[:, 0] / 10, rtol=1e-5)
    assert sample_uncertainty(volume, [[1000.0, 0, 0]]).tolist() == [UNKNOWN_MM]
    assert sample_uncertainty(volume, np.zeros((0, 3))).shape == (0,)


def test_the_summary_counts_what_is_doubtful() -> None:
    volume = replace(ramp(), array=np.where(ramp().array > 6.0, 3.0, 1.0).astype(np.float32))
    points = volume.grid.to_physical(volume.grid.index_tensor().reshape(3, -1).T.numpy())
    summary = summarize_uncertainty(volume, points)
    share = 100 * float((volume.array > 2).mean())
    assert 0 < share < 100
    assert summary["above_2_mm_percent"] == pytest.approx(share)
    assert min(abs(summary["median"] - v) for v in (1.0, 3.0)) < 1e-6
    assert summary["p95"] == pytest.approx(3.0)


def result_of(pair: PhantomPair, **changes: object) -> Result:
    quick = {"features": {"encoder": "none"}, "grid": {"spacing_mm": 4.0}, "threads": 1}
    settings = with_changes(Settings.preset("fast"), **quick, **changes)
    return register(pair.fixed, pair.moving, settings)


@pytest.fixture(scope="module")
def run(small_pair: PhantomPair) -> Result:
    return result_of(small_pair)


def test_it_predicts_the_true_error_on_the_phantom(run: Result, small_pair: PhantomPair) -> None:
    points = run._body_points(5000)
    truth = points + small_pair.field.sample(points)
    errors = np.linalg.norm(run.transform_points(points) - truth, axis=1)
    expected = run.uncertainty_at(points)
    # A single error is a draw around what was expected; the means of many must follow it.
    assert spearmanr(errors, expected).statistic > 0.4
    fifths = [errors[part].mean() for part in np.array_split(np.argsort(expected), 5)]
    assert all(np.diff(fifths) > 0)
    assert fifths[-1] > 3 * fifths[0]
    for level in (90, 95):
        assert 100 * np.mean(errors <= COVERAGE[level] * expected) > level - 12
    assert 0.5 < errors.mean() / expected.mean() < 2.0


def test_the_result_has_it_and_its_summary(run: Result) -> None:
    assert run.uncertainty.grid.spacing == pytest.approx((16.0,) * 3)
    summary = run.report["quality"]["uncertainty_mm"]
    assert 0 < summary["median"] < summary["p95"] < UNKNOWN_MM


def test_the_file_holds_the_same(run: Result, small_pair: PhantomPair, tmp_path: Path) -> None:
    run.save(tmp_path, small_pair.moving)
    image = sitk.ReadImage(str(tmp_path / "uncertainty.nii.gz"))
    written = Volume.from_sitk(image)
    assert written.grid.is_close(run.uncertainty.grid)
    assert np.abs(written.array - run.uncertainty.array).max() < 0.01


def test_it_can_be_switched_off(small_pair: PhantomPair, tmp_path: Path) -> None:
    result = result_of(small_pair, confidence=False)
    assert result.uncertainty is None
    assert "uncertainty_mm" not in result.report["quality"]
    result.save(tmp_path, small_pair.moving)
    assert not (tmp_path / "uncertainty.nii.gz").exists()
    with pytest.raises(InputError, match="no uncertainty"):
        result.uncertainty_at(np.zeros((1, 3)))


def test_it_does_not_change_the_field(run: Result, small_pair: PhantomPair) -> None:
    assert torch.equal(run.field.vectors, result_of(small_pair, confidence=False).field.vectors)
