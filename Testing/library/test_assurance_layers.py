"""Structures that overlap, in pairs of label maps of their own; and the list of folded clusters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from assurance_scenes import affine, as_transform, subject_of, tilted_grid

from GlideRegLib.assurance.assess import assess
from GlideRegLib.assurance.job import AssessJob, run_assess_job
from GlideRegLib.assurance.profile import Profile
from GlideRegLib.assurance.records import Assessment
from GlideRegLib.assurance.subject import Subject
from GlideRegLib.cli import main
from GlideRegLib.errors import InputError
from GlideRegLib.redaction import without_persons
from GlideRegLib.volume import Volume, read_labels

GRID = tilted_grid((30, 28, 26))
SHIFT = affine(np.eye(3), (1.5, 0.0, 0.0))
NAMES = {1: "lung", 2: "tumor"}


def box(label: int, low: int, high: int) -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    array[low:high, low:high, low:high] = label
    return Volume(array, GRID)


def overlapping(**more: object) -> Subject:
    """A tumor inside a lung, each in a pair of maps of its own."""
    lung, tumor = box(1, 5, 20), box(2, 9, 13)
    return subject_of(
        SHIFT, GRID, labels=(lung, lung), more_labels=((tumor, tumor),), names=NAMES, **more
    )


def of_structure(subject: Subject, name: str) -> dict[str, tuple]:
    found, _ = assess(subject, Profile.named("tg132"))
    return {m.key: (m.value, m.before, m.place, m.verdict) for m in found.of_structure(name)}


def test_structures_that_overlap_are_measured_as_if_each_were_alone() -> None:
    both = overlapping(backward=affine(np.eye(3), (-1.4, 0.0, 0.0)))
    tumor = box(2, 9, 13)
    alone = replace(both, labels=(tumor, tumor), more_labels=())
    expected = of_structure(alone, "tumor")
    assert of_structure(both, "tumor") == expected
    assert expected["structure_consistency_p95"][0] == pytest.approx(0.1, abs=1e-4)
    assert expected["displacement_lr"][0] == pytest.approx(1.5, abs=1e-4)
    assert of_structure(both, "lung") == of_structure(replace(both, more_labels=()), "lung")


def test_a_label_in_two_pairs_is_refused() -> None:
    lung = box(1, 5, 20)
    subject = subject_of(SHIFT, GRID, labels=(lung, lung), more_labels=((lung, lung),))
    with pytest.raises(InputError, match="same label"):
        subject.check()


def test_folded_clusters_are_listed_the_largest_first_and_where_they_are() -> None:
    field = np.zeros((3, *GRID.shape))
    field[0, 8:12, 10:14, 12:16] = -6.0  # one step of 1.5 mm back over itself, four voxels wide
    field[0, 18:20, 20:22, 12:14] = -6.0
    found, evidence = assess(subject_of(as_transform(field, GRID), GRID), Profile.named("tg132"))
    folded = np.argwhere(evidence.survey.jacobian <= 0)[:, ::-1]
    assert len(found.folds) >= 2 and all("in the body" in fold.why for fold in found.folds)
    counts = [int(fold.why.split()[0]) for fold in found.folds]
    assert counts == sorted(counts, reverse=True)
    assert found.folds[0].place == found.find("largest_fold").place
    for fold in found.folds:
        index = np.round(GRID.to_index(np.asarray([fold.place]))[0])
        assert (folded == index).all(axis=1).any(), "a marker lies on a folded voxel"
    assert Assessment.from_dict(json.loads(json.dumps(found.to_dict()))).folds == found.folds


def test_a_field_without_folds_lists_none() -> None:
    found, _ = assess(subject_of(SHIFT, GRID), Profile.named("tg132"))
    assert found.folds == ()


@pytest.fixture
def job(tmp_path: Path) -> AssessJob:
    """The overlapping pair as files."""
    subject = overlapping()
    pairs = {"labels": subject.labels, "more": subject.more_labels[0]}
    for name, pair in (("image", (subject.fixed, subject.moving)), *pairs.items()):
        for role, volume in zip(("fixed", "moving"), pair, strict=True):
            sitk.WriteImage(volume.to_sitk(), str(tmp_path / f"{role}-{name}.nrrd"))
    sitk.WriteTransform(SHIFT, str(tmp_path / "t.tfm"))
    (tmp_path / "names.csv").write_text("id,name\n1,lung\n2,tumor\n", encoding="utf-8")
    files = {
        f"{p}{r}_labels": str(tmp_path / f"{r}-{n}.nrrd")
        for p, n in (("", "labels"), ("more_", "more"))
        for r in ("fixed", "moving")
    }
    more = {k: (files.pop(k),) for k in list(files) if k.startswith("more")}
    return AssessJob(
        str(tmp_path / "fixed-image.nrrd"),
        str(tmp_path / "moving-image.nrrd"),
        str(tmp_path / "t.tfm"),
        str(tmp_path / "out"),
        names=str(tmp_path / "names.csv"),
        report=False,
        jacobian=True,
        quick=True,
        **files,
        **more,
    )


def test_a_job_takes_further_pairs_and_writes_a_quick_map(job: AssessJob) -> None:
    again = AssessJob.from_json(job.to_json())
    assert again == job
    found = run_assess_job(again)
    assert found.structures() == ["lung", "tumor"]
    assert sorted(path.name for path in Path(job.output).iterdir()) == [
        "assessment.json",
        "jacobian.mha",
    ]
    assert sitk.ReadImage(str(Path(job.output) / "jacobian.mha")).GetSize() == GRID.size


def test_a_further_map_without_its_partner_is_refused(job: AssessJob) -> None:
    with pytest.raises(InputError, match="pairs"):
        run_assess_job(replace(job, more_moving_labels=()))
    assert not Path(job.output).exists()


def test_the_command_takes_further_pairs(job: AssessJob) -> None:
    arguments = ["assess", job.fixed, job.moving, "--transform", job.transform, "-o", job.output]
    for name in ("fixed_labels", "moving_labels", "names"):
        arguments += [f"--{name.replace('_', '-')}", getattr(job, name)]
    arguments += ["--more-fixed-labels", job.more_fixed_labels[0]]
    arguments += ["--more-moving-labels", job.more_moving_labels[0]]
    assert main(arguments) == 0
    data = json.loads((Path(job.output) / "assessment.json").read_text(encoding="utf-8"))
    assert Assessment.from_dict(data).structures() == ["lung", "tumor"]


# --- segmentations whose segments overlap ---------------------------------------------------------


def write_segmentation(path: Path, layers: list[np.ndarray], segments: list[tuple]) -> str:
    """A Slicer .seg.nrrd; ``segments`` are (name, layer, label)."""
    images = [Volume(layer.astype(np.uint8), GRID).to_sitk() for layer in layers]
    image = images[0] if len(images) == 1 else sitk.Compose(images)
    for k, (name, layer, label) in enumerate(segments):
        about = {"ID": f"s{k}", "Name": name, "Layer": layer, "LabelValue": label}
        for key, value in about.items():
            image.SetMetaData(f"Segment{k}_{key}", str(value))
    sitk.WriteImage(image, str(path))
    return str(path)


def segmentations(folder: Path) -> dict[str, str]:
    """Lung, tumor and vessel: all in layers and numbers of their own in either file, so that a
    pairing by number would compare lungs with tumors; the moving one lacks the vessel."""
    lung, tumor, vessel = (box(1, 5, 20).array, box(1, 9, 13).array, box(1, 21, 24).array)
    fixed = [lung + 2 * vessel, tumor]
    named = [("lung", 0, 1), ("vessel", 0, 2), ("tumor", 1, 1)]
    moving = [tumor, 3 * lung]
    return {
        "fixed_labels": write_segmentation(folder / "f.seg.nrrd", fixed, named),
        "moving_labels": write_segmentation(
            folder / "m.seg.nrrd", moving, [("tumor", 0, 1), ("lung", 1, 3)]
        ),
    }


def test_overlapping_segments_are_paired_by_name(job: AssessJob, tmp_path: Path) -> None:
    own = segmentations(tmp_path)
    plain = {"names": None, "more_fixed_labels": (), "more_moving_labels": ()}
    found = run_assess_job(replace(job, **own, **plain))
    expected = run_assess_job(replace(job, output=str(tmp_path / "maps")))
    assert found.structures() == ["lung", "vessel", "tumor"]
    for name in ("lung", "tumor"):
        for key in ("dice", "hd95", "displacement_lr", "volume_change"):
            value = expected.find(key, name).value
            assert found.find(key, name).value == pytest.approx(value), (name, key)
    assert found.find("dice", "vessel").value is None
    assert found.find("displacement_lr", "vessel").value == pytest.approx(1.5, abs=1e-3)
    alone = run_assess_job(
        replace(job, **{**own, "moving_labels": None}, **plain, output=str(tmp_path / "alone"))
    )
    assert alone.find("structure_folding", "tumor").value == 0
    assert alone.find("dice", "tumor").value is None


def test_overlapping_segments_and_a_plain_map_get_one_sentence(
    job: AssessJob, tmp_path: Path
) -> None:
    own = segmentations(tmp_path)
    plain = {"more_fixed_labels": (), "more_moving_labels": ()}
    for change in (own, {"fixed_labels": own["fixed_labels"], "names": None}):
        with pytest.raises(InputError, match="overlapping segments"):
            run_assess_job(replace(job, **change, **plain))


def test_huge_labels_are_measured_and_keep_their_names(job: AssessJob, tmp_path: Path) -> None:
    """Two billion, as programs write them that hash a name: a table up to it would take 60 GB."""
    huge = 2_000_000_000
    array = np.where(box(1, 5, 10).array, 7, 0) + np.where(box(1, 12, 20).array, huge, 0)
    path = tmp_path / "huge.nrrd"
    sitk.WriteImage(Volume(array.astype(np.int32), GRID).to_sitk(), str(path))
    (tmp_path / "names.csv").write_text(f"id,name\n{huge},liver\n", encoding="utf-8")
    files = {"fixed_labels": str(path), "moving_labels": str(path)}
    plain = {"more_fixed_labels": (), "more_moving_labels": ()}
    found = run_assess_job(replace(job, **files, **plain))
    assert found.structures() == ["label 7", "liver"]
    liver = of_structure(subject_of(SHIFT, GRID, labels=(box(1, 12, 20),) * 2), "label 1")
    assert found.find("dice", "liver").value == pytest.approx(liver["dice"][0])
    assert found.find("displacement_lr", "liver").value == pytest.approx(1.5, abs=1e-3)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 4, 4), 2**32 - 1, np.uint32)), str(path))
    with pytest.raises(InputError, match="largest is 2147483647"):
        read_labels(path)


def test_a_person_in_the_name_of_a_segment_is_not_printed(job: AssessJob, tmp_path: Path) -> None:
    """Names of a table and of segments; the page and its numbers say that names are printed."""
    person = "GTV Miller^Ann DOB 1950-01-02"
    (tmp_path / "names.csv").write_text(f"id,name\n1,lung\n2,{person}\n", encoding="utf-8")
    file = write_segmentation(tmp_path / "p.seg.nrrd", [box(1, 5, 20).array], [(person, 0, 1)])
    segments = {
        "fixed_labels": file,
        "moving_labels": file,
        "more_fixed_labels": (),
        "more_moving_labels": (),
        "names": None,
    }
    for number, change in enumerate(({}, segments)):
        folder = tmp_path / f"out{number}"
        found = run_assess_job(replace(job, **change, output=str(folder), report=True))
        assert "GTV (name) (date)" in found.structures()
        for name in ("assessment.json", "assessment.html"):
            words = (folder / name).read_text(encoding="utf-8")
            assert "(name) (date)" in words
            assert not any(part in words for part in ("Miller", "^Ann", "1950-01"))
            assert "read them before you pass this on" in words


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("O'Neil^Pat GTV1", "(name) GTV1"),
        ("M\u00fcller^Hans-Peter^^Dr. lung", "(name) lung"),
        ("CTV born 02.01.1950", "CTV (date)"),
        ("lung DOB:19500102", "lung (date)"),
        ("PTV_60^2", "PTV_60^2"),
        ("Lung L^2", "Lung L^2"),
        ("heart", "heart"),
    ],
)
def test_what_dicom_writes_of_people_is_taken_out_of_names(typed: str, printed: str) -> None:
    assert without_persons(typed) == printed
