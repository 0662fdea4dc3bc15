"""``glidereg assess`` as a user runs it: from registering to the report, and on foreign files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from assurance_scenes import as_transform, foreign_composite, subject_of, tilted_grid
from small_pair import QUICK, as_arguments

from GlideRegLib.assurance.assess import assess
from GlideRegLib.assurance.job import AssessJob, read_subject, run_assess_job
from GlideRegLib.assurance.profile import Profile
from GlideRegLib.assurance.records import Assessment, Measure, Verdict
from GlideRegLib.cli import main
from GlideRegLib.errors import Cancelled, InputError, SettingsError
from GlideRegLib.field import read_transform, sample_transform, transform_points
from GlideRegLib.landmarks import read_landmarks, write_landmarks
from GlideRegLib.progress import Progress
from GlideRegLib.volume import read_labels, read_volume, write_volume

NAMES = "id,name\n1,lung of one side\n2,nodule region\n"


def measures_of(folder: Path) -> dict[tuple[str, str], Measure]:
    data = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    return {(m.key, m.region): m for m in Assessment.from_dict(data).measures}


def words_of(path: Path) -> str:
    """The text of a page without its pictures."""
    return re.sub(r"data:image/[a-z]+;base64,[^\"]*", "", path.read_text(encoding="utf-8"))


# --- the story: register, the other way round too, assess -------------------------------------


@pytest.fixture(scope="module")
def story(small_files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both registrations and the assessment with everything there is to measure with."""
    folder = tmp_path_factory.mktemp("trust")
    pair = as_arguments(small_files)
    for name, arguments in (("there", pair), ("back", pair[::-1])):
        assert main(["register", *arguments, "-o", str(folder / name), *QUICK]) == 0
    (folder / "names.csv").write_text(NAMES)
    arguments = ["assess", *pair, "--transform", str(folder / "there" / "transform.h5")]
    arguments += ["--backward", str(folder / "back" / "transform.h5"), "--jacobian"]
    for side in ("fixed", "moving"):
        arguments += [f"--{side}-landmarks", str(small_files[f"{side}_landmarks"])]
        arguments += [f"--{side}-labels", str(small_files[f"{side}_labels"])]
    arguments += ["--names", str(folder / "names.csv"), "-o", str(folder / "out")]
    assert main(arguments) == 0
    return folder


def test_the_story_leaves_page_numbers_and_map(story: Path) -> None:
    names = {path.name for path in (story / "out").iterdir()}
    assert names == {"assessment.html", "assessment.json", "jacobian.nii.gz"}


def test_every_criterion_of_the_profile_was_measured_and_graded(story: Path) -> None:
    data = json.loads((story / "out" / "assessment.json").read_text(encoding="utf-8"))
    assert data["profile"]["name"] == "TG-132"
    assert data["counts"]["not verified"] == 0
    assessment = Assessment.from_dict(data)
    wanted = {criterion.measure for criterion in assessment.profile.criteria}
    assert {m.key for m in assessment.graded()} == wanted
    assert data["verdict"] == assessment.verdict.value
    assert data["worst_structure"] in assessment.structures()


def test_the_numbers_are_those_that_registering_states(story: Path, small_files: dict) -> None:
    found = measures_of(story / "out")
    transform = read_transform(story / "there" / "transform.h5")
    points = [read_landmarks(small_files[f"{s}_landmarks"]).points for s in ("fixed", "moving")]
    errors = np.linalg.norm(transform_points(transform, points[0]) - points[1], axis=1)
    tre = found["tre_mean", "landmarks"]
    assert tre.value == pytest.approx(errors.mean())
    assert tre.value < 2 < tre.before
    assert tre.interval[0] < tre.value < tre.interval[1]
    own = json.loads((story / "there" / "result.json").read_text(encoding="utf-8"))["quality"]
    for region in ("body", "grid"):
        strict = own["folding_percent_one_sided"][region]
        assert found["folding", region].value == pytest.approx(strict)
    assert found["folding", "body"].value == own["folding_percent"]["body"] == 0
    assert found["jacobian_min", "body"].value == pytest.approx(own["jacobian"]["min"], abs=0.02)
    assert found["displacement_mean", "body"].value == pytest.approx(
        own["displacement_mm"]["mean"], rel=0.02
    )


def test_a_backward_run_is_told_from_a_numerical_inverse(story: Path) -> None:
    found = measures_of(story / "out")
    measured = found["inverse_consistency_p95", "body"]
    assert measured.criterion
    assert found["numerical_inverse_p95", "body"].verdict is Verdict.INFORMATION
    assert measured.value > found["numerical_inverse_p95", "body"].value


def test_the_jacobian_map_lies_on_the_fixed_image(story: Path, small_files: dict) -> None:
    found = measures_of(story / "out")
    volume = read_volume(story / "out" / "jacobian.nii.gz")
    assert volume.grid.is_close(read_volume(small_files["fixed"]).grid)
    assert volume.array.min() == pytest.approx(found["jacobian_min", "grid"].value, rel=1e-5)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.links.append(value or "")
        self.images += tag == "img"


def test_the_page_is_self_contained_and_says_what_a_reviewer_needs(story: Path) -> None:
    parser = _Links()
    parser.feed((story / "out" / "assessment.html").read_text(encoding="utf-8"))
    assert parser.images >= 12
    assert all(link.startswith("data:image/") for link in parser.links)
    words = words_of(story / "out" / "assessment.html")
    for said in (
        "Research use only",
        "TG-132",
        "Worst structure",
        "lung of one side",
        "Reviewer's verdict",
        "Name, date, signature",
        "bootstrap",
        "sha256",
        "Places to look at",
        "Checkerboard",
    ):
        assert said in words.replace("&#39;", "'"), said


def test_no_file_no_folder_and_no_patient_is_named(story: Path, small_files: dict) -> None:
    for name in ("assessment.html", "assessment.json"):
        words = words_of(story / "out" / name)
        for path in (story, *small_files.values()):
            assert str(path) not in words
            assert Path(path).name not in words
        assert "names.csv" not in words


# --- transforms of other software -------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(small_files: dict, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A B-spline in front of an affine transform, in every form in which programs leave it."""
    folder = tmp_path_factory.mktemp("foreign")
    grid = read_volume(small_files["fixed"]).grid
    transform = foreign_composite(grid, amplitude=10.0)
    files = {name: folder / f"t.{name}" for name in ("h5", "tfm", "mha", "nii.gz")}
    for name in ("h5", "tfm"):
        sitk.WriteTransform(transform, str(files[name]))
    image = sample_transform(transform, grid).to_sitk()
    for name in ("mha", "nii.gz"):
        sitk.WriteImage(image, str(files[name]))
    return files


def job_of(small_files: dict, transform: Path, output: Path, **kwargs: object) -> AssessJob:
    return AssessJob(
        str(small_files["fixed"]),
        str(small_files["moving"]),
        str(transform),
        str(output),
        (str(small_files["fixed_landmarks"]),),
        (str(small_files["moving_landmarks"]),),
        str(small_files["fixed_labels"]),
        str(small_files["moving_labels"]),
        **kwargs,
    )


def test_all_forms_of_a_foreign_transform_give_the_same_numbers(
    small_files: dict, foreign: dict, tmp_path: Path
) -> None:
    found = {}
    for name, file in foreign.items():
        job = job_of(small_files, file, tmp_path / name, report=False)
        run_assess_job(job)
        found[name] = measures_of(tmp_path / name)
        assert not (tmp_path / name / "assessment.html").exists()
    reference = found.pop("h5")
    compared = 0
    for name, measures in found.items():
        for key, measure in reference.items():
            if measure.value is None or key[0].startswith("numerical"):
                continue
            # A sampled field is linear between voxels: landmarks feel it by some hundredths.
            margin = 1e-3 if name == "tfm" else 0.08
            assert measures[key].value == pytest.approx(measure.value, rel=0.02, abs=margin), key
            compared += 1
    assert compared > 100


def test_a_triangle_of_files_is_closed(small_files: dict, foreign: dict, tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.TranslationTransform(3, (0.0, 0.0, 1.5)), str(tmp_path / "on.tfm"))
    third = {"onward": str(tmp_path / "on.tfm"), "direct": str(foreign["h5"])}
    run_assess_job(job_of(small_files, foreign["h5"], tmp_path / "out", report=False, **third))
    gap = measures_of(tmp_path / "out")["transitivity_p95", "body"]
    assert gap.value == pytest.approx(1.5, abs=1e-4)


def test_a_foreign_transform_is_held_against_the_truth(
    small_files: dict, foreign: dict, tmp_path: Path
) -> None:
    """Landmarks that the foreign transform itself has moved: an error of nothing."""
    transform = read_transform(foreign["h5"])
    points = read_landmarks(small_files["fixed_landmarks"]).points
    write_landmarks(tmp_path / "true.csv", transform_points(transform, points))
    labels = read_labels(small_files["moving_labels"])
    carried = labels.resampled(read_volume(small_files["fixed"]).grid, transform, labels=True)
    write_volume(tmp_path / "carried.nii.gz", carried)
    job = job_of(small_files, foreign["tfm"], tmp_path / "out", report=False)
    job = AssessJob(
        **{
            **vars(job),
            "moving_landmarks": (str(tmp_path / "true.csv"),),
            "fixed_labels": str(tmp_path / "carried.nii.gz"),
        }
    )
    run_assess_job(job)
    found = measures_of(tmp_path / "out")
    assert found["tre_max", "landmarks"].value < 1e-3
    dice = [m.value for (key, _), m in found.items() if key == "dice" and m.value is not None]
    assert dice and all(value == 1.0 for value in dice)


# --- jobs, cancelling, bad inputs -------------------------------------------------------------


def test_a_job_survives_its_way_through_json(small_files: dict, tmp_path: Path) -> None:
    job = job_of(small_files, tmp_path / "t.h5", tmp_path, names="n.csv", profile="srs-1mm")
    assert json.loads(job.to_json())["task"] == "assess"
    assert AssessJob.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "task"),
        ('{"task": "track"}', "task"),
        ('{"task": "assess", "fixed": "a"}', "lacks moving, transform, output"),
        (
            '{"task": "assess", "fixed": "a", "moving": "b", "transform": "c", "output": "d", '
            '"fuxed": 1}',
            "unknown names: fuxed",
        ),
    ],
)
def test_wrong_jobs_get_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        AssessJob.from_json(text)


def test_the_worker_assesses(small_files: dict, foreign: dict, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(job_of(small_files, foreign["h5"], tmp_path / "out", report=False).to_json())
    done = subprocess.run(
        [sys.executable, "-m", "GlideRegLib.worker", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages == ["read", "field", "structures", "consistency", "intensities", "save"]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.5
    assert events[-1]["event"] == "result"
    assert events[-1]["verdict"] == "not compliant"
    assert events[-1]["counts"]["not verified"] == 1
    assert (tmp_path / "out" / "assessment.json").is_file()


@pytest.mark.parametrize("stage", ["read", "field", "structures", "consistency", "report", "save"])
def test_cancelling_leaves_nothing_behind(
    stage: str, small_files: dict, foreign: dict, tmp_path: Path
) -> None:
    reached: list[str] = []
    progress = Progress(lambda event: reached.append(event.stage), lambda: stage in reached)
    with pytest.raises(Cancelled):
        run_assess_job(job_of(small_files, foreign["mha"], tmp_path / "out"), progress)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transform": "none.h5"}, "does not exist"),
        ({"fixed_labels": None}, "fixed labels too"),
        ({"moving_landmarks": ()}, "corresponding pairs"),
        ({"onward": "T"}, "third image"),
        ({"profile": "strict"}, "neither one of"),
        ({"names": "none.csv"}, "names 'none.csv' cannot be read"),
    ],
)
def test_wrong_inputs_get_one_sentence(
    change: dict, said: str, small_files: dict, foreign: dict, tmp_path: Path
) -> None:
    change = {k: str(foreign["h5"]) if v == "T" else v for k, v in change.items()}
    job = job_of(small_files, foreign["h5"], tmp_path / "out")
    with pytest.raises((InputError, SettingsError), match=said):
        run_assess_job(AssessJob(**{**vars(job), **change}))
    assert not (tmp_path / "out").exists()


def test_inputs_stay_as_they_are(small_files: dict, foreign: dict, tmp_path: Path) -> None:
    subject = read_subject(job_of(small_files, foreign["h5"], tmp_path), Progress())
    arrays = [subject.fixed.array, subject.moving.array, *(v.array for v in subject.labels)]
    copies = [a.copy() for a in (*arrays, *subject.landmarks)]
    assess(subject, Profile.named("tg132"))
    for array, copy in zip((*arrays, *subject.landmarks), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("cut", "border", "said"), [(0, 4.0, False), (4, 4.0, True), (4, 0.0, False)]
)
def test_a_field_that_ends_inside_the_fixed_image_is_told(
    cut: int, border: float, said: bool
) -> None:
    grid = tilted_grid()
    part = grid.padded((-cut,) * 3, (-cut,) * 3)
    vectors = np.zeros((3, *part.shape))
    vectors[:, 2:-2, 2:-2, 2:-2] = 4.0
    vectors[vectors == 0] = border
    found, _ = assess(subject_of(as_transform(vectors, part), grid), Profile.named("tg132"))
    assert any("ends inside the fixed image" in note for note in found.notes) == said


def test_images_alone_are_enough_and_what_they_cannot_tell_is_not_verified(
    small_files: dict, foreign: dict, tmp_path: Path
) -> None:
    arguments = ["assess", *as_arguments(small_files), "--transform", str(foreign["h5"])]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    found = measures_of(tmp_path / "out")
    for key in ("tre_mean", "dice", "inverse_consistency_p95"):
        measure = next(m for (k, _), m in found.items() if k == key)
        assert measure.verdict is Verdict.NOT_VERIFIED
    data = json.loads((tmp_path / "out" / "assessment.json").read_text(encoding="utf-8"))
    assert data["worst_structure"] is None
    words = words_of(tmp_path / "out" / "assessment.html")
    assert "Worst structure" not in words
    assert "no landmarks were given" in words
    assert "no labels were given" in words
