"""Verdicts: limits at their edges, profiles and their files, nothing unmeasured is called good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from GlideRegLib.assurance.catalog import KINDS
from GlideRegLib.assurance.grading import grade
from GlideRegLib.assurance.names import read_names
from GlideRegLib.assurance.profile import Profile, available_profiles, built_in_profiles
from GlideRegLib.assurance.records import Assessment, Measure, Verdict
from GlideRegLib.cli import app
from GlideRegLib.errors import InputError, SettingsError


def verdict_of(measure: Measure, profile: str = "tg132", voxel_mm: float = 2.0) -> Verdict:
    graded = grade([measure], Profile.named(profile), voxel_mm)
    return graded[0].verdict


def own_profile(*criteria: dict) -> dict:
    texts = {"name": "Ours", "description": "d", "source": "s"}
    return {"schema": "glidereg-profile-1", **texts, "criteria": list(criteria)}


@pytest.mark.parametrize("name", built_in_profiles())
def test_built_in_profiles_are_read_and_come_back(name: str) -> None:
    profile = Profile.named(name)
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


@pytest.mark.parametrize("name", built_in_profiles())
def test_without_any_measure_nothing_is_good(name: str) -> None:
    profile = Profile.named(name)
    graded = grade([], profile, 2.0)
    assert [m.verdict for m in graded] == [Verdict.NOT_VERIFIED] * len(profile.criteria)
    assert all(m.value is None and m.note and m.text == "not measured" for m in graded)
    assert Assessment(graded, profile).verdict is Verdict.NOT_VERIFIED


def test_one_unmeasured_criterion_keeps_the_whole_from_being_compliant() -> None:
    profile = Profile.named("mean2-max5")
    good = [Measure("tre_mean", "landmarks", 1.0, n=30), Measure("folding", "body", 0.0)]
    assessment = Assessment(grade(good, profile, 2.0), profile)
    assert assessment.verdict is Verdict.NOT_VERIFIED
    good.append(Measure("tre_max", "landmarks", 4.9, n=30))
    assert Assessment(grade(good, profile, 2.0), profile).verdict is Verdict.COMPLIANT


@pytest.mark.parametrize(
    ("value", "voxel_mm", "verdict"),
    [
        (2.0, 2.0, "compliant"),
        (2.01, 2.0, "review"),
        (3.0, 2.0, "review"),
        (3.01, 2.0, "not compliant"),
        (3.5, 5.0, "review"),  # thick slices do not make 5 mm good
        (5.01, 5.0, "not compliant"),
    ],
)
def test_tg132_is_the_largest_voxel_side_up_to_about_three_millimeters(
    value: float, voxel_mm: float, verdict: str
) -> None:
    measure = Measure("tre_mean", "landmarks", value, n=20)
    assert verdict_of(measure, voxel_mm=voxel_mm).value == verdict


@pytest.mark.parametrize(
    ("dice", "verdict"),
    [(0.9, "compliant"), (0.89, "review"), (0.8, "review"), (0.79, "not compliant")],
)
def test_more_is_better_for_dice(dice: float, verdict: str) -> None:
    assert verdict_of(Measure("dice", "heart", dice)).value == verdict


def test_a_single_folded_voxel_in_the_body_is_not_compliant_and_the_grid_is_not_graded() -> None:
    assert verdict_of(Measure("folding", "body", 1e-6)) is Verdict.NOT_COMPLIANT
    assert verdict_of(Measure("folding", "body", 0.0)) is Verdict.COMPLIANT
    assert verdict_of(Measure("folding", "grid", 5.0)) is Verdict.INFORMATION


def test_a_worst_landmark_beyond_tolerance_is_for_review() -> None:
    assert verdict_of(Measure("tre_max", "landmarks", 40.0, n=20)) is Verdict.REVIEW


def test_few_landmarks_are_for_review_however_small_their_error() -> None:
    measure = Measure("tre_mean", "landmarks", 0.1, n=4)
    graded = grade([measure], Profile.named("tg132"), 2.0)[0]
    assert graded.verdict is Verdict.REVIEW
    assert "fewer than 5" in graded.note


def test_information_is_never_graded() -> None:
    for key, region in (("hd95", "heart"), ("correlation", "body"), ("mutual_information", "body")):
        for profile in built_in_profiles():
            assert verdict_of(Measure(key, region, 0.0), profile) is Verdict.INFORMATION


def test_nan_is_not_measured() -> None:
    measure = Measure("tre_mean", "landmarks", float("nan"), n=20)
    assert verdict_of(measure) is Verdict.NOT_VERIFIED


def test_the_worst_structure_is_named() -> None:
    profile = Profile.named("tg132")
    rows = [
        ("lung", 0.98, 0.5),
        ("heart", 0.85, 2.4),
        ("cord", 0.86, 1.0),
        ("spleen", None, None),
    ]
    measures = [Measure("dice", name, dice) for name, dice, _ in rows]
    measures += [Measure("mean_distance", name, distance) for name, _, distance in rows]
    assessment = Assessment(grade(measures, profile, 2.0), profile)
    assert assessment.worst_structure == "heart"
    assert assessment.structure_verdict("heart") is Verdict.REVIEW
    assert assessment.structure_verdict("spleen") is Verdict.NOT_VERIFIED
    assert assessment.to_dict()["worst_structure"] == "heart"


def test_a_wrong_structure_is_worse_than_a_large_one_with_distant_surfaces() -> None:
    profile = Profile.named("tg132")
    measures = [
        Measure("dice", "lens", 0.3),
        Measure("mean_distance", "lens", 0.8),
        Measure("dice", "liver", 0.97),
        Measure("mean_distance", "liver", 1.9),
    ]
    assessment = Assessment(grade(measures, profile, 2.0), profile)
    assert assessment.ranked_structures() == ["lens", "liver"]
    # Of each kind the worst: Dice of the lens first, the distance of the liver for both.
    headline = {m.key: (m.region, n) for m, n in assessment.headline() if m.value is not None}
    assert headline == {"dice": ("lens", 2), "mean_distance": ("liver", 2)}
    assert assessment.headline()[0][0].key == "dice"


def test_a_criterion_without_regions_does_not_grade_the_whole_grid() -> None:
    profile = Profile.from_dict(own_profile({"measure": "jacobian_min", "compliant": 0.1}))
    measures = [Measure("jacobian_min", region, -1.0) for region in ("body", "grid")]
    verdicts = [m.verdict for m in grade(measures, profile, 2.0)]
    assert verdicts == [Verdict.NOT_COMPLIANT, Verdict.INFORMATION]


def test_an_assessment_survives_json() -> None:
    profile = Profile.named("srs-1mm")
    measures = [
        Measure("tre_mean", "landmarks", 0.9, 3.0, (0.7, 1.2), 12, note="n"),
        Measure("tre_max", "landmarks", 2.0, place=(1.0, 2.0, 3.0)),
    ]
    whole = Assessment(grade(measures, profile, 1.0), profile, notes=("a",), provenance={"b": 1})
    assert Assessment.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_a_profile_of_ones_own_with_limits_for_single_structures(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    dice = {"measure": "dice", "compliant": 0.8}
    cord = {"measure": "dice", "compliant": 0.95, "review": 0.9, "regions": ["cord", "brain"]}
    file.write_text(json.dumps(own_profile(dice, cord)))
    profile = Profile.named(str(file))
    graded = grade([Measure("dice", n, 0.85) for n in ("heart", "cord")], profile, 2.0)
    verdicts = {m.region: m.verdict.value for m in graded}
    # What the profile names and nobody contoured is not verified.
    assert verdicts == {"heart": "compliant", "cord": "not compliant", "brain": "not verified"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ('{"schema": "other"}', "glidereg-profile-1"),
        (own_profile(), "needs criteria"),
        (own_profile({"measure": "beauty", "compliant": 1}), "'beauty'"),
        (own_profile({"measure": "correlation", "compliant": 1}), "'correlation'"),
        (own_profile({"measure": "dice"}), "needs 'compliant'"),
        (own_profile({"measure": "dice", "compliant": "high"}), "must be a number"),
        (own_profile({"measure": "dice", "compliant": {"at_least": 1}}), "must be a number"),
        (own_profile({"measure": "dice", "compliant": 1, "limit": 2}), "not limit"),
        (own_profile({"measure": "dice", "compliant": 1, "regions": "heart"}), "a list"),
        (own_profile({"measure": "dice", "compliant": 1, "minimum_n": 0}), "minimum_n"),
        (own_profile(*[{"measure": "dice", "compliant": 1}] * 2), "only one"),
        (
            own_profile({"measure": "dice", "compliant": 1, "review": 0, "only_review": True}),
            "either",
        ),
        (own_profile({"measure": "folding", "compliant": float("nan")}), "finite"),
        (own_profile({"measure": "folding", "compliant": 0, "review": float("inf")}), "finite"),
        (own_profile({"measure": "tre_mean", "compliant": 10**400}), "finite"),
        (own_profile({"measure": "dice", "compliant": 0.8, "review": 0.9}), "stricter"),
        (own_profile({"measure": "tre_mean", "compliant": 3, "review": 2}), "stricter"),
        (own_profile({"measure": "dice", "compliant": {"voxels": 1}}), "not measured in mm"),
        (own_profile({"measure": "folding", "compliant": {"voxels": 1}}), "not measured in mm"),
        (
            own_profile({"measure": "folding", "compliant": 0, "review": {"voxels": 1}}),
            "not measured in mm",
        ),
        (
            own_profile(
                {"measure": "hd95", "compliant": {"voxels": 1, "at_least": 3, "at_most": 2}}
            ),
            "at_most",
        ),
        (own_profile({"measure": "hd95", "compliant": {"voxels": 0}}), "above 0"),
        (
            own_profile({"measure": "hd95", "compliant": {"voxels": 1}, "review": 3}),
            "for voxels of 20 mm",
        ),
        (
            own_profile(
                {
                    "measure": "hd95",
                    "compliant": {"voxels": 1, "at_most": 4},
                    "review": {"voxels": 1, "at_most": 3},
                }
            ),
            "for voxels of",
        ),
        (own_profile({"measure": "dice", "compliant": 1, "minimum_n": True}), "minimum_n"),
    ],
)
def test_wrong_profiles_get_one_sentence(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SettingsError, match=said):
        Profile.named(str(file))


def test_profiles_of_ones_own_are_found_by_name_and_built_in_names_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, named, user = (tmp_path / name for name in ("module", "named", "user"))
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(user))
    monkeypatch.setenv("GLIDEREG_PROFILES", str(named))
    own = json.dumps(own_profile({"measure": "dice", "compliant": 0.7}))
    for path in (named / "a.json", user / "profiles/b.json", user / "profiles/a.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(own)
    (named / "tg132.json").write_text(own)
    module.mkdir()
    (module / "c.json").write_text("{")
    found = available_profiles(module)
    assert list(found) == [*built_in_profiles(), "c", "a", "b"]
    assert found["a"] == named / "a.json" and found["b"] == user / "profiles" / "b.json"
    assert Profile.named("a").name == Profile.named("b").name == "Ours"
    assert Profile.named("tg132").name != "Ours", "a built-in name was taken over"
    with pytest.raises(SettingsError, match="srs-1mm, tg132, a, b nor a file"):
        Profile.named("c")  # known only where the module's folder was given


def test_the_command_lists_all_profiles_and_says_which_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours.json").write_text(
        json.dumps(own_profile({"measure": "dice", "compliant": 1}))
    )
    (tmp_path / "wrong.json").write_text("{")
    monkeypatch.setenv("GLIDEREG_PROFILES", str(tmp_path))
    done = CliRunner().invoke(app, ["assess", "--list-profiles"])
    assert done.exit_code == 0, done.output
    lines = dict(line.split(": ", 1) for line in done.output.splitlines())
    assert lines["ours"] == "Ours" and "TG-132" in lines["tg132"]
    assert lines["wrong"].startswith("cannot be used: ") and "not valid JSON" in lines["wrong"]


def test_limits_in_voxels_and_in_mm_that_go_together_are_taken() -> None:
    """Review is the looser limit at every size of voxel, also where both bend."""
    rows = [
        ({"voxels": 1, "at_most": 3}, 3),
        ({"voxels": 1, "at_most": 3}, {"voxels": 1, "at_least": 3}),
        ({"voxels": 1}, {"voxels": 2}),
        (2, {"voxels": 1, "at_least": 2}),
    ]
    for compliant, review in rows:
        criterion = {"measure": "hd95", "compliant": compliant, "review": review}
        Profile.from_dict(own_profile(criterion))


def test_the_example_in_the_folder_for_profiles_can_be_used() -> None:
    readme = Path(__file__).parents[2] / "GlideReg" / "Resources" / "profiles" / "README.md"
    example = readme.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    profile = Profile.from_dict(json.loads(example))
    assert {c.measure for c in profile.criteria} == {"tre_mean", "dice", "folding"}


def test_a_profile_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(SettingsError, match="mean2-max5, srs-1mm, tg132"):
        Profile.named("tg-133")


def test_tiny_values_are_not_shown_as_none() -> None:
    assert KINDS["folding"].show(0.0) == "0 %"
    assert KINDS["folding"].show(3e-6) == "3e-06 %"
    assert KINDS["folding"].show(None) == "not measured"


@pytest.mark.parametrize(
    "text",
    [
        "id,name\n1,heart\n2,cord\n",
        "group;structure;ID\na;heart;1\nb;cord;2\n",
        "label\tname\n1\theart\n2\tcord\n",
        "\ufefflabel,value\nheart,1\ncord,2\n",
    ],
)
def test_names_of_structures_are_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names.csv"
    file.write_text(text, encoding="utf-8")
    assert read_names(file) == {1: "heart", 2: "cord"}


@pytest.mark.parametrize("text", ["", "id,name\n", "name\nheart\n", "id,name\n1,a\n1,b\n", "id\n1"])
def test_names_that_cannot_be_used_get_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names.csv"
    file.write_text(text)
    with pytest.raises(InputError, match="names"):
        read_names(file)
    with pytest.raises(InputError, match="read"):
        read_names(tmp_path / "none.csv")
