"""The follow-up phantom: its nodules are as large, and where, as its truth says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from GlideRegLib.errors import SettingsError
from GlideRegLib.landmarks import read_landmarks
from GlideRegLib.sample_data.nodule_phantom import NodulePair, PhantomNodule, make_nodule_phantom
from GlideRegLib.volume import read_labels

SIDES = ("fixed", "moving")


def there(pair: NodulePair, side: str) -> list[PhantomNodule]:
    """The nodules that this side's image holds."""
    return [n for n in pair.nodules if getattr(n, f"{side}_center") is not None]


def test_the_plan_is_there(nodule_pair: NodulePair) -> None:
    nodules = nodule_pair.nodules
    assert len(nodules) >= 12
    states = Counter(n.state for n in nodules)
    assert states["new"] == states["resolved"] == 2
    assert states["outside field of view"] == 1
    assert states["matched"] >= 7
    assert {n.kind for n in nodules} == {"solid", "juxtapleural", "vessel-attached"}
    sizes = [n.diameter_mm(s) for s in SIDES for n in there(nodule_pair, s)]
    assert min(sizes) == pytest.approx(4.0) and max(sizes) > 20
    factors = [n.factor for n in nodules if n.state == "matched"]
    assert min(factors) < 0.8 and max(factors) == pytest.approx(2.0)
    for nodule in nodules:
        assert (nodule.moving_center is None) == (nodule.state == "new")
        assert (nodule.fixed_center is None) == (
            nodule.state in ("resolved", "outside field of view")
        )


def test_only_one_lies_outside_the_field_of_view(nodule_pair: NodulePair) -> None:
    grid = nodule_pair.fixed.grid
    mapped = [n for n in nodule_pair.nodules if n.mapped_center is not None]
    inside = grid.contains(np.array([n.mapped_center for n in mapped]))
    outside = [n.state for n, within in zip(mapped, inside, strict=True) if not within]
    assert outside == ["outside field of view"]


@pytest.mark.parametrize("side", SIDES)
def test_label_maps_hold_the_true_volumes(nodule_pair: NodulePair, side: str) -> None:
    labels = getattr(nodule_pair, f"{side}_nodule_labels")
    numbers = {n.number for n in there(nodule_pair, side)}
    assert set(np.unique(labels.array)) == numbers | {0}
    voxel = np.prod(labels.grid.spacing)
    for nodule in there(nodule_pair, side):
        where = np.argwhere(labels.array == nodule.number)[:, ::-1]
        center = labels.grid.to_physical(where.mean(axis=0)[None])[0]
        truth = getattr(nodule, f"{side}_center")
        assert np.linalg.norm(center - truth) < 0.5  # a third of a voxel
        volume = getattr(nodule, f"{side}_volume_mm3")
        # Rounding to whole voxels of 1.5 mm costs small nodules most (18 % at 6 mm, 5 % at 20).
        assert len(where) * voxel == pytest.approx(volume, rel=0.85 / np.cbrt(volume))


@pytest.mark.parametrize("side", SIDES)
def test_images_show_the_nodules(nodule_pair: NodulePair, side: str) -> None:
    volume = getattr(nodule_pair, side)
    labels = getattr(nodule_pair, f"{side}_nodule_labels").array
    for nodule in there(nodule_pair, side):
        hu = volume.array[labels == nodule.number]
        assert np.median(hu) > -250
        if nodule.diameter_mm(side) > 8:
            assert -30 < np.median(hu) < 110


def test_mapped_centers_agree_with_the_field(nodule_pair: NodulePair) -> None:
    known = [n for n in nodule_pair.nodules if n.state in ("matched", "resolved")]
    mapped = np.array([n.mapped_center for n in known])
    index = nodule_pair.fixed.grid.to_index(mapped)[:, ::-1].T
    motion = [map_coordinates(u, index, order=3) for u in nodule_pair.displacement]
    moved = mapped + np.stack(motion, axis=1)
    assert np.abs(moved - [n.moving_center for n in known]).max() < 0.02
    assert np.linalg.norm(np.stack(motion), axis=0).mean() > 5
    for nodule in known:  # a nodule at the pleura grows into the lung, the others stay centered
        if nodule.fixed_center is not None:
            gap = np.linalg.norm(np.subtract(nodule.fixed_center, nodule.mapped_center))
            assert gap < (0.8 if nodule.kind == "juxtapleural" else 1e-6)


def test_juxtapleural_and_vessel_attached_touch_what_they_are_named_for(
    nodule_pair: NodulePair,
) -> None:
    from scipy.ndimage import binary_dilation

    organs, labels = nodule_pair.moving_labels, nodule_pair.moving_nodule_labels
    for nodule in there(nodule_pair, "moving"):
        mask = labels.array == nodule.number
        around = binary_dilation(mask, np.ones((3, 3, 3)), iterations=2) & ~mask
        wall = (organs.array[around] == 0).mean()
        vessel = (organs.array[around] == 6).mean()
        assert (wall > 0.1) == (nodule.kind == "juxtapleural"), nodule
        assert vessel > 0.004 if nodule.kind == "vessel-attached" else vessel < 0.004, nodule


def test_landmarks_lie_in_both_images(nodule_pair: NodulePair) -> None:
    fixed, moving = nodule_pair.fixed_landmarks, nodule_pair.moving_landmarks
    assert len(fixed) == len(moving) > 100
    index = nodule_pair.fixed.grid.to_index(fixed)[:, ::-1].T
    motion = [map_coordinates(u, index, order=3) for u in nodule_pair.displacement]
    assert np.abs(fixed + np.stack(motion, axis=1) - moving).max() < 0.05


def test_saved_files_tell_the_same(nodule_pair: NodulePair, tmp_path: Path) -> None:
    paths = nodule_pair.save(tmp_path)
    truth = json.loads(paths["nodule_truth"].read_text("utf-8"))
    assert [row["state"] for row in truth["nodules"]] == [n.state for n in nodule_pair.nodules]
    for side in SIDES:
        labels = read_labels(paths[f"{side}_nodule_labels"])
        assert np.array_equal(labels.array, getattr(nodule_pair, f"{side}_nodule_labels").array)
        points = read_landmarks(paths[f"{side}_nodules"])
        expected = there(nodule_pair, side)
        assert points.labels == [f"N{n.number}" for n in expected]
        assert np.allclose(points.points, [getattr(n, f"{side}_center") for n in expected])


def test_same_arguments_same_pair_and_other_seeds_other_nodules(nodule_pair: NodulePair) -> None:
    first, again = make_nodule_phantom(1, spacing=3.0), make_nodule_phantom(1, spacing=3.0)
    assert np.array_equal(first.fixed.array, again.fixed.array)
    assert np.array_equal(first.moving.array, again.moving.array)
    assert first.nodules == again.nodules
    assert first.nodules[0].moving_center != nodule_pair.nodules[0].moving_center


def test_settings_out_of_range_say_so() -> None:
    with pytest.raises(SettingsError, match="spacing"):
        make_nodule_phantom(spacing=0.2)
