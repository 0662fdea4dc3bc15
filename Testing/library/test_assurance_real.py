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
from GlideRegLib.landmarks import read_landmark_pair
from GlideRegLib.volume import read_labels, read_volume


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
