"""``glidereg track``, run as a user runs it: on the nodule phantom, and on small files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nodule_scene import GONE, STAYS, write_small_pair

from GlideRegLib.cli import main
from GlideRegLib.landmarks import write_landmarks
from GlideRegLib.sample_data.nodule_phantom import NodulePair
from GlideRegLib.tracking.files import read_tracking
from GlideRegLib.tracking.nodules import as_point
from GlideRegLib.tracking.records import Tracking

REGISTERED = {"transform.h5", "inverse_transform.h5", "warped.nii.gz", "result.json"}
TRACKED = {"nodules.csv", "nodules.json", "report.html", "nodule-01.jpg"}


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def words_of(path: Path) -> str:
    """The text of a page without its pictures."""
    return re.sub(r"data:image/[a-z]+;base64,[^\"]*", "", path.read_text(encoding="utf-8"))


# --- the story: from two scans and a list to a table ------------------------------------------


@pytest.fixture(scope="module")
def phantom_files(nodule_pair: NodulePair, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return nodule_pair.save(tmp_path_factory.mktemp("nodules"))


@pytest.fixture(scope="module")
def story(phantom_files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one command: register, follow, segment, measure."""
    output = tmp_path_factory.mktemp("story") / "out"
    arguments = ["track", str(phantom_files["fixed"]), str(phantom_files["moving"])]
    for side in ("moving", "fixed"):
        arguments += [f"--{side}-nodules", str(phantom_files[f"{side}_nodules"])]
    arguments += ["--preset", "fast", "--encoder", "none", "--threads", "1", "--segment"]
    arguments += ["--dates", "2024-01-31", "2024-08-18", "-o", str(output)]
    assert main(arguments) == 0
    return output


@pytest.fixture(scope="module")
def tracked(story: Path) -> Tracking:
    return read_tracking(story / "nodules.json")


def truth_of(pair: NodulePair, name: str) -> object:
    return next(n for n in pair.nodules if f"N{n.number}" == name)


def test_all_files_are_there(story: Path, tracked: Tracking) -> None:
    found = files_in(story)
    assert found >= REGISTERED | TRACKED
    assert sum(name.endswith(".jpg") for name in found) == len(tracked) == 17


def test_every_state_is_right(tracked: Tracking, nodule_pair: NodulePair) -> None:
    for row in tracked:
        assert row.state == truth_of(nodule_pair, row.name).state, row.name


def test_every_nodule_is_paired_with_itself(tracked: Tracking, nodule_pair: NodulePair) -> None:
    for row in tracked:
        if row.state == "matched":
            center = truth_of(nodule_pair, row.name).fixed_center
            assert np.allclose(row.fixed_center, center, atol=1e-3), row.name


def test_predicted_positions_are_as_near_as_promised(
    tracked: Tracking, nodule_pair: NodulePair
) -> None:
    """CPM at 0.5, 1, 2 and 5 mm: at least 80, 95, 100 and 100 %."""
    errors = [
        np.linalg.norm(
            np.subtract(row.predicted_position, truth_of(nodule_pair, row.name).fixed_center)
        )
        for row in tracked
        if truth_of(nodule_pair, row.name).state == "matched"
    ]
    shares = [100 * np.mean(np.asarray(errors) <= limit) for limit in (0.5, 1, 2, 5)]
    assert len(errors) == 12
    assert np.all(np.greater_equal(shares, (80, 95, 100, 100))), shares


def test_the_change_of_volume_is_right_for_nodules_of_6_mm(
    tracked: Tracking, nodule_pair: NodulePair
) -> None:
    """Current over prior volume within 10 % of its true value."""
    checked = 0
    for row in tracked:
        truth = truth_of(nodule_pair, row.name)
        if truth.state != "matched" or truth.diameter_mm("moving") < 5.99:
            continue
        ratio = 1 + row.growth.volume_change_percent / 100
        assert ratio == pytest.approx(truth.factor, rel=0.10), row.name
        assert row.growth.days == 200.0
        checked += 1
    assert checked >= 9


def test_the_report_holds_the_registration_and_the_nodules(story: Path, tracked: Tracking) -> None:
    page = (story / "report.html").read_text(encoding="utf-8")
    assert "<h2>Nodules</h2>" in page
    assert "<h2>Deformation</h2>" in page
    assert page.count("data:image/jpeg;base64,") >= len(tracked)
    assert "Research use only" in page
    words = words_of(story / "report.html")
    assert "http" not in words.replace("http-equiv", "")
    assert "The scans are 200 days apart." in words


def test_nothing_names_a_file_or_a_date(story: Path, phantom_files: dict) -> None:
    for name in ("report.html", "nodules.csv", "nodules.json", "result.json"):
        text = words_of(story / name)
        assert str(story) not in text
        assert str(phantom_files["fixed"].parent) not in text
        assert "mrk.json" not in text
        assert "2024-01-31" not in text


def test_label_maps_and_a_given_transform_lead_to_the_same_pairs(
    story: Path, tracked: Tracking, phantom_files: dict, tmp_path: Path
) -> None:
    arguments = ["track", str(phantom_files["fixed"]), str(phantom_files["moving"])]
    arguments += ["--transform", str(story / "transform.h5"), "--no-refine", "-o", str(tmp_path)]
    for side in ("moving", "fixed"):
        arguments += [f"--{side}-nodules", str(phantom_files[f"{side}_nodule_labels"])]
    assert main(arguments) == 0
    again = read_tracking(tmp_path / "nodules.json")
    assert {r.name.replace("label ", "N"): r.state for r in again} == {
        r.name: r.state for r in tracked
    }
    assert all(r.moving_method in ("marked", "") for r in again)
    assert not files_in(tmp_path) & REGISTERED
    assert "through a given transform" in words_of(tmp_path / "report.html")


# --- small files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A current and a prior scan, their nodules, and the translation between them."""
    return write_small_pair(tmp_path_factory.mktemp("small"))


def command(small: dict, output: Path, **options: object) -> list[str]:
    """``glidereg track`` on the small files; an option None leaves one out."""
    chosen = {
        "moving-nodules": small["before"],
        "fixed-nodules": small["now"],
        "transform": small["shift"],
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    arguments = ["track", str(small["fixed"]), str(small["moving"]), "-o", str(output)]
    for name, value in chosen.items():
        if value is not None:
            arguments += [f"--{name}", *([] if value is True else [str(value)])]
    return arguments


def test_the_table_is_printed_with_the_measures(
    small: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    reference = tmp_path / "truth.csv"
    write_landmarks(reference, np.array([STAYS, GONE]))
    assert main(command(small, tmp_path / "out", reference=reference)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 matched, 1 resolved" in shown
    assert "100 % within 0.5 mm" in shown
    quality = read_tracking(tmp_path / "out" / "nodules.json").quality
    assert quality["tre_mm"]["field"]["max"] < 0.02
    assert "Against the reference" in words_of(tmp_path / "out" / "report.html")


def test_the_prior_may_be_the_fixed_image(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path, prior="fixed")) == 0
    found = read_tracking(tmp_path / "nodules.json")
    assert [row.state for row in found] == ["matched", "new"]
    assert np.allclose(found.rows[0].moving_center, STAYS, atol=1e-3)


def next_run(small: dict, first: Path, output: Path, **options: object) -> Tracking:
    """A later scan, which looks like the current one, against the nodules of an earlier run."""
    still = sitk.TranslationTransform(3, [0.0, 0.0, 0.0])
    sitk.WriteTransform(still, str(first / "still.tfm"))
    known = {"moving_nodules": first / "nodules.json", "transform": first / "still.tfm"}
    arguments = command(small, output, **{**known, **options})
    arguments[2] = arguments[1]
    assert main(arguments) == 0
    return read_tracking(output / "nodules.json")


def test_one_run_hands_identities_to_the_next(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path / "first")) == 0
    first = read_tracking(tmp_path / "first" / "nodules.json")
    second = next_run(small, tmp_path / "first", tmp_path / "second", fixed_nodules=None)
    assert [r.identifier for r in second] == [r.identifier for r in first]
    assert as_point(second.rows[0].moving_center) == first.rows[0].fixed_center


def test_a_nodule_that_was_resolved_keeps_its_identity_when_it_comes_back(
    small: dict, tmp_path: Path
) -> None:
    assert main(command(small, tmp_path / "first", fixed_nodules="none")) == 0
    first = read_tracking(tmp_path / "first" / "nodules.json")
    back = tmp_path / "back.csv"
    write_landmarks(back, np.array([STAYS, GONE]), ["a", "b"])
    second = next_run(small, tmp_path / "first", tmp_path / "second", fixed_nodules=back)
    assert [r.state for r in second] == ["matched", "matched"]
    assert [r.identifier for r in second] == [r.identifier for r in first]
    assert not any("outside of it" in note for note in second.notes)


def test_a_prediction_does_not_become_certain_in_the_next_run(small: dict, tmp_path: Path) -> None:
    image = sitk.ReadImage(str(small["fixed"]), sitk.sitkFloat32) * 0 + 8.0
    image[0, 0, 0] = 8.1
    sitk.WriteImage(image, str(tmp_path / "u.nii.gz"))
    options = {"uncertainty": tmp_path / "u.nii.gz", "fixed_nodules": None}
    assert main(command(small, tmp_path / "first", **options)) == 0
    second = next_run(small, tmp_path / "first", tmp_path / "second")
    assert [row.state for row in second] == ["review", "review"]
    assert second.rows[0].uncertainty_mm == pytest.approx(8.0, abs=0.01)


def test_what_was_measured_is_the_prior_of_the_next_run(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path / "first", segment=True)) == 0
    first = read_tracking(tmp_path / "first" / "nodules.json").rows[0]
    # Without --segment nothing would measure the point.
    second = next_run(small, tmp_path / "first", tmp_path / "second").rows[0]
    assert second.moving_measurement == first.fixed_measurement
    assert second.moving_method == "segmented"


def test_who_was_not_marked_is_no_mark_of_the_current_scan(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path / "first")) == 0
    known = tmp_path / "first" / "nodules.json"
    assert main(command(small, tmp_path / "second", fixed_nodules=known)) == 0
    second = read_tracking(tmp_path / "second" / "nodules.json")
    assert [row.state for row in second] == ["matched", "resolved"]


def test_reference_thresholds_are_off_unless_asked_for(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path / "off", segment=True, days=90)) == 0
    assert main(command(small, tmp_path / "on", segment=True, reference_thresholds=True)) == 0
    assert "Reference thresholds" not in words_of(tmp_path / "off" / "report.html")
    assert "Reference thresholds" in words_of(tmp_path / "on" / "report.html")
    with (tmp_path / "off" / "nodules.csv").open(encoding="utf-8") as stream:
        assert next(csv.DictReader(stream))["days_between"] == "90.000"


def test_the_uncertainty_of_a_transform_can_be_given(small: dict, tmp_path: Path) -> None:
    image = sitk.ReadImage(str(small["fixed"]), sitk.sitkFloat32) * 0 + 4.0
    image[0, 0, 0] = 4.1  # a constant image is refused as a scan
    sitk.WriteImage(image, str(tmp_path / "u.nii.gz"))
    assert main(command(small, tmp_path / "out", uncertainty=tmp_path / "u.nii.gz")) == 0
    rows = read_tracking(tmp_path / "out" / "nodules.json").rows
    assert [row.state for row in rows] == ["review", "review"]
    assert rows[0].uncertainty_mm == pytest.approx(4.0, abs=0.01)


def test_an_error_that_is_not_known_is_said(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path)) == 0
    assert any("not known" in note for note in read_tracking(tmp_path / "nodules.json").notes)
    assert "The error of this transform is not known" in words_of(tmp_path / "report.html")


@pytest.fixture
def registered(small: dict, tmp_path: Path) -> Path:
    """A folder as a registration leaves it, as far as it matters here: transform, error, report."""
    sitk.WriteTransform(sitk.ReadTransform(str(small["shift"])), str(tmp_path / "transform.h5"))
    image = sitk.ReadImage(str(small["fixed"]), sitk.sitkFloat32) * 0 + 4.0
    image[0, 0, 0] = 4.1  # a constant image is refused as a scan
    sitk.WriteImage(image, str(tmp_path / "uncertainty.nii.gz"))
    (tmp_path / "report.html").write_text("<title>Registration report</title>", "utf-8")
    return tmp_path


def test_the_report_of_a_registration_stays_where_its_transform_is_used(
    small: dict, registered: Path
) -> None:
    for _ in range(2):
        assert main(command(small, registered, transform=registered / "transform.h5")) == 0
        assert "Registration report" in words_of(registered / "report.html")
        assert "<h2>Nodules</h2>" in words_of(registered / "nodules.html")


def test_a_page_of_nodules_is_replaced_by_the_next_one(small: dict, tmp_path: Path) -> None:
    (tmp_path / "nodules.html").write_text("<title>Nodule report</title>", "utf-8")
    for fixed_nodules, count in ((small["now"], "resolved"), (None, "predicted")):
        assert main(command(small, tmp_path, fixed_nodules=fixed_nodules)) == 0
        assert count in words_of(tmp_path / "report.html")
        assert not (tmp_path / "nodules.html").exists()


def test_the_error_that_a_registration_wrote_beside_its_transform_is_used(
    small: dict, registered: Path, tmp_path: Path
) -> None:
    transform = registered / "transform.h5"
    assert main(command(small, tmp_path / "out", transform=transform)) == 0
    found = read_tracking(tmp_path / "out" / "nodules.json")
    assert found.rows[0].uncertainty_mm == pytest.approx(4.0, abs=0.01)
    assert [row.state for row in found] == ["review", "review"]
    assert not any("not known" in note for note in found.notes)


def test_a_current_scan_may_hold_no_nodules(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path, fixed_nodules="none")) == 0
    states = [row.state for row in read_tracking(tmp_path / "nodules.json")]
    assert states == ["resolved", "resolved"]


def test_pictures_of_an_earlier_run_do_not_stay(small: dict, tmp_path: Path) -> None:
    (tmp_path / "nodule-07.jpg").write_bytes(b"of five nodules more")
    (tmp_path / "nodule-of-mine.jpg").write_bytes(b"not ours")
    assert main(command(small, tmp_path)) == 0
    pictures = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert pictures == ["nodule-01.jpg", "nodule-02.jpg", "nodule-of-mine.jpg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"moving_nodules": None}, "--moving-nodules"),
        ({"prior": "fixed", "fixed_nodules": None}, "--fixed-nodules"),
        ({"moving_nodules": "nowhere.csv"}, "does not exist"),
        ({"transform": "nowhere.h5"}, "does not exist"),
        ({"days": -3}, "must be positive"),
        ({"matched_mm": 7}, "gates"),
        ({"uncertainty": "u.nii.gz", "transform": None}, "give both"),
    ],
)
def test_wrong_inputs_end_in_one_sentence(
    small: dict, tmp_path: Path, capsys: pytest.CaptureFixture, options: dict, said: str
) -> None:
    assert main(command(small, tmp_path / "out", **options)) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_dates_are_checked(small: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for dates, said in (
        (["2024-02-30", "2024-03-01"], "written as"),
        (["2024-03-02", "2024-03-01"], "must be positive"),
    ):
        assert main([*command(small, tmp_path / "out"), "--dates", *dates]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    twice = [*command(small, tmp_path / "out", days=3), "--dates", "2024-03-01", "2024-03-02"]
    assert main(twice) == 2


def test_a_reference_of_another_length_is_refused(
    small: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(command(small, tmp_path / "out", reference=small["now"])) == 2
    assert "1 points for 2 nodules" in " ".join(capsys.readouterr().err.split())


def test_outputs_appear_whole_or_not_at_all(small: dict, tmp_path: Path) -> None:
    (tmp_path / "nodules.json").mkdir()  # a folder stands in the way
    (tmp_path / "nodules.csv").write_text("mine", "utf-8")
    assert main(command(small, tmp_path)) == 2
    assert files_in(tmp_path) == {"nodules.json", "nodules.csv"}
    assert (tmp_path / "nodules.csv").read_text("utf-8") == "mine"


def test_json_states_schema_frame_and_notice(small: dict, tmp_path: Path) -> None:
    assert main(command(small, tmp_path)) == 0
    data = json.loads((tmp_path / "nodules.json").read_text(encoding="utf-8"))
    assert data["schema"] == "glidereg-nodules-1"
    assert data["frame"] == "LPS"
    assert data["settings"]["gates"]["matched_mm"] == 2.0
