"""The benchmark's runs: what is missing is made, what broke is made again, failures are told."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.benchmark import run_one, runner
from GlideRegLib.benchmark.runner import BenchmarkJob, plan_runs, run_benchmark
from GlideRegLib.cli import main
from GlideRegLib.errors import Cancelled, InputError, SettingsError
from GlideRegLib.progress import Progress
from GlideRegLib.sample_data.phantom import PhantomPair, make_phantom_pair
from GlideRegLib.settings import Settings, with_changes

QUICK = with_changes(
    Settings.preset("fast"), threads=1, features={"encoder": "none"}, grid={"spacing_mm": 6.0}
)
QUICK = with_changes(QUICK, initial="none", confidence=False)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_phantom_pair(size=(40, 32, 40), spacing=(8.0, 8.0, 8.0), amplitude=25.0)


@pytest.fixture(scope="module")
def manifest(pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs: "good", and "bad" whose moving image is no image."""
    folder = tmp_path_factory.mktemp("data")
    pair.save(folder)
    (folder / "broken.nii.gz").write_text("not an image")
    names = "".join(f"{value},{name}\n" for value, name in pair.label_names.items())
    (folder / "names.csv").write_text(f"id,name\n{names}")
    columns = ["id", "fixed", "moving", "fixed_landmarks", "moving_landmarks", "fixed_labels"]
    columns += ["moving_labels", "names", "fixed_nodules", "moving_nodules"]
    points = ["fixed_landmarks.csv", "moving_landmarks.csv"]
    labels = ["fixed_labels.nii.gz", "moving_labels.nii.gz", "names.csv"]
    good = ["good", "fixed.nii.gz", "moving.nii.gz", *points, *labels, *points]
    bad = ["bad", "fixed.nii.gz", "broken.nii.gz", *points, *labels, "", ""]
    path = folder / "mine.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, good, bad])
    return path


def make_job(manifest: Path, output: Path, *methods: str, **changes: object) -> BenchmarkJob:
    given = {"settings": QUICK, "pairs": ("good",), **changes}
    return BenchmarkJob((str(manifest),), methods, str(output), **given)


def in_process(run: runner.Run) -> None:
    """The run without a process of its own."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "job.json").write_text(json.dumps(run.content))
    assert run_one.main(str(run.folder / "job.json")) == 0


def test_a_run_counts_only_whole_and_with_its_own_settings(manifest: Path, tmp_path: Path) -> None:
    (run,) = plan_runs(make_job(manifest, tmp_path, "none"), Progress())
    assert run.finished() is None
    in_process(run)
    assert run.finished() is not None
    (same,) = plan_runs(make_job(manifest, tmp_path, "none"), Progress())
    assert same.finished() == run.finished()
    other = with_changes(QUICK, seed=5)
    (changed,) = plan_runs(make_job(manifest, tmp_path, "none", settings=other), Progress())
    assert changed.finished() is None
    record = run.folder / "record.json"
    record.write_text(record.read_text(encoding="utf-8")[:100])
    assert run.finished() is None


def test_our_method_beats_its_start_and_is_measured_by_exact_truth(
    manifest: Path, pair: PhantomPair, tmp_path: Path
) -> None:
    job = make_job(manifest, tmp_path, "none", "glide-local")
    records = []
    for run in plan_runs(job, Progress()):
        in_process(run)
        records.append(run.finished())
    start, ours = (record["measures"] for record in records)
    errors = np.linalg.norm(pair.fixed_landmarks - pair.moving_landmarks, axis=1)
    assert ours["landmarks"]["before"]["mean"] == pytest.approx(errors.mean(), abs=1e-3)
    assert ours["landmarks"]["after"]["mean"] < 0.5 * start["landmarks"]["after"]["mean"]
    assert ours["nodules"]["after"] == ours["landmarks"]["after"]
    assert set(ours["structures"]) == {"lung", "heart", "skeleton", "airway", "liver"}
    assert ours["structures"]["lung"]["after"] > start["structures"]["lung"]["after"]
    assert ours["folding_percent"]["grid"] == 0
    assert records[1]["cost"]["seconds"] > 0
    field = sitk.ReadImage(str(tmp_path / "runs/mine/good/glide-local/displacement.nii.gz"))
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    mapped = np.array([transform.TransformPoint(p) for p in pair.fixed_landmarks.tolist()])
    after = np.linalg.norm(mapped - pair.moving_landmarks, axis=1)
    assert after.mean() == pytest.approx(ours["landmarks"]["after"]["mean"], abs=0.02)


def test_the_command_writes_every_table_and_runs_only_what_is_missing(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [
        "benchmark",
        str(manifest),
        "--methods",
        "none",
        "-o",
        str(tmp_path),
        "--jobs",
        "2",
    ]
    assert main([*arguments, "--encoder", "none", "--threads", "1"]) == 0
    assert "Table 2" in capsys.readouterr().out
    written = {path.name for path in tmp_path.iterdir()}
    expected = {"benchmark.md", "benchmark.html", "benchmark.json", "benchmark.csv", "table2.csv"}
    assert expected | {"table2.tex", "table4.tex", "boxplots.png", "cumulative.png"} <= written
    page = (tmp_path / "benchmark.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert 'src="data:image/png' in page
    assert "http" not in page
    text = (tmp_path / "benchmark.json").read_text(encoding="utf-8")
    assert str(manifest.parent) not in text + page
    # The broken pair alone failed, with a reason.
    good, bad = json.loads(text)["runs"]
    assert good["problem"] is None
    assert good["measures"]["landmarks"]["after"] == good["measures"]["landmarks"]["before"]
    assert "cannot be read as an image" in bad["problem"]

    record = tmp_path / "runs" / "mine" / "good" / "none" / "record.json"
    made = record.stat().st_mtime_ns
    assert main([*arguments, "--encoder", "none", "--threads", "1", "--pair", "good"]) == 0
    assert "1 runs, 0 of them to be made" in capsys.readouterr().err
    assert record.stat().st_mtime_ns == made


def test_methods_that_are_missing_are_left_out(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from GlideRegLib.methods import Method

    monkeypatch.setattr(Method, "missing", lambda *_: "It needs a thing: get it.")
    monkeypatch.setattr(runner, "_run_all", lambda runs, *_: {} if not runs else pytest.fail())
    (record,) = run_benchmark(make_job(manifest, tmp_path, "glide"))
    assert record["problem"] == "It needs a thing: get it."


def test_methods_that_are_missing_now_keep_what_they_finished(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = make_job(manifest, tmp_path, "deeds")
    assert "needs the program 'deedsBCV'" in run_benchmark(job)[0]["problem"]
    (run,) = plan_runs(job, Progress())
    run.folder.mkdir(parents=True)
    record = {"key": run.content["key"], "needs": {"deedsBCV": "of then"}, "measures": {}}
    (run.folder / "record.json").write_text(json.dumps(record))
    (found,) = run_benchmark(job)
    assert (found["problem"], found["measures"]) == (None, {})
    # Here again, but another one: the record is of the old one.
    (tmp_path / "deedsBCV").write_text("another build")
    (tmp_path / "deedsBCV").chmod(0o755)
    (run,) = plan_runs(job, Progress())
    assert run.finished() is None


def test_a_field_that_was_not_kept_is_made_when_it_is_wanted(
    manifest: Path, tmp_path: Path
) -> None:
    (run,) = plan_runs(make_job(manifest, tmp_path, "none", keep_fields=False), Progress())
    in_process(run)
    assert run.complete()
    assert not (run.folder / "displacement.nii.gz").exists()
    (run,) = plan_runs(make_job(manifest, tmp_path, "none"), Progress())
    assert run.finished() is not None
    assert not run.complete()
    in_process(run)
    assert run.complete()
    (run,) = plan_runs(make_job(manifest, tmp_path, "none", keep_fields=False), Progress())
    assert run.complete()


FAKE = """#!{python}
import sys, pathlib, SimpleITK as sitk
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert sorted(given) == ["-d", "-i", "-o", "-ta"] and given["-d"] == "cpu", given
image = sitk.ReadImage(given["-i"])
name = {{"total": "liver", "lung_vessels": "lung_vessels"}}[given["-ta"]]
folder = pathlib.Path(given["-o"])
folder.mkdir(exist_ok=True)
sitk.WriteImage(sitk.Cast(image > -500, sitk.sitkUInt8), str(folder / (name + ".nii.gz")))
"""


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a script with a first line")
def test_totalsegmentator_makes_the_structures_that_are_missing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "TotalSegmentator"
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(0o755)
    bare = tmp_path / "bare.csv"
    images = [manifest.parent / f"{side}.nii.gz" for side in ("fixed", "moving")]
    bare.write_text(f"id,fixed,moving\ngood,{images[0]},{images[1]}\n")
    settings = with_changes(QUICK, device="cpu")
    job = make_job(bare, tmp_path / "out", "none", segment=True, settings=settings)
    with pytest.raises(InputError, match="pip install TotalSegmentator"):
        run_benchmark(job)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    (run,) = plan_runs(job, Progress())
    in_process(run)
    record = run.finished()
    assert set(record["measures"]["structures"]) == {"liver", "lung vessels"}
    assert record["measures"]["landmarks"] is None
    (liver,) = tmp_path.glob("out/structures/bare/good-*/fixed/liver.nii.gz")
    made = liver.stat().st_mtime_ns
    (same,) = plan_runs(job, Progress())
    assert same.finished() == record
    assert liver.stat().st_mtime_ns == made
    # Other images need other masks, and the old record does not count.
    bare.write_text(f"id,fixed,moving\ngood,{images[1]},{images[0]}\n")
    (other,) = plan_runs(job, Progress())
    assert other.finished() is None
    assert len(list(tmp_path.glob("out/structures/bare/good-*"))) == 2


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a script with a first line")
def test_totalsegmentator_may_fail_on_a_pair_without_ending_the_benchmark(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "TotalSegmentator"
    fake.write_text(f"#!{sys.executable}\nraise SystemExit('no more memory')\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bare = tmp_path / "bare.csv"
    images = [manifest.parent / f"{side}.nii.gz" for side in ("fixed", "moving")]
    bare.write_text("id,fixed,moving\n" + "".join(f"{k},{images[0]},{images[1]}\n" for k in "ab"))
    progress = Progress()
    settings = with_changes(QUICK, device="cpu")
    job = make_job(bare, tmp_path / "out", "none", segment=True, settings=settings, pairs=())
    runs = list(plan_runs(job, progress))
    assert [run.content["structures"] for run in runs] == [None, None]
    told = [text for level, text in progress.messages if level == "warning"]
    assert len(told) == 2
    assert "bare a has no structures: TotalSegmentator failed (no more memory)" in told[0]


@pytest.mark.parametrize("methods", [(), ("none", "none"), ("no-such-method",)])
def test_wrong_methods_are_one_sentence(
    manifest: Path, tmp_path: Path, methods: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError):
        run_benchmark(make_job(manifest, tmp_path, *methods))


def test_options_reach_their_method_and_are_checked(manifest: Path, tmp_path: Path) -> None:
    job = make_job(manifest, tmp_path, "convexadam", method_options={"convexadam": {"no": 1}})
    (run,) = plan_runs(job, Progress())
    run.folder.mkdir(parents=True)
    (run.folder / "job.json").write_text(json.dumps(run.content))
    assert run_one.main(str(run.folder / "job.json")) == 2
    assert "no" in (run.folder / "problem.txt").read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match="takes no part"):
        run_benchmark(make_job(manifest, tmp_path, "none", method_options={"convexadam": {}}))


def test_two_images_of_one_name_cannot_share_structures(manifest: Path, tmp_path: Path) -> None:
    rows = ["id,fixed,moving"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for side in ("fixed", "moving"):
            image = tmp_path / name / f"{side}_ct.nii.gz"
            shutil.copyfile(manifest.parent / f"{side}.nii.gz", image)
            (tmp_path / "masks" / f"{side}_ct").mkdir(parents=True, exist_ok=True)
        rows.append(f"{name},{name}/fixed_ct.nii.gz,{name}/moving_ct.nii.gz")
    (tmp_path / "two.csv").write_text("\n".join(rows))
    given = {"pairs": (), "structures": str(tmp_path / "masks")}
    job = make_job(tmp_path / "two.csv", tmp_path / "out", "none", **given)
    with pytest.raises(InputError, match="Two different images are called 'fixed_ct'"):
        list(plan_runs(job, Progress()))


def test_no_pair_of_that_name_is_one_sentence(manifest: Path, tmp_path: Path) -> None:
    for pairs in (("other",), ("good", "other")):
        with pytest.raises(InputError, match="has the pair 'other'; their pairs are good, bad"):
            run_benchmark(make_job(manifest, tmp_path, "none", pairs=pairs))


def test_a_run_that_takes_too_long_is_ended(manifest: Path, tmp_path: Path) -> None:
    (record,) = run_benchmark(make_job(manifest, tmp_path, "none", limit_seconds=0.0))
    assert record["problem"] == "did not end within 0 s"


def test_cancelling_ends_the_running_process(manifest: Path, tmp_path: Path) -> None:
    asked = []

    def wish() -> bool:  # after the planning, when the child runs
        asked.append((tmp_path / "runs/mine/good/none/job.json").exists())
        return asked[-1]

    with pytest.raises(Cancelled, match="finished runs are kept"):
        run_benchmark(make_job(manifest, tmp_path, "none"), Progress(should_cancel=wish))
    assert asked[-1]
    assert not (tmp_path / "runs/mine/good/none/record.json").exists()
