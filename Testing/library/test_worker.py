"""The worker process: its protocol, cancelling at any stage, kill, and wholeness of outputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from GlideRegLib.errors import Cancelled, SettingsError
from GlideRegLib.job import Job, run_job
from GlideRegLib.progress import Progress, ProgressEvent
from GlideRegLib.settings import Settings, with_changes

STAGES = ("read", "prepare", "align", "convex", "refine", "measure", "report", "save")


def quick_job(small_files: dict, output: Path) -> Job:
    settings = with_changes(
        Settings.preset("fast"),
        features={"encoder": "none"},
        grid={"spacing_mm": 4.0},
        threads=2,
    )
    return Job(
        fixed=str(small_files["fixed"]),
        moving=str(small_files["moving"]),
        output=str(output),
        settings=settings,
        fixed_landmarks=(str(small_files["fixed_landmarks"]),),
        moving_landmarks=(str(small_files["moving_landmarks"]),),
    )


def start_worker(job: Job, folder: Path) -> subprocess.Popen:
    file = folder / "job.json"
    file.write_text(job.to_json(), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "GlideRegLib.worker", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )


def events_of(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_job_survives_its_way_through_json(small_files: dict, tmp_path: Path) -> None:
    job = quick_job(small_files, tmp_path / "out")
    assert Job.from_json(job.to_json()) == job


def test_the_worker_tells_stages_progress_and_the_result(small_files: dict, tmp_path: Path) -> None:
    worker = start_worker(quick_job(small_files, tmp_path / "out"), tmp_path)
    out, _ = worker.communicate(timeout=120)
    events = events_of(out)
    assert worker.returncode == 0
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert [s for s in STAGES if s in stages] == list(STAGES)
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert events[-1]["event"] == "result"
    assert events[-1]["quality"]["tre_mm"]["after"]["mean"] < 2
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_leaves_nothing_behind(stage: str, small_files: dict, tmp_path: Path) -> None:
    reached = []

    def listen(event: ProgressEvent) -> None:
        if event.kind == "stage" and event.stage == stage:
            reached.append(stage)

    output = tmp_path / "out"
    with pytest.raises(Cancelled):
        run_job(quick_job(small_files, output), Progress(listen, lambda: bool(reached)))
    assert list(tmp_path.iterdir()) == []


def test_cancelling_keeps_older_results_as_they_were(small_files: dict, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "result.json").write_text("older", encoding="utf-8")
    with pytest.raises(Cancelled):
        seen = []
        run_job(
            quick_job(small_files, output),
            Progress(
                lambda event: seen.append(event.stage),
                lambda: "save" in seen,
            ),
        )
    assert [path.name for path in output.iterdir()] == ["result.json"]
    assert (output / "result.json").read_text(encoding="utf-8") == "older"


@pytest.mark.parametrize("how", ["file", "signal"])
def test_the_worker_ends_within_two_seconds_of_the_wish(
    how: str, small_files: dict, tmp_path: Path
) -> None:
    worker = start_worker(quick_job(small_files, tmp_path / "out"), tmp_path)
    lines = []
    for line in worker.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "stage":
            break
    wished = time.monotonic()
    if how == "file":
        (tmp_path / "cancel").touch()
    else:
        worker.send_signal(signal.SIGTERM)
    out, _ = worker.communicate(timeout=30)
    assert time.monotonic() - wished < 3  # two seconds, and what a busy machine adds
    assert worker.returncode == 130
    assert events_of(out)[-1] == {
        "event": "error",
        "kind": "cancelled",
        "message": "The run was cancelled; nothing was written.",
    }
    assert not (tmp_path / "out").exists()


def test_a_wrong_input_is_one_error_event(small_files: dict, tmp_path: Path) -> None:
    job = quick_job({**small_files, "fixed": tmp_path / "missing.nii.gz"}, tmp_path / "out")
    worker = start_worker(job, tmp_path)
    out, _ = worker.communicate(timeout=60)
    events = events_of(out)
    assert worker.returncode == 2
    assert events[-1]["event"] == "error"
    assert events[-1]["kind"] == "input"
    assert "does not exist" in events[-1]["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ("{}", "lacks fixed, moving, output"),
        ('{"fixed": "a", "moving": "b", "output": "c", "sped": 1}', "unknown names: sped"),
        ('{"fixed": "a", "moving": "b", "output": "c", "settings": {"seeed": 1}}', "seeed"),
    ],
)
def test_a_wrong_job_file_is_one_error_event(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "GlideRegLib.worker", str(file)], capture_output=True, text=True
    )
    events = events_of(done.stdout)
    assert done.returncode == 2
    assert len(events) == 1
    assert words in events[0]["message"]


def test_a_broken_package_gives_a_sentence_that_names_it(
    small_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "site" / "torch"
    broken.mkdir(parents=True)
    text = "raise ImportError('DLL load failed', name='torch._C')\n"
    (broken / "__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    worker = start_worker(quick_job(small_files, tmp_path / "out"), tmp_path)
    output, log = worker.communicate(timeout=60)
    last = events_of(output)[-1]
    assert (last["event"], last["kind"]) == ("error", "installation")
    assert "package 'torch' is missing or broken" in last["message"]
    assert "DLL load failed" in log
    assert worker.returncode == 2
    assert not (tmp_path / "out").exists()


def test_images_for_another_program_need_neither_report_nor_command_line(
    small_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3D Slicer runs it so, and installs only what this needs (Resources/requirements.txt)."""
    for name in ("typer", "rich", "jinja2", "matplotlib", "PIL"):
        absent = tmp_path / "site" / name
        absent.mkdir(parents=True)
        (absent / "__init__.py").write_text(f"raise ImportError(name='{name}')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    job = replace(quick_job(small_files, tmp_path / "out"), outputs="images")
    worker = start_worker(job, tmp_path)
    output, log = worker.communicate(timeout=120)
    assert worker.returncode == 0, output + log
    written = {path.name for path in (tmp_path / "out").iterdir()}
    images = {"warped.mha", "displacement.mha", "jacobian.mha", "uncertainty.mha"}
    assert written == {*images, "result.json"}


def test_outputs_that_do_not_exist_are_refused(small_files: dict, tmp_path: Path) -> None:
    job = replace(quick_job(small_files, tmp_path / "out"), outputs="pictures")
    with pytest.raises(SettingsError, match='"files" or "images"'):
        Job.from_json(job.to_json())
