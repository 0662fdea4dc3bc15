"""Structures: known shifts and growth, and SimpleITK's filters for overlap and distances."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from assurance_scenes import affine, as_transform, subject_of, tilted_grid

from GlideRegLib.assurance.catalog import KINDS
from GlideRegLib.assurance.deformation import survey
from GlideRegLib.assurance.grading import grade
from GlideRegLib.assurance.points import structure_consistency
from GlideRegLib.assurance.profile import Criterion, Limit, Profile
from GlideRegLib.assurance.records import Measure, Verdict
from GlideRegLib.assurance.structures import structure_measures
from GlideRegLib.assurance.subject import Subject
from GlideRegLib.field import transform_points
from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume

GRID = Grid((48, 44, 40), (1.5, 2.0, 2.5), (-30.0, 40.0, 100.0))
NAMES = {1: "heart", 2: "spinal cord"}


def boxes(grid: Grid, *shifts: tuple[int, int, int]) -> Volume:
    """Two boxes, labels 1 and 2, each shifted by voxels (x, y, z)."""
    array = np.zeros(grid.shape, np.uint8)
    for label, ((x, y, z), (a, b, c)) in enumerate(
        zip(((10, 10, 8), (28, 24, 22)), shifts, strict=True), start=1
    ):
        array[z + c : z + c + 10, y + b : y + b + 9, x + a : x + a + 8] = label
    return Volume(array, grid)


def measured(subject: Subject) -> dict[tuple[str, str], Measure]:
    found = structure_measures(subject, survey(subject))
    return {(m.region, m.key): m for m in found}


def test_every_structure_has_its_own_known_shift() -> None:
    labels = boxes(GRID, (0, 0, 0), (0, 0, 0)), boxes(GRID, (2, -1, 0), (0, 3, -2))
    found = measured(subject_of(affine(np.eye(3)), GRID, labels=labels, names=NAMES))
    for name, shift in (("heart", (3.0, -2.0, 0.0)), ("spinal cord", (0.0, 6.0, -5.0))):
        for axis, value in zip(("lr", "ap", "si"), shift, strict=True):
            assert found[name, f"centroid_{axis}"].value == pytest.approx(value, abs=1e-6)
            assert found[name, f"centroid_{axis}"].before == pytest.approx(value, abs=1e-6)
            assert found[name, f"displacement_{axis}"].value == pytest.approx(0, abs=1e-6)
        assert found[name, "centroid_shift"].value == pytest.approx(np.linalg.norm(shift))


def test_a_field_that_moves_one_structure_brings_it_home_and_its_displacement_is_known() -> None:
    labels = boxes(GRID, (0, 0, 0), (0, 0, 0)), boxes(GRID, (2, -1, 0), (0, 0, 0))
    field = np.zeros((3, *GRID.shape))
    field[0, :, :, :22], field[1, :, :, :22] = 3.0, -2.0
    found = measured(subject_of(as_transform(field, GRID), GRID, labels=labels, names=NAMES))
    assert found["heart", "dice"].value == 1.0
    assert found["heart", "dice"].before == pytest.approx(2 * 6 * 8 / (2 * 8 * 9))
    assert found["heart", "centroid_shift"].value == pytest.approx(0, abs=1e-6)
    assert found["heart", "displacement_lr"].value == pytest.approx(3.0, abs=1e-5)
    assert found["heart", "displacement_ap"].value == pytest.approx(-2.0, abs=1e-5)
    assert found["spinal cord", "displacement_lr"].value == pytest.approx(0.0, abs=1e-6)


def test_overlap_and_distances_are_those_of_simpleitk() -> None:
    labels = boxes(GRID, (0, 0, 0), (0, 0, 0)), boxes(GRID, (2, -1, 1), (1, 3, -2))
    found = measured(subject_of(affine(np.eye(3)), GRID, labels=labels, names=NAMES))
    first, second = (volume.to_sitk() for volume in labels)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(first, second)
    for label, name in NAMES.items():
        assert found[name, "dice"].value == pytest.approx(overlap.GetDiceCoefficient(label))
        contours = [sitk.LabelContour(image == label) for image in (first, second)]
        directed = []
        for one, other in (contours, contours[::-1]):
            distance = sitk.SignedMaurerDistanceMap(
                other, squaredDistance=False, useImageSpacing=True
            )
            inside = sitk.GetArrayFromImage(one) > 0
            directed.append(np.abs(sitk.GetArrayFromImage(distance)[inside]))
        pooled = np.concatenate(directed)
        # SimpleITK measures to the border of voxels' zero level, which lies on the contour voxels.
        assert found[name, "mean_distance"].value == pytest.approx(pooled.mean(), abs=1e-3)
        larger = max(np.percentile(d, 95) for d in directed)
        assert found[name, "hd95"].value == pytest.approx(larger, abs=1e-3)


def test_a_protrusion_of_one_contour_only_is_not_diluted_by_the_other() -> None:
    """SimpleITK's distance maps, one direction at a time: 4.5 mm from the outgrowth, 0 pooled."""
    fixed = boxes(GRID, (0, 0, 0), (0, 0, 0))
    array = fixed.array.copy()
    array[11:13, 13:15, 18:26] = 1  # eight voxels of 1.5 mm to the left
    labels = fixed, Volume(array, GRID)
    found = measured(subject_of(affine(np.eye(3)), GRID, labels=labels, names=NAMES))
    contours = [sitk.LabelContour(volume.to_sitk() == 1) for volume in labels]
    away = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(contours[0], squaredDistance=False, useImageSpacing=True)
    )
    grown = np.abs(away[sitk.GetArrayFromImage(contours[1]) > 0])
    assert found["heart", "hd95"].value == pytest.approx(np.percentile(grown, 95), abs=1e-3)
    assert found["heart", "hd95"].value == pytest.approx(4.5)


def test_the_place_where_the_surfaces_are_farthest_apart() -> None:
    fixed = boxes(GRID, (0, 0, 0), (0, 0, 0))
    array = fixed.array.copy()
    array[12, 14, 18:25] = 1  # a spike from the face of the first box to the left
    labels = fixed, Volume(array, GRID)
    found = measured(subject_of(affine(np.eye(3)), GRID, labels=labels, names=NAMES))
    tip = GRID.to_physical(np.array([[24.0, 14.0, 12.0]]))[0]
    assert found["heart", "mean_distance"].place == pytest.approx(tip)
    assert found["spinal cord", "mean_distance"].value == 0


def test_growth_by_contours_and_by_the_jacobian_agree_for_a_scaling() -> None:
    scale = np.diag([1.25, 1.0, 1.2])
    center = np.array([-30.0 + 13.5 * 1.5, 40 + 14 * 2.0, 100 + 12.5 * 2.5])
    transform = affine(scale, tuple(center - scale @ center))
    fixed = boxes(GRID, (0, 0, 0), (0, 0, 0))
    array = np.zeros(GRID.shape, np.uint8)
    array[7:19, 10:19, 9:19] = 1  # 10 x 9 x 12 voxels of 8 x 9 x 10, the same center
    subject = subject_of(transform, GRID, labels=(fixed, Volume(array, GRID)), names=NAMES)
    found = measured(subject)
    assert found["heart", "volume_change_jacobian"].value == pytest.approx(50.0, abs=0.05)
    assert found["heart", "volume_change"].value == pytest.approx(50.0)
    assert found["heart", "volume_disagreement"].value == pytest.approx(0.0, abs=0.05)
    assert found["heart", "dice"].value > 0.95


def test_folds_are_counted_per_structure() -> None:
    field = np.zeros((3, *GRID.shape))
    x = np.arange(-2, 3)
    field[0, 12:14, 12, 13 + x] = (-1.2 * x * 1.5)[:, None]
    labels = (boxes(GRID, (0, 0, 0), (0, 0, 0)),) * 2
    found = measured(subject_of(as_transform(field, GRID), GRID, labels=labels, names=NAMES))
    assert found["heart", "structure_folding"].value == pytest.approx(100 * 10 / (8 * 9 * 10))
    # What folds within a structure leaves its volume as it is: it is integrated over all that is.
    assert found["heart", "volume_change_jacobian"].value == pytest.approx(0.0, abs=1e-4)
    assert found["spinal cord", "structure_folding"].value == 0


def test_names_that_come_twice_are_told_apart() -> None:
    labels = (boxes(GRID, (0, 0, 0), (0, 0, 0)),) * 2
    subject = subject_of(affine(np.eye(3)), GRID, labels=labels, names={1: "GTV", 2: "GTV"})
    assert subject.structure_names() == {1: "GTV", 2: "GTV (2)"}
    subject = subject_of(affine(np.eye(3)), GRID, labels=labels, names={2: "structures"})
    assert subject.structure_names() == {1: "label 1", 2: "structures (2)"}


def test_structures_called_like_another_region_are_told_apart_and_graded() -> None:
    """ "grid" is what criteria leave out: a structure of that name got no verdict at all."""
    labels = boxes(GRID, (0, 0, 0), (0, 0, 0)), boxes(GRID, (9, 0, 0), (9, 0, 0))
    for name in ("grid", "body", "landmarks"):
        subject = subject_of(affine(np.eye(3)), GRID, labels=labels, names={1: name, 2: "heart"})
        assert subject.structure_names() == {1: f"{name} (1)", 2: "heart"}
        graded = grade(structure_measures(subject, survey(subject)), Profile.named("tg132"), 2.5)
        verdicts = {m.region: m.verdict for m in graded if m.key == "dice"}
        assert set(verdicts.values()) == {Verdict.NOT_COMPLIANT}


def test_a_name_is_not_used_by_structures_of_two_pairs_of_maps() -> None:
    whole = boxes(GRID, (0, 0, 0), (0, 0, 0))
    first, second = (Volume(np.where(whole.array == k, whole.array, 0), GRID) for k in (1, 2))
    subject = subject_of(
        affine(np.eye(3)),
        GRID,
        labels=(first, first),
        more_labels=((second, second),),
        names={1: "GTV", 2: "GTV"},
    )
    names = [layer.structure_names() for layer in subject.layers]
    assert names == [{1: "GTV"}, {2: "GTV (2)"}]


def test_what_one_map_lacks_is_not_measured() -> None:
    fixed, moving = boxes(GRID, (0, 0, 0), (0, 0, 0)), boxes(GRID, (0, 0, 0), (0, 0, 0))
    only_first = Volume(np.where(moving.array == 1, moving.array, 0), GRID)
    for labels, lacking in (((fixed, only_first), "moving"), ((only_first, fixed), "fixed")):
        found = measured(subject_of(affine(np.eye(3)), GRID, labels=labels, names=NAMES))
        assert found["heart", "dice"].value == 1.0
        assert found["spinal cord", "dice"].value is None
        assert lacking in found["spinal cord", "dice"].note


@pytest.mark.parametrize("lacking", ["fixed", "moving"])
def test_no_criterion_passes_over_a_structure_that_one_map_lacks(lacking: str) -> None:
    """Whatever a profile may ask of structures: it is there without a value, and not verified."""
    whole = boxes(GRID, (0, 0, 0), (0, 0, 0))
    only_first = Volume(np.where(whole.array == 1, whole.array, 0), GRID)
    labels = (only_first, whole) if lacking == "fixed" else (whole, only_first)
    # Not quite the way back, as that of another run: an exact inverse would verify nothing.
    still, back = affine(np.eye(3)), affine(np.eye(3), (0.0, 0.0, 1.0))
    subject = subject_of(still, GRID, labels=labels, names=NAMES, backward=back)
    measures = [*structure_measures(subject, survey(subject)), *structure_consistency(subject)]
    of_whole = {m.key for m in measures if m.region == "heart"}
    assert {m.key for m in measures if m.region == "spinal cord"} == of_whole
    gradable = {k for k, kind in KINDS.items() if kind.group == "structures" and kind.better}
    assert gradable <= of_whole
    limits = tuple(
        Criterion(key, Limit(0.0 if KINDS[key].better == "more" else 1e3)) for key in gradable
    )
    for m in grade(measures, Profile("Ours", "d", "s", limits), 2.5):
        if m.region == "spinal cord" and m.key in gradable and m.value is None:
            assert m.verdict is Verdict.NOT_VERIFIED and lacking in m.note
    unmeasured = {m.key for m in measures if m.region == "spinal cord" and m.value is None}
    assert gradable <= unmeasured or lacking == "moving"


def test_a_structure_that_left_the_fixed_image_overlaps_by_nothing() -> None:
    labels = (boxes(GRID, (0, 0, 0), (0, 0, 0)),) * 2
    found = measured(subject_of(affine(np.eye(3), (0, 0, 500.0)), GRID, labels=labels))
    assert found["label 1", "dice"].value == 0.0
    assert found["label 1", "mean_distance"].value is None
    assert found["label 1", "centroid_shift"].value is None
    assert found["label 1", "dice"].note


def test_labels_may_lie_on_other_grids_in_other_frames() -> None:
    """The same boxes drawn on a turned grid: all measures in LPS mm are the same within a voxel."""
    turned = tilted_grid((70, 60, 60))
    center = GRID.center
    array = np.zeros(GRID.shape, np.uint8)
    array[12:26, 14:30, 12:34] = 1
    fixed = Volume(array, GRID)
    shifted_origin = Grid(
        turned.size,
        turned.spacing,
        tuple(np.asarray(turned.origin) + center - turned.center),
        turned.direction,
    )
    moved = fixed.resampled(shifted_origin, affine(np.eye(3), (-4.0, 0.0, 0.0)), labels=True)
    subject = subject_of(affine(np.eye(3), (4.0, 0.0, 0.0)), GRID, labels=(fixed, moved))
    found = measured(subject)
    assert found["label 1", "dice"].value > 0.93
    assert found["label 1", "centroid_lr"].before == pytest.approx(4.0, abs=0.3)
    assert found["label 1", "centroid_lr"].value == pytest.approx(0.0, abs=0.3)
    centers = transform_points(subject.transform, center[None])
    assert found["label 1", "displacement_lr"].value == pytest.approx((centers - center)[0, 0])
