"""Folds between voxels: against every determinant by hand, and against ITK's own interpolation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from assurance_scenes import affine, as_transform, foreign_composite, subject_of, tilted_grid

from GlideRegLib.assurance.deformation import regularity_measures, survey
from GlideRegLib.assurance.structures import structure_measures
from GlideRegLib.field import (
    DisplacementField,
    jacobian_determinant,
    linear_matrix,
    sample_transform,
)
from GlideRegLib.folding import folded_nodes, folded_voxels, folds_of, own_nodes
from GlideRegLib.geometry import Grid
from GlideRegLib.quality import sample_folds, summarize_folds
from GlideRegLib.volume import Volume

GRID = tilted_grid((12, 11, 20))
TURN = affine([[0.9, -0.3, 0.0], [0.3, 0.95, 0.1], [0.0, -0.1, 1.05]], (3.0, -2.0, 1.0))


def rough_field(grid: Grid, millimeters: float = 0.8, seed: int = 0) -> np.ndarray:
    """Displacements that differ from voxel to voxel: some cells fold."""
    return np.random.default_rng(seed).normal(0, millimeters, (3, *grid.shape)).astype(np.float32)


def eight_determinants(vectors: np.ndarray, grid: Grid) -> np.ndarray:
    """(8, Z, Y, X), in voxels, straight from the definition; at a face the only step that there is
    counts for both sides."""
    u = np.einsum("ij,jzyx->izyx", np.linalg.inv(grid.matrix[:3, :3]), vectors.astype(float))
    sides = []
    for axis in (3, 2, 1):
        step = np.diff(u, axis=axis)
        ends = np.take(step, [0], axis), np.take(step, [-1], axis)
        sides.append((np.concatenate((ends[0], step), axis), np.concatenate((step, ends[1]), axis)))
    found = []
    for columns in product(*sides):
        matrix = np.moveaxis(np.stack(columns, axis=1), (0, 1), (-2, -1)) + np.eye(3)
        found.append(np.linalg.det(matrix))
    return np.stack(found)


@pytest.mark.parametrize("millimeters", [0.3, 0.8, 3.0])
def test_folds_are_those_of_all_one_sided_differences(millimeters: float) -> None:
    vectors = rough_field(GRID, millimeters)
    lowest = eight_determinants(vectors, GRID).min(axis=0)
    flat, values = folded_voxels(torch.from_numpy(vectors), GRID)
    order = np.argsort(flat)
    np.testing.assert_array_equal(flat[order], np.flatnonzero(lowest <= 0))
    np.testing.assert_allclose(values[order], lowest.ravel()[flat[order]], atol=1e-4)
    assert 0 < len(flat) < GRID.voxel_count


def test_central_differences_are_their_mean_and_never_see_more() -> None:
    vectors = rough_field(GRID)
    central = jacobian_determinant(torch.from_numpy(vectors), GRID).numpy()
    every = eight_determinants(vectors, GRID)
    np.testing.assert_allclose(central, every.mean(axis=0), atol=1e-4)
    assert not ((central <= 0) & (every.min(axis=0) > 0)).any()
    assert ((central > 0) & (every.min(axis=0) <= 0)).sum() > 100


def test_a_folded_voxel_is_one_beside_which_itk_turns_space_over() -> None:
    """Derivatives of ITK's own linear interpolation, a hundredth of a voxel into each cell."""
    grid = Grid((7, 6, 5), (1.5, 2.0, 2.5), (0.0, 0.0, 0.0))
    vectors = rough_field(grid, 1.2, seed=4)
    transform = as_transform(vectors, grid)
    mine = np.zeros(grid.voxel_count, bool)
    mine[folded_voxels(torch.from_numpy(vectors), grid)[0]] = True
    mine = mine.reshape(grid.shape)
    seen = 0
    for k, j, i in product(range(1, 4), range(1, 5), range(1, 6)):
        here = grid.to_physical(np.array([[i, j, k]], float))[0]
        start = np.array(transform.TransformPoint(here.tolist()))
        determinants = []
        for signs in product((-1, 1), repeat=3):
            steps = 0.01 * np.diag(signs) * np.asarray(grid.spacing)
            ends = np.array([transform.TransformPoint((here + step).tolist()) for step in steps])
            columns = (ends - start).T / np.diag(steps)
            determinants.append(np.linalg.det(columns))
        if abs(min(determinants)) > 0.01:
            assert mine[k, j, i] == (min(determinants) < 0)
            seen += mine[k, j, i]
    assert 5 < seen < 55


def test_a_field_that_jumps_to_and_fro_is_folded_where_central_differences_see_nothing() -> None:
    """The review's field: 2 mm to the left and to the right in turn, 3 mm voxels, half the way
    backwards; its central determinant is exactly 1."""
    grid = Grid((30, 28, 26), (3.0, 3.0, 4.0), (0.0, 0.0, 0.0))
    field = np.zeros((3, *grid.shape))
    field[0, 8:18, 8:18, 4:26] = 2 * (-1.0) ** np.arange(22)
    labels = np.zeros(grid.shape, np.uint8)
    labels[10:16, 10:16, 8:22] = 1
    subject = subject_of(as_transform(field, grid), grid, labels=(Volume(labels, grid),) * 2)
    found = survey(subject)
    measures = [*regularity_measures(subject, found), *structure_measures(subject, found)]
    values = {(m.key, m.region): m.value for m in measures}
    assert values["structure_folding", "label 1"] == 100.0
    assert values["structure_jacobian_min", "label 1"] == pytest.approx(1 - 4 / 3, abs=1e-4)
    assert values["volume_change_jacobian", "label 1"] == pytest.approx(0, abs=1e-3)
    assert values["folding", "body"] == pytest.approx(100 * 10 * 10 * 22 / subject.body.sum())
    assert values["folding_central", "body"] < 2  # the ends of the rows only


def fine_fold(grid: Grid) -> tuple[np.ndarray, Grid]:
    """A field of 1 mm nodes over a grid of thick slices; between two of these it folds along z:
    3 mm up and 3 mm down on nodes that lie next to each other and off the slices."""
    fine = Grid((50, 50, 41), (1.0, 1.0, 1.0), grid.origin)
    vectors = np.zeros((3, *fine.shape))
    vectors[2, 21, 20:35, 20:35], vectors[2, 22, 20:35, 20:35] = 3.0, -3.0
    return vectors, fine


@pytest.mark.parametrize("place", ["alone", "first", "behind a linear part"])
def test_a_fold_between_slices_is_found_at_the_nodes_of_the_field(place: str) -> None:
    grid = Grid((24, 24, 10), (2.0, 2.0, 4.0), (-20.0, 10.0, 50.0))
    vectors, fine = fine_fold(grid)
    field = as_transform(vectors, fine)
    shift = sitk.TranslationTransform(3, (0.0, 0.0, -8.0))
    transform = {
        "alone": field,
        "first": sitk.CompositeTransform([TURN, field]),
        "behind a linear part": sitk.CompositeTransform([TURN, field, shift]),
    }[place]
    subject = subject_of(transform, grid)
    found = survey(subject)
    assert (found.central > 0).all()
    folded = np.argwhere(found.jacobian <= 0)
    assert len(folded) > 100
    places = grid.to_physical(folded[:, ::-1].astype(float)) - grid.origin
    lower = np.array((19.0, 19.0, 20.0 if place != "behind a linear part" else 28.0))
    above = places - lower
    assert (above >= (-1, -1, -2)).all() and (above <= (16, 16, 5)).all()
    factor = 1.0 if place == "alone" else np.linalg.det(np.reshape(TURN.GetMatrix(), (3, 3)))
    assert found.jacobian.min() == pytest.approx(-5.0 * factor, rel=1e-3)
    values = {(m.key, m.region): m.value for m in regularity_measures(subject, found)}
    assert values["folding", "grid"] > 0
    assert values["folding_central", "grid"] == 0


def test_nodes_are_looked_for_only_where_a_field_comes_first() -> None:
    assert own_nodes(affine(np.eye(3))) is None
    assert own_nodes(foreign_composite(GRID)) is None
    assert own_nodes(sitk.CompositeTransform([TURN, TURN])) is None


def test_a_field_on_the_images_own_grid_or_far_from_it_adds_nothing() -> None:
    nodes = own_nodes(as_transform(rough_field(GRID, 3.0), GRID))
    assert len(folded_nodes(nodes, GRID)[0]) == 0
    far = Grid(GRID.size, GRID.spacing, (900.0, 900.0, 900.0), GRID.direction)
    assert len(folded_nodes(nodes, far)[0]) == 0


def test_a_single_slice_folds_in_its_plane_only() -> None:
    grid = Grid((9, 8, 1), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0))
    vectors = torch.zeros(3, *grid.shape)
    vectors[0, 0, 4, 4] = 2.0
    flat, values = folded_voxels(vectors, grid)
    assert sorted(flat.tolist()) == [4 * 9 + 4, 4 * 9 + 5]
    np.testing.assert_allclose(values, -1.0)


def test_a_smooth_field_and_a_turn_of_space_do_not_fold() -> None:
    found = survey(subject_of(foreign_composite(tilted_grid()), tilted_grid()))
    assert found.central is found.jacobian
    half_turn = affine(np.diag([-1.0, -1.0, 1.0]))
    assert (survey(subject_of(half_turn)).jacobian > 0).all()


def test_registering_evaluating_and_assessing_count_the_same_folds() -> None:
    """On a coarse lattice over a finer image, in front of an affine transform."""
    grid = tilted_grid((24, 22, 40))
    lattice = tilted_grid((9, 10, 16))
    field = DisplacementField(torch.from_numpy(rough_field(lattice, 1.5)), lattice)
    total = sitk.CompositeTransform([TURN, field.to_sitk_transform()])
    found = survey(subject_of(total, grid))
    assessed = found.jacobian <= 0
    assert 0 < assessed.mean() < 0.9
    np.testing.assert_array_equal(sample_folds(field, linear_matrix(TURN), grid), assessed)
    np.testing.assert_array_equal(folds_of(total, sample_transform(total, grid)), assessed)
    said = summarize_folds(assessed, np.zeros(grid.shape, bool))["folding_percent_one_sided"]
    assert said == {"body": said["grid"], "grid": pytest.approx(100 * assessed.mean())}
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    assert sample_folds(field, mirror, grid).all()
