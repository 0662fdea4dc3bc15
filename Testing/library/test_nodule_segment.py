"""One click, one nodule: volumes against the phantom's truth, and plain refusals elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from analytic_nodules import CENTER, ellipsoid, rendered

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import Grid
from GlideRegLib.sample_data.nodule_phantom import NodulePair
from GlideRegLib.tracking.measures import measure
from GlideRegLib.tracking.segment import segment_nodule
from GlideRegLib.volume import Volume, read_volume


def clicked(volume: Volume, point: np.ndarray) -> float:
    """Volume in mm^3 of the nodule at a click."""
    return measure(volume, segment_nodule(volume, point)).volume_mm3


def known(pair: NodulePair, side: str, kind: str) -> list:
    """Nodules of a kind whose true diameter on that side is at least 6 mm."""
    there = [n for n in pair.nodules if n.kind == kind and n.diameter_mm(side) is not None]
    return [n for n in there if n.diameter_mm(side) > 5.99]


# --- the phantom ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["solid", "juxtapleural", "vessel-attached"])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_volume_by_click_is_within_15_percent(
    nodule_pair: NodulePair, side: str, kind: str
) -> None:
    """At the center, and 1, 1.5 and 2 mm beside it."""
    volume, rng = getattr(nodule_pair, side), np.random.default_rng(2)
    nodules = known(nodule_pair, side, kind)
    assert len(nodules) >= 3
    for nodule in nodules:
        true = getattr(nodule, f"{side}_volume_mm3")
        for away in (0, 1, 1.5, 2):
            beside = rng.normal(size=3)
            click = getattr(nodule, f"{side}_center") + away * beside / np.linalg.norm(beside)
            assert clicked(volume, click) == pytest.approx(true, rel=0.15), (nodule, away)


def test_change_between_two_clicks_is_within_10_percent(nodule_pair: NodulePair) -> None:
    matched = [n for n in nodule_pair.nodules if n.factor is not None]
    assert len(matched) >= 8
    for nodule in matched:
        if nodule.diameter_mm("moving") < 5.99:
            continue
        before = clicked(nodule_pair.moving, nodule.moving_center)
        after = clicked(nodule_pair.fixed, nodule.fixed_center)
        assert after / before == pytest.approx(nodule.factor, rel=0.10), nodule


def test_mask_covers_the_nodule_on_native_voxels(nodule_pair: NodulePair) -> None:
    volume, labels = nodule_pair.moving, nodule_pair.moving_nodule_labels
    for nodule in nodule_pair.nodules:
        if nodule.moving_center is None or nodule.diameter_mm("moving") < 5.99:
            continue
        mask = segment_nodule(volume, nodule.moving_center)
        assert mask.array.dtype == np.uint8 and mask.grid.spacing == volume.grid.spacing
        start = volume.grid.to_index(np.array([mask.grid.origin]))[0]
        low = np.rint(start).astype(int)
        assert np.abs(start - low).max() < 1e-6
        box = [slice(a, a + n) for a, n in zip(low, mask.grid.size, strict=True)]
        truth = labels.array[tuple(box[::-1])] == nodule.number
        overlap = 2 * (truth & (mask.array > 0)).sum() / (truth.sum() + mask.array.sum())
        assert overlap > 0.85, nodule


# --- analytic scenes --------------------------------------------------------------------------


def with_vessel(points: np.ndarray) -> np.ndarray:
    """A ball of 5 mm radius with a vessel of 2 mm radius beside its middle."""
    _, y, z = (points - CENTER).T
    return ellipsoid((5, 5, 5), (0, 0, 0))(points) | (np.hypot(y - 1.5, z) < 2)


def on_wall(points: np.ndarray) -> np.ndarray:
    """A ball of 5 mm radius that a slanted, curved wall cuts 2 mm beside its middle."""
    x, y, z = (points - CENTER).T
    return ellipsoid((5, 5, 5), (0, 0, 0))(points) | (x + 0.15 * y > 2 - (y**2 + z**2) / 160)


def cut_ball_volume() -> float:
    """Volume of the part of the ball in front of that wall, by counting."""
    steps = np.arange(-5, 5, 0.1) + 0.05
    points = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    x, y, z = points.T
    front = x + 0.15 * y <= 2 - (y**2 + z**2) / 160
    return float(((points**2).sum(axis=1) < 25)[front].sum() * 1e-3)


@pytest.mark.parametrize(
    ("body", "true", "click"),
    [
        (ellipsoid((5, 4, 6), (0, 0, 0)), 4 / 3 * np.pi * 120, (0, 0, 0)),
        (with_vessel, 4 / 3 * np.pi * 125, (0, 0, 0)),
        (on_wall, cut_ball_volume(), (-1, 0, 0)),
    ],
    ids=["free", "vessel", "wall"],
)
@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.0), (0.8, 0.8, 2.5)])
def test_analytic_nodules(
    body: Callable[[np.ndarray], np.ndarray],
    true: float,
    click: tuple[float, float, float],
    spacing: tuple[float, float, float],
) -> None:
    volume = rendered(body, spacing, 60, noise=30, blur=0.5)
    assert clicked(volume, CENTER + click) == pytest.approx(true, rel=0.08)
    assert clicked(volume, CENTER + click + (0.5, 1.0, -1.0)) == pytest.approx(true, rel=0.08)


def test_a_click_just_beside_finds_it() -> None:
    volume = rendered(ellipsoid((4, 4, 4), (0, 0, 0)), (1.0, 1.0, 1.0), 50)
    true = 4 / 3 * np.pi * 64
    assert clicked(volume, np.add(CENTER, (0, 6, 0))) == pytest.approx(true, rel=0.05)


# --- a real one -------------------------------------------------------------------------------


def test_the_real_nodule_of_lidc_0001(shared_data: Path) -> None:
    """A lobulated tumor of about 22 mm with spicules: wherever one clicks, the same volume."""
    volume = read_volume(shared_data / "thorax_lidc0001" / "LIDC-IDRI-0001_ct.nii.gz")
    center = volume.grid.to_physical(np.array([[111.0, 128.0, 112.0]]))[0]
    found = measure(volume, segment_nodule(volume, center))
    assert 20 < found.equivalent_diameter_mm < 24
    assert found.mean_hu > 0
    for beside in ((3, 0, 0), (0, -4, 0), (-2, 2, 3)):
        assert clicked(volume, center + beside) == pytest.approx(found.volume_mm3, rel=0.05)


# --- what is no nodule ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ((0, 12, 0), "as dense as a solid nodule"),
        ((300, 0, 0), "outside the image"),
        ((np.nan, 0, 0), "one point"),
    ],
)
def test_clicks_that_hit_nothing(place: tuple[float, float, float], sentence: str) -> None:
    volume = rendered(ellipsoid((4, 4, 4), (0, 0, 0)), (1.0, 1.0, 1.0), 40)
    with pytest.raises(InputError, match=sentence):
        segment_nodule(volume, CENTER + place)


def test_a_vessel_is_no_nodule() -> None:
    def vessel(points: np.ndarray) -> np.ndarray:
        x, y, z = (points - CENTER).T
        return np.hypot(y - 0.3 * x, z) < 2.5

    with pytest.raises(InputError, match="vessel"):
        segment_nodule(rendered(vessel, (0.8, 0.8, 1.0), 60), CENTER)


def test_chest_wall_is_no_nodule() -> None:
    def wall(points: np.ndarray) -> np.ndarray:
        return points[:, 0] > CENTER[0]

    volume = rendered(wall, (1.0, 1.0, 1.0), 70)
    with pytest.raises(InputError):
        segment_nodule(volume, np.add(CENTER, (8, 0, 0)))


def test_too_large_and_no_lung() -> None:
    volume = rendered(ellipsoid((14, 14, 14), (0, 0, 0)), (1.5, 1.5, 1.5), 70)
    with pytest.raises(InputError, match="up to 20 mm"):
        segment_nodule(volume, CENTER, maximum_diameter_mm=20)
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="no lung"):
        segment_nodule(Volume(np.full(grid.shape, 40, np.float32), grid), (20, 20, 20))
    with pytest.raises(InputError, match="3 to 200"):
        segment_nodule(volume, CENTER, maximum_diameter_mm=0)


def test_lung_vessels_of_the_phantom_are_mostly_refused(nodule_pair: NodulePair) -> None:
    """Vessel forks are no nodules; a few compact ones may look like one."""
    refused = 0
    points = nodule_pair.fixed_landmarks[:60]
    for point in points:
        try:
            segment_nodule(nodule_pair.fixed, point)
        except InputError:
            refused += 1
    assert refused > 0.8 * len(points)
