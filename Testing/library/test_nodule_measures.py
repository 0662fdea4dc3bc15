"""Measures of nodules against analytic bodies, and growth against its formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from analytic_nodules import CENTER, LUNG, TISSUE, ellipsoid, rendered

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import Grid
from GlideRegLib.sample_data.nodule_phantom import NodulePair
from GlideRegLib.tracking.growth import REFERENCE_THRESHOLDS, THRESHOLDS_VERSION, growth
from GlideRegLib.tracking.measures import Measurement, _caliper, measure
from GlideRegLib.volume import Volume

HALF = (LUNG + TISSUE) / 2


def mask_of(volume: Volume) -> np.ndarray:
    return volume.array > HALF


# --- analytic bodies --------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.0), (0.8, 0.8, 2.5), (1.5, 1.5, 1.5)])
@pytest.mark.parametrize("diameter", [6.0, 10.0, 18.0])
@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_sphere(spacing: tuple[float, float, float], diameter: float, blur: float) -> None:
    volume = rendered(ellipsoid((diameter / 2,) * 3), spacing, diameter + 24, blur=blur)
    found = measure(volume, mask_of(volume))
    true = math.pi / 6 * diameter**3
    assert found.volume_mm3 == pytest.approx(true, rel=0.05)
    assert found.equivalent_diameter_mm == pytest.approx(diameter, rel=0.02)
    # Within half a voxel, where whole voxels would be off by one.
    tolerance = 0.3 + 0.25 * max(spacing)
    assert found.long_diameter_mm == pytest.approx(diameter, abs=tolerance)
    assert found.short_diameter_mm == pytest.approx(diameter, abs=tolerance)
    assert found.short_diameter_mm <= found.long_diameter_mm
    assert np.allclose(found.centroid, np.add(CENTER, (0.3, -0.2, 0.4)), rtol=0, atol=0.15)
    assert found.slice_thickness_mm == spacing[2]
    assert found.partial_volume


def test_partial_volume_beats_counting_voxels() -> None:
    """Six mm in 1.5 mm voxels, at eight places: counting scatters, shares do not."""
    true, by_share, by_count = math.pi / 6 * 6**3, [], []
    for place in range(8):
        offset = tuple(np.random.default_rng(place).uniform(-0.7, 0.7, 3))
        volume = rendered(ellipsoid((3, 3, 3), offset), (1.5, 1.5, 1.5), 30)
        found = measure(volume, mask_of(volume))
        by_share.append(found.volume_mm3 / true - 1)
        by_count.append(found.voxels * 1.5**3 / true - 1)
    assert np.abs(by_share).max() < 0.05
    assert np.abs(by_count).max() > 2 * np.abs(by_share).max()


def test_long_and_short_diameter_of_an_ellipsoid_are_axial() -> None:
    """The longest axis of this body runs from feet to head: no axial slice shows it."""
    volume = rendered(ellipsoid((7, 4.5, 10)), (0.7, 0.7, 1.0), 44)
    found = measure(volume, mask_of(volume))
    assert found.long_diameter_mm == pytest.approx(14, abs=0.4)
    assert found.short_diameter_mm == pytest.approx(9, abs=0.4)
    assert found.mean_diameter_mm == pytest.approx(11.5, abs=0.4)
    assert found.equivalent_diameter_mm == pytest.approx(2 * (7 * 4.5 * 10) ** (1 / 3), rel=0.02)


def test_axial_slices_are_found_in_a_volume_of_coronal_slices() -> None:
    # Index z runs to the back, index y to the feet: as a coronal series is stored.
    direction = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    volume = rendered(ellipsoid((7, 4.5, 10)), (0.7, 1.2, 0.7), 44, direction=direction)
    found = measure(volume, mask_of(volume))
    assert found.long_diameter_mm == pytest.approx(14, abs=0.4)
    assert found.short_diameter_mm == pytest.approx(9, abs=0.4)
    assert found.slice_thickness_mm == 1.2


def test_oblique_volume() -> None:
    angle = np.radians(20)
    cos, sin = np.cos(angle), np.sin(angle)
    direction = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    volume = rendered(ellipsoid((7, 4.5, 5)), (0.7, 0.7, 1.0), 44, direction=direction)
    found = measure(volume, mask_of(volume))
    assert found.long_diameter_mm == pytest.approx(14, abs=0.4)
    assert found.short_diameter_mm == pytest.approx(9, abs=0.4)
    assert np.allclose(found.centroid, np.add(CENTER, (0.3, -0.2, 0.4)), rtol=0, atol=0.15)


def test_density_and_mass() -> None:
    volume = rendered(ellipsoid((6, 6, 6)), (1.0, 1.0, 1.0), 40, tissue=60.0)
    found = measure(volume, mask_of(volume))
    assert found.mean_hu == pytest.approx(60, abs=4)  # the surface's mixtures are left out
    assert found.mass_mg == pytest.approx(4 / 3 * math.pi * 6**3 * 1.06, rel=0.03)


def test_a_border_to_other_tissue_is_the_mask_s() -> None:
    """Half a sphere is marked of a whole one: what was not marked is not added."""
    volume = rendered(ellipsoid((8, 8, 8), (0, 0, 0)), (1.0, 1.0, 1.0), 40)
    mask = mask_of(volume)
    mask[: mask.shape[0] // 2] = False
    found = measure(volume, mask)
    assert found.volume_mm3 == pytest.approx(2 / 3 * math.pi * 8**3, rel=0.06)


def test_without_contrast_voxels_are_counted() -> None:
    volume = rendered(ellipsoid((6, 6, 6)), (1.0, 1.0, 1.0), 40)
    mask = mask_of(volume)
    flat = Volume(np.full_like(volume.array, 40.0), volume.grid)
    found = measure(flat, mask)
    assert not found.partial_volume
    assert found.volume_mm3 == pytest.approx(mask.sum())


def test_single_voxel() -> None:
    array = np.full((9, 9, 9), -850, np.float32)
    array[4, 4, 4] = 0
    grid = Grid((9, 9, 9), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    found = measure(Volume(array, grid), array > -400)
    assert found.voxels == 1
    assert found.volume_mm3 == pytest.approx(8, rel=0.05)
    assert found.centroid == pytest.approx((8, 8, 8), abs=0.1)
    assert 0 < found.short_diameter_mm <= found.long_diameter_mm < 4


# --- masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxels", [1, 2])
def test_a_slice_that_is_half_full_in_one_or_two_voxels_changes_no_diameter(voxels: int) -> None:
    """Its contour is a point or a line: HU -410 is exactly half way from lung to nodule."""
    grid = Grid((20, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    image, mask = np.full(grid.shape, -860, np.float32), np.zeros(grid.shape, np.uint8)
    mask[6:13, 6:13, 6:13] = 1
    image[mask > 0] = 40
    before = measure(Volume(image, grid), mask)
    mask[13, 9, 9 : 9 + voxels] = 1
    image[13, 9, 9 : 9 + voxels] = -410
    after = measure(Volume(image, grid), mask)
    assert after.mean_diameter_mm == before.mean_diameter_mm
    assert after.volume_mm3 > before.volume_mm3


def test_a_contour_without_area_has_a_length_and_no_width() -> None:
    line = np.array([[1.0, 1.0], [1.0, 3.0], [1.0, 2.0]])
    assert _caliper(line, 0.5 * np.eye(3)[:2]) == pytest.approx((1.0, 0.0))
    assert _caliper(line[:1], np.eye(3)[:2]) == (0.0, 0.0)


def test_cropped_mask_measures_the_same() -> None:
    volume = rendered(ellipsoid((5, 4, 6)), (0.8, 0.8, 1.2), 40)
    mask = mask_of(volume).astype(np.uint8)
    low, high = (11, 12, 9), (10, 9, 8)  # x y z voxels taken away before and behind
    grid = volume.grid.padded(tuple(-n for n in low), tuple(-n for n in high))
    box = tuple(slice(a, -b) for a, b in zip(low[::-1], high[::-1], strict=True))
    assert mask[box].sum() == mask.sum()
    whole = measure(volume, mask)
    assert measure(volume, Volume(mask[box], grid)) == whole
    assert measure(volume, Volume(mask, volume.grid)) == whole


def test_inputs_stay_as_they_are() -> None:
    volume = rendered(ellipsoid((5, 4, 6)), (1.0, 1.0, 1.0), 40)
    mask = mask_of(volume)
    before = volume.array.copy(), mask.copy()
    measure(volume, mask)
    assert np.array_equal(volume.array, before[0])
    assert np.array_equal(mask, before[1])


def test_masks_that_do_not_fit_are_refused() -> None:
    volume = rendered(ellipsoid((5, 5, 5)), (1.0, 1.0, 1.0), 30)
    mask = mask_of(volume).astype(np.uint8)
    with pytest.raises(InputError, match="no voxel"):
        measure(volume, np.zeros_like(mask))
    with pytest.raises(InputError, match="shape"):
        measure(volume, mask[1:])
    shifted = replace(volume.grid, origin=tuple(np.add(volume.grid.origin, 0.4)))
    with pytest.raises(InputError, match="resample"):
        measure(volume, Volume(mask, shifted))
    outside = replace(volume.grid, origin=tuple(np.add(volume.grid.origin, 3.0)))
    with pytest.raises(InputError, match="resample"):
        measure(volume, Volume(mask, outside))


def test_phantom_volumes_from_its_own_masks(nodule_pair: NodulePair) -> None:
    """Nodules with lung all around, 6 to 21 mm: exact masks give volumes within 8 %."""
    for side in ("fixed", "moving"):
        labels = getattr(nodule_pair, f"{side}_nodule_labels")
        for nodule in nodule_pair.nodules:
            true = getattr(nodule, f"{side}_volume_mm3")
            if true is None or nodule.kind != "solid" or nodule.diameter_mm(side) < 5.9:
                continue
            mask = labels.array == nodule.number
            assert measure(getattr(nodule_pair, side), mask).volume_mm3 == pytest.approx(
                true, rel=0.08
            ), nodule


# --- growth -----------------------------------------------------------------------------------


def measurement(volume: float, diameter: float = 10.0, slices: float = 1.0) -> Measurement:
    return Measurement(
        volume, diameter, diameter, diameter, diameter, 0.0, volume, 99, (0.0, 0.0, 0.0), slices
    )


def test_growth_follows_its_formulas() -> None:
    found = growth(measurement(500), measurement(1000, 12.6), 100)
    assert found.volume_change_percent == pytest.approx(100)
    assert found.mean_diameter_change_mm == pytest.approx(2.6)
    assert found.doubling_time_days == pytest.approx(100)
    # 25 % error of both volumes: from x 2 * 1.25 / 0.75 to x 2 * 0.75 / 1.25.
    fastest, slowest = found.doubling_time_range_days
    assert fastest == pytest.approx(100 * math.log(2) / math.log(10 / 3))
    assert slowest == pytest.approx(100 * math.log(2) / math.log(1.2))
    assert found.greyed == () and found.flags == ()


def test_slow_growth_may_never_double_and_shrinking_is_negative() -> None:
    slow = growth(measurement(500), measurement(650), 200)
    assert slow.doubling_time_range_days[0] > 0
    assert slow.doubling_time_range_days[1] is None
    shrunk = growth(measurement(1000), measurement(500), 100)
    assert shrunk.doubling_time_days == pytest.approx(-100)
    assert shrunk.doubling_time_range_days == (None, None)
    same = growth(measurement(500), measurement(500), 100)
    assert same.doubling_time_days is None
    undated = growth(measurement(500), measurement(700), None)
    assert undated.doubling_time_days is None and undated.doubling_time_range_days is None
    assert undated.volume_change_percent == pytest.approx(40)


def test_reference_thresholds_are_off_until_asked_for() -> None:
    pair = measurement(500, 9.0), measurement(700, 11.0)
    assert growth(*pair, 300).flags == ()
    flags = growth(*pair, 300, reference_thresholds=True).flags
    assert [flag.name for flag in flags] == [t.name for t in REFERENCE_THRESHOLDS]
    assert all(flag.reached and not flag.greyed for flag in flags)
    assert {flag.version for flag in flags} == {THRESHOLDS_VERSION}
    assert all(flag.source and flag.text for flag in flags)


@pytest.mark.parametrize(
    ("volumes", "diameters", "expected"),
    [
        ((400, 500), (9, 9.5), (True, False, False)),  # exactly +25 %
        ((400, 499), (9, 11), (False, True, True)),  # exactly +2 mm
        ((400, 401), (9, 10.5), (False, False, False)),  # exactly +1.5 mm is not more than it
        ((400, 401), (9, 10.6), (False, False, True)),
    ],
)
def test_thresholds_hold_at_their_limits(volumes: tuple, diameters: tuple, expected: tuple) -> None:
    earlier, later = (measurement(*m) for m in zip(volumes, diameters, strict=True))
    flags = growth(earlier, later, 180, reference_thresholds=True).flags
    assert tuple(flag.reached for flag in flags) == expected


def test_twelve_months_are_twelve_months() -> None:
    pair = measurement(500, 9.0), measurement(900, 11.0)
    late = growth(*pair, 500, reference_thresholds=True).flags[2]
    assert late.reached is None and "12 months" in late.greyed[-1]
    undated = growth(*pair, None, reference_thresholds=True).flags[2]
    assert undated.reached is None and "not known" in undated.greyed[-1]


def test_reasons_for_reserve() -> None:
    found = growth(measurement(90, 5.5, 2.5), measurement(100, 6.5), 90, reference_thresholds=True)
    text = " / ".join(found.greyed)
    assert len(found.greyed) == 3
    assert "2.5 mm" in text and "5.5 mm" in text and "+11 %" in text
    assert all(set(found.greyed) <= set(flag.greyed) for flag in found.flags)


@pytest.mark.parametrize("days", [0, -10, math.nan, math.inf])
def test_days_must_be_positive(days: float) -> None:
    with pytest.raises(InputError, match="follow"):
        growth(measurement(500), measurement(700), days)
