"""The quality assurance on real images: the follow-up pair, and 118 structures of a thorax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.assurance.deformation import survey
from GlideRegLib.assurance.job import AssessJob, run_assess_job
from GlideRegLib.assurance.names import read_names
from GlideRegLib.assurance.records import Verdict
from GlideRegLib.assurance.structures import structure_measures
from GlideRegLib.assurance.subject import Subject
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import read_landmark_pair
from GlideRegLib.propagation.job import PropagateJob, run_propagate_job
from GlideRegLib.volume import Volume, read_labels, read_volume


def test_the_mean_shift_of_the_follow_up_pair_leaves_the_error_that_the_data_state(
    shared_data: Path, tmp_path: Path
) -> None:
    """The manifest: 35.3 mm before, 4.2 mm after the mean shift; 51 landmarks."""
    folder = shared_data / "lung_followup"
    points = [folder / f"{name}_points51.txt" for name in ("baseline", "followup")]
    pair = [landmarks.points for landmarks in read_landmark_pair(*points)]
    shift = sitk.TranslationTransform(3, (pair[1] - pair[0]).mean(axis=0).tolist())
    sitk.WriteTransform(shift, str(tmp_path / "shift.tfm"))
    (tmp_path / "names.csv").write_text("id,name\n1,right lung\n")
    job = AssessJob(
        str(folder / "baseline.mha"),
        str(folder / "followup.mha"),
        str(tmp_path / "shift.tfm"),
        str(tmp_path / "out"),
        (str(points[0]),),
        (str(points[1]),),
        str(folder / "baseline_mask.mha"),
        str(folder / "followup_mask.mha"),
        names=str(tmp_path / "names.csv"),
    )
    found = run_assess_job(job)
    tre = found.find("tre_mean")
    assert tre.before == pytest.approx(35.27, abs=0.01)
    assert tre.value == pytest.approx(4.2, abs=0.1)
    assert (tre.n, tre.verdict) == (51, Verdict.NOT_COMPLIANT)
    assert tre.criterion.startswith("≤ 2.5 mm (largest voxel side)")
    assert found.worst_structure == "right lung"
    assert found.find("dice", "right lung").value > found.find("dice", "right lung").before
    assert found.find("folding", "body").value == 0
    assert found.find("volume_change_jacobian", "right lung").value == pytest.approx(0, abs=0.01)
    assert found.find("volume_change", "right lung").value > 10  # it breathed in more deeply
    page = (tmp_path / "out" / "assessment.html").stat().st_size
    assert 3e5 < page < 5e6


def test_a_hundred_structures_each_get_their_shift(shared_data: Path) -> None:
    """The thorax against itself moved by whole voxels: known shifts for every structure."""
    folder = shared_data / "thorax_lidc0001"
    ct = read_volume(folder / "LIDC-IDRI-0001_ct.nii.gz")
    labels = read_labels(folder / "LIDC-IDRI-0001_seg118.nii.gz")
    names = read_names(folder / "structures.csv")
    assert names[5] == "liver"
    vector = ct.grid.direction_matrix @ (np.array([2, -1, 1]) * ct.grid.spacing)
    moving = labels.resampled(
        labels.grid, sitk.TranslationTransform(3, (-vector).tolist()), labels=True
    )
    still = sitk.TranslationTransform(3)
    subject = Subject(ct, ct, still, labels=(labels, moving), names=names)
    found = structure_measures(subject, survey(subject))
    shifts = {(m.region, m.key): m.value for m in found}
    counts = np.bincount(labels.array.ravel())
    checked = 0
    for label, name in subject.structure_names().items():
        box = np.argwhere(labels.array == label)
        low, high = box.min(axis=0), box.max(axis=0)
        cut = (low < 3).any() or (high > np.array(labels.array.shape) - 4).any()
        if cut or counts[label] < 10:
            continue
        for axis, value in zip(("lr", "ap", "si"), vector, strict=True):
            assert shifts[name, f"centroid_{axis}"] == pytest.approx(value, abs=1e-3), name
        assert shifts[name, "volume_change"] == pytest.approx(0.0, abs=1e-6)
        checked += 1
    assert checked > 40


def test_structures_that_were_carried_are_assessed_as_those_of_simpleitk(
    shared_data: Path, tmp_path: Path
) -> None:
    """118 structures through a known bend: carried by the command, and by SimpleITK alone; then
    held against the originals, with the bend and without it."""
    folder = shared_data / "thorax_lidc0001"
    names = read_names(folder / "structures.csv")
    thin = slice(None, None, 3)
    moving, ct = (
        _thinned(read(folder / f"LIDC-IDRI-0001_{name}.nii.gz"), thin)
        for read, name in ((read_labels, "seg118"), (read_volume, "ct"))
    )
    bend = _bend(moving.grid)
    for path, image in (
        ("labels.mha", moving.to_sitk()),
        ("ct.mha", ct.to_sitk()),
        ("bend.mha", bend.GetDisplacementField()),
    ):
        sitk.WriteImage(image, str(tmp_path / path))
    theirs = sitk.Resample(moving.to_sitk(), moving.to_sitk(), bend, sitk.sitkNearestNeighbor)
    run_propagate_job(
        PropagateJob(
            *(str(tmp_path / name) for name in ("ct.mha", "ct.mha", "bend.mha", "out")),
            labels=(str(tmp_path / "labels.mha"),),
        )
    )
    carried = read_labels(tmp_path / "out" / "labels.mha")
    np.testing.assert_array_equal(carried.array, sitk.GetArrayFromImage(theirs))

    warped = ct.resampled(ct.grid, bend, -1024.0)
    subject = Subject(warped, ct, bend, labels=(carried, moving), names=names)
    found = structure_measures(subject, survey(subject))
    measured = {(m.region, m.key): m for m in found}
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(theirs, moving.to_sitk())
    counts, checked = np.bincount(carried.array.ravel(), minlength=256), 0
    for label, name in subject.structure_names().items():
        if counts[label] < 10:
            continue
        checked += 1
        dice = measured[name, "dice"]
        assert dice.value == 1.0, name  # through the same transform nothing is left to be seen
        assert dice.before == pytest.approx(overlap.GetDiceCoefficient(label), abs=1e-6)
        assert measured[name, "mean_distance"].value == 0.0
    assert checked > 60
    # A bend of up to 9 mm is seen without it.
    assert measured["heart", "dice"].before < 0.95


def _thinned(volume: Volume, every: slice) -> Volume:
    """Every third voxel, with the grid that belongs to it."""
    grid, step = volume.grid, every.step
    array = np.ascontiguousarray(volume.array[every, every, every])
    spacing = tuple(step * s for s in grid.spacing)
    return Volume(array, Grid(array.shape[::-1], spacing, grid.origin, grid.direction))


def _bend(grid: Grid) -> sitk.DisplacementFieldTransform:
    """A smooth displacement of up to 9 mm, fixed to moving, on a grid."""
    axes = np.meshgrid(*[np.linspace(0, np.pi, n) for n in grid.shape], indexing="ij")
    vectors = np.stack([9 * np.sin(axes[k]) for k in (1, 2, 0)], axis=-1)
    image = grid.copy_to_sitk(sitk.GetImageFromArray(vectors, isVector=True))
    return sitk.DisplacementFieldTransform(image)
