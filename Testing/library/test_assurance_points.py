"""Landmark errors with their interval, there and back, over a third image, intensities."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from assurance_scenes import affine, as_transform, foreign_composite, subject_of, tilted_grid
from scipy import stats

from GlideRegLib.assurance.assess import assess
from GlideRegLib.assurance.grading import grade
from GlideRegLib.assurance.intensity import intensity_measures, mutual_information
from GlideRegLib.assurance.points import (
    bootstrap_interval,
    consistency_measures,
    landmark_errors,
    landmark_measures,
    structure_consistency,
)
from GlideRegLib.assurance.profile import Criterion, Limit, Profile
from GlideRegLib.assurance.records import Measure, Verdict
from GlideRegLib.assurance.subject import Subject
from GlideRegLib.errors import InputError
from GlideRegLib.field import DisplacementField, transform_points
from GlideRegLib.geometry import Grid
from GlideRegLib.volume import Volume

GRID = tilted_grid()
TURN = np.array([[0.98, -0.1, 0.0], [0.1, 0.98, 0.05], [0.0, -0.05, 1.0]])


def by_key(measures: list[Measure]) -> dict[str, Measure]:
    return {m.key: m for m in measures}


def centered_turn() -> sitk.Transform:
    transform = affine(TURN, (2.0, 1.0, -1.0))
    transform.SetCenter(GRID.center.tolist())
    return transform


def test_landmark_errors_before_and_after_with_the_place_of_the_worst() -> None:
    rng = np.random.default_rng(0)
    fixed = GRID.center + rng.uniform(-15, 15, (20, 3))
    moving = fixed + np.array((3.0, 0.0, 4.0))
    moving[7] += (0.0, 6.0, 0.0)
    subject = subject_of(affine(np.eye(3), (3.0, 0.0, 4.0)), GRID, landmarks=(fixed, moving))
    found = by_key(landmark_measures(subject, landmark_errors(subject)))
    assert found["tre_mean"].value == pytest.approx(6.0 / 20)
    assert found["tre_mean"].before == pytest.approx((19 * 5 + np.sqrt(61)) / 20)
    assert found["tre_median"].value == pytest.approx(0.0, abs=1e-9)
    assert found["tre_max"].value == pytest.approx(6.0)
    assert found["tre_max"].place == pytest.approx(fixed[7], abs=0.01)
    assert found["tre_mean"].n == 20


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        low, high = bootstrap_interval(rng.gamma(2.0, 0.75, 30))
        hits += low <= 1.5 <= high
    assert 86 <= hits <= 99


def test_the_interval_is_wider_to_the_side_of_the_long_tail_than_students_t() -> None:
    errors = np.concatenate((np.random.default_rng(2).gamma(2.0, 0.5, 50), [14.0]))
    low, high = bootstrap_interval(errors)
    _, t_high = stats.t.interval(0.95, 50, errors.mean(), stats.sem(errors))
    assert low < errors.mean() < high
    assert high > t_high
    assert bootstrap_interval(errors) == (low, high)  # seeded


def test_too_few_landmarks_have_no_interval_and_equal_ones_a_point() -> None:
    assert bootstrap_interval(np.ones(4)) is None
    assert bootstrap_interval(np.full(6, 2.0)) == (2.0, 2.0)


def test_without_landmarks_nothing_is_measured() -> None:
    assert landmark_measures(subject_of(centered_turn(), GRID), None) == []


def test_there_and_back_with_a_backward_transform_of_known_error() -> None:
    forward = centered_turn()
    back = sitk.CompositeTransform(
        [sitk.TranslationTransform(3, (0.0, 0.6, 0.8)), forward.GetInverse()]
    )
    found = by_key(consistency_measures(subject_of(forward, GRID, backward=back)))
    for key in ("mean", "p95", "max"):
        assert found[f"inverse_consistency_{key}"].value == pytest.approx(1.0, abs=1e-6)
    assert found["inverse_consistency_p95"].n > 5000
    assert "given" in found["inverse_consistency_p95"].note


def test_there_and_back_in_single_structures() -> None:
    """A backward transform that is off by 3 mm in the lower half of the image only."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[10:20, 10:20, 10:20], labels[40:50, 10:20, 10:20] = 1, 2
    field = np.zeros((3, *GRID.shape))
    field[1, 30:] = 3.0
    back = as_transform(field, GRID)
    pair = (Volume(labels, GRID),) * 2
    subject = subject_of(affine(np.eye(3)), GRID, backward=back, labels=pair, names={2: "low"})
    found = {m.region: m for m in structure_consistency(subject)}
    assert found["label 1"].value == pytest.approx(0.0, abs=1e-6)
    assert found["low"].value == pytest.approx(3.0, abs=1e-5)
    assert found["low"].n == 1000
    assert structure_consistency(subject_of(affine(np.eye(3)), GRID, labels=pair)) == []


def test_without_one_only_the_numerical_inverse_is_stated_and_named_so() -> None:
    found = by_key(consistency_measures(subject_of(foreign_composite(GRID), GRID)))
    assert set(found) == {"numerical_inverse_p95"}
    assert found["numerical_inverse_p95"].value < 0.05
    assert "numerically" in found["numerical_inverse_p95"].note


def test_the_numerical_inverse_does_not_tell_of_folds_and_its_name_does_not_promise_it() -> None:
    """Where a field folds a point has several inverses; Newton's method finds one of them."""
    field = np.zeros((3, *GRID.shape))
    offsets = np.arange(-12, 13)
    field[0][..., 20 + offsets] = -1.6 * offsets * GRID.spacing[0]
    found = by_key(consistency_measures(subject_of(as_transform(field, GRID), GRID)))
    assert found["numerical_inverse_p95"].value < 0.05
    assert "not folds" in found["numerical_inverse_p95"].note


def test_three_transforms_that_close_a_triangle_and_three_that_miss_by_two_millimeters() -> None:
    first, onward = centered_turn(), affine(np.diag([1.0, 1.1, 0.9]), (5.0, 0.0, 0.0))
    direct = sitk.CompositeTransform([onward, first])
    off = sitk.CompositeTransform([sitk.TranslationTransform(3, (0.0, 0.0, 2.0)), direct])
    for third, gap in ((direct, 0.0), (off, 2.0)):
        subject = subject_of(first, GRID, onward=onward, direct=third)
        found = by_key(consistency_measures(subject))
        assert found["transitivity_mean"].value == pytest.approx(gap, abs=1e-6)
        assert found["transitivity_max"].value == pytest.approx(gap, abs=1e-6)


def test_half_a_triangle_is_refused() -> None:
    with pytest.raises(InputError, match="third image"):
        subject_of(centered_turn(), GRID, onward=centered_turn()).check()


def test_only_points_with_a_partner_in_the_moving_image_count() -> None:
    subject = subject_of(affine(np.eye(3), (0.0, 0.0, 70.0)), GRID)
    points = subject.body_points(4000)
    moved = transform_points(subject.transform, points)
    assert GRID.contains(moved).all()
    everything = subject_of(affine(np.eye(3)), GRID).body_points(4000)
    assert 0.2 < len(points) / len(everything) < 0.8


def test_no_partner_at_all_is_not_measured() -> None:
    away = affine(np.eye(3), (0.0, 0.0, 5000.0))
    found = by_key(consistency_measures(subject_of(away, GRID, backward=away)))
    assert all(m.value is None and m.note for m in found.values())


def test_correlation_is_that_of_simpleitks_metric_in_the_body() -> None:
    subject = subject_of(affine(np.eye(3)), GRID)
    mixed = (0.7 * subject.fixed.array + 0.3 * subject.moving.array).astype(np.float32)
    subject = Subject(subject.fixed, type(subject.moving)(mixed, GRID), affine(np.eye(3)))
    found = by_key(intensity_measures(subject, subject.moving))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    mask = GRID.copy_to_sitk(sitk.GetImageFromArray(subject.body.astype(np.uint8)))
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    # ITK's metric is minus the squared correlation.
    metric = method.MetricEvaluate(subject.fixed.to_sitk(), subject.moving.to_sitk())
    assert found["correlation"].value == pytest.approx(np.sqrt(-metric), abs=1e-3)
    expected = np.abs(mixed - subject.fixed.array)[subject.body].mean()
    assert found["mean_difference"].value == pytest.approx(expected, rel=1e-4)


def test_mutual_information_of_a_permutation_is_the_entropy_and_of_noise_nothing() -> None:
    values = np.repeat(np.arange(64), 200).astype(float)
    assert mutual_information(values, (values * 7) % 64) == pytest.approx(np.log(64))
    rng = np.random.default_rng(0)
    noise = mutual_information(rng.uniform(size=400_000), rng.uniform(size=400_000))
    assert noise < 0.01


def test_a_transform_without_an_inverse_is_assessed_and_everything_in_it_is_folded() -> None:
    """A matrix that flattens space: J = 0 everywhere is a finding, no reason to stop."""
    flat = affine(np.diag([1.0, 1.0, 0.0]), (0.0, 0.0, float(GRID.center[2])))
    found, _ = assess(subject_of(flat, GRID), Profile.named("mean2-max5"))
    assert found.find("folding", "body").value == 100.0
    assert found.find("folding", "body").verdict is Verdict.NOT_COMPLIANT
    inverse = found.find("numerical_inverse_p95")
    assert inverse.value is None and "no inverse" in inverse.note


# --- a backward transform that proves nothing -----------------------------------------------------


def smooth_field(millimeters: float) -> DisplacementField:
    """A bend over GRID on coarse nodes: between them its inverse is not exact."""
    lattice = tilted_grid((20, 18, 30))
    nodes = Grid(lattice.size, (3.0, 4.0, 5.0), lattice.origin, lattice.direction)
    axes = torch.meshgrid(*[torch.linspace(0, 7, n) for n in nodes.shape], indexing="ij")
    vectors = millimeters * torch.stack([torch.sin(axes[k]) for k in (1, 2, 0)])
    return DisplacementField(vectors, nodes)


@pytest.mark.parametrize("kind", ["linear", "field", "field and linear", "the other way round"])
def test_the_transforms_own_inverse_does_not_count_as_a_second_run(kind: str) -> None:
    field = smooth_field(3.0)
    there, back = field.to_sitk_transform(), field.inverse().to_sitk_transform()
    shift = sitk.TranslationTransform(3, (2.0, -1.0, 3.0))
    forward, backward = {
        "linear": (centered_turn(), centered_turn().GetInverse()),
        "field": (there, back),
        "field and linear": (
            sitk.CompositeTransform([shift, there]),
            sitk.CompositeTransform([back, shift.GetInverse()]),
        ),
        "the other way round": (back, there),
    }[kind]
    labels = np.zeros(GRID.shape, np.uint8)
    labels[20:30, 10:20, 10:20] = 1
    pair = (Volume(labels, GRID),) * 2
    subject = subject_of(forward, GRID, backward=backward, labels=pair)
    measures = [*consistency_measures(subject), *structure_consistency(subject)]
    criteria = (
        Criterion("inverse_consistency_p95", Limit(3.0)),
        Criterion("structure_consistency_p95", Limit(3.0)),
    )
    graded = [m for m in grade(measures, Profile("O", "d", "s", criteria), 2.5) if m.criterion]
    assert len(graded) == 2
    for measure in graded:
        assert measure.verdict is Verdict.NOT_VERIFIED
        assert "numerical inverse" in measure.note
    if kind == "field":  # interpolated between its nodes: worse than a limit of 0.05 mm
        points = subject.body_points(2000)
        gaps = transform_points(backward, transform_points(forward, points)) - points
        assert np.percentile(np.linalg.norm(gaps, axis=1), 95) > 0.05


def test_a_second_run_that_is_off_by_a_fifth_of_a_millimeter_counts() -> None:
    field = smooth_field(3.0)
    off = sitk.TranslationTransform(3, (0.2, 0.0, 0.0))
    back = sitk.CompositeTransform([off, field.inverse().to_sitk_transform()])
    subject = subject_of(field.to_sitk_transform(), GRID, backward=back)
    found = by_key(consistency_measures(subject))["inverse_consistency_mean"]
    assert found.value == pytest.approx(0.2, abs=0.05)


def test_a_small_part_of_the_body_is_not_enough_to_be_compliant() -> None:
    """Moved out of the moving image but for a rim, and back with an error of 1 mm."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[5:55, 10:20, 10:20] = 1
    pair = (Volume(labels, GRID),) * 2
    for millimeters, verdict in ((110.0, Verdict.REVIEW), (10.0, Verdict.COMPLIANT)):
        there = affine(np.eye(3), (0.0, 0.0, millimeters))
        back = affine(np.eye(3), (0.0, 1.0, -millimeters))
        subject = subject_of(there, GRID, backward=back, labels=pair)
        criteria = [
            Criterion(key, Limit(2.0))
            for key in ("inverse_consistency_p95", "structure_consistency_p95")
        ]
        measures = [*consistency_measures(subject), *structure_consistency(subject)]
        graded = [m for m in grade(measures, Profile("O", "d", "s", tuple(criteria)), 2.5)]
        shown = {m.key: m for m in graded if m.criterion}
        assert {m.verdict for m in shown.values()} == {verdict}
        said = ["% of" in m.note for m in shown.values()]
        assert all(said) if verdict is Verdict.REVIEW else not any(said)
        again = Measure.from_dict(shown["inverse_consistency_p95"].to_dict())
        assert again == shown["inverse_consistency_p95"]
